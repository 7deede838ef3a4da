// podman, CRI-O and what else reads registries.conf (registry-clients.md section 7); BuildKit
// (section 8).
#include <toml++/toml.h>

#include <algorithm>
#include <map>
#include <utility>

#include "daemon/edit_toml.h"
#include "daemon/setup.h"

namespace staithe::daemon {
namespace {

constexpr const char* containers_config = "/etc/containers/registries.conf";
constexpr const char* drop_ins = "/etc/containers/registries.conf.d";
constexpr const char* own_drop_in = "/etc/containers/registries.conf.d/50-staithe.conf";
constexpr const char* buildkit_config = "/etc/buildkit/buildkitd.toml";

std::optional<toml::table> parsed(const std::optional<std::string>& text) {
  if (!text) return std::nullopt;
  try {
    return toml::parse(*text);
  } catch (const toml::parse_error&) {
    return std::nullopt;
  }
}

// The registries that a file has an entry for, by their prefix, each with its first mirror.
std::map<std::string, std::string> entries_of(const toml::table& table) {
  std::map<std::string, std::string> entries;
  const toml::array* registries = table["registry"].as_array();
  for (std::size_t i = 0; registries && i < registries->size(); ++i) {
    const toml::table* registry = (*registries)[i].as_table();
    if (!registry) continue;
    const std::string location = (*registry)["location"].value_or(std::string());
    entries[(*registry)["prefix"].value_or(location)] =
        (*registry)["mirror"][0]["location"].value_or(std::string());
  }
  return entries;
}

std::string mirror_of(const Served& service, const std::string& host) {
  return service.address + "/" + host;
}

// "insecure" is what allows plain HTTP; it never leaves loopback.
std::string pair_of_tables(const Served& service, const std::string& host) {
  return "[[registry]]\nlocation = " + toml_quoted(host) +
         "\n\n[[registry.mirror]]\nlocation = " + toml_quoted(mirror_of(service, host)) +
         "\ninsecure = true\n";
}

Result<std::string> edited_drop_in(const std::optional<std::string>& text, const Served& service,
                                   const std::vector<std::string>& hosts) {
  std::string result = text.value_or(
      "# Written by staithe setup for podman, skopeo, buildah and CRI-O. The registry "
      "itself is asked\n# if staithed does not answer.\n");
  const auto table = parsed(result);
  if (!table) return fail(Errc::config, "it is not TOML, so podman and CRI-O do not start");
  const auto present = entries_of(*table);
  for (const std::string& host : hosts) {
    const auto found = present.find(host);
    if (found == present.end()) {
      auto longer = append_toml(result, pair_of_tables(service, host));
      if (!longer) return longer;
      result = *std::move(longer);
    } else if (found->second != mirror_of(service, host)) {
      return fail(Errc::config,
                  "its first mirror of " + host + " is another than " + mirror_of(service, host));
    }
  }
  return result;
}

}  // namespace

void plan_containers(Plan& plan, const Machine& machine, const Served& service) {
  const bool is_crio = plan.client == Client::crio;
  const std::string program = is_crio ? "crio" : "podman";
  // skopeo and buildah read the same files and may be alone.
  plan.found = !machine.find(program).empty() ||
               (!is_crio && (!machine.find("skopeo").empty() || !machine.find("buildah").empty()));
  if (!plan.found) {
    plan.refusals.push_back({own_drop_in, program + " is not installed", {}});
    return;
  }
  const auto version = parse_version(machine.run(program, {"--version"}).value_or(""));
  if (version) plan.version = to_string(*version);
  plan.asks = Asks::by_path;
  std::vector<std::string> hosts = service.hosts();
  std::string by_hand;
  for (const std::string& host : hosts) by_hand += pair_of_tables(service, host) + "\n";

  const auto main_text = machine.read(containers_config);
  if (const auto main = parsed(main_text ? *main_text : std::nullopt)) {
    // Version 1 of the format; files of both are not read together.
    if ((*main)["registries"].is_table()) {
      plan.refusals.push_back(
          {containers_config,
           "it is of the old format ([registries.search]), which does not go with mirrors: "
           "unqualified-search-registries = [...] takes the place of that table",
           by_hand});
      return;
    }
  }
  // Of two entries for one registry only the one of the later file counts, as a whole.
  std::vector<std::filesystem::path> others{containers_config};
  for (const std::string& name : machine.list(drop_ins)) {
    const std::filesystem::path path = std::filesystem::path(drop_ins) / name;
    if (name.ends_with(".conf") && path != own_drop_in) others.push_back(path);
  }
  for (const auto& path : others) {
    const auto text = machine.read(path);
    const auto table = parsed(text ? *text : std::nullopt);
    if (!table) continue;
    for (const auto& [host, mirror] : entries_of(*table)) {
      const auto found = std::ranges::find(hosts, host);
      if (found == hosts.end()) continue;
      if (mirror != mirror_of(service, host)) {
        plan.warnings.push_back(path.native() + " has an entry for " + host +
                                " already, so it is left out: only one of two would count. Add to "
                                "that entry: [[registry.mirror]] location = " +
                                toml_quoted(mirror_of(service, host)) + ", insecure = true");
      }
      hosts.erase(found);
    }
  }
  warn_of_wildcards(plan, service, "registries.conf has no mirror for what a wildcard stood for");
  if (hosts.empty()) return;
  propose(plan, machine, own_drop_in, by_hand, [&](const std::optional<std::string>& text) {
    return edited_drop_in(text, service, hosts);
  });
  if (is_crio)
    plan.restarts.push_back({"systemctl reload crio", "it reads registries.conf again at SIGHUP"});
}

void plan_buildkit(Plan& plan, const Machine& machine, const Served& service) {
  plan.found = !machine.find("buildkitd").empty();
  if (!plan.found) {
    plan.refusals.push_back(
        {buildkit_config,
         "buildkitd is not installed. A builder of docker buildx (driver docker-container) has a "
         "network of its own, where this machine's loopback is not: it needs --driver-opt "
         "network=host and this file by --buildkitd-config",
         {}});
    return;
  }
  const auto version = parse_version(machine.run("buildkitd", {"--version"}).value_or(""));
  if (version) plan.version = to_string(*version);
  std::string by_hand;
  for (const std::string& host : service.hosts())
    by_hand +=
        toml_header({"registry", host}) + "\n  mirrors = [" + toml_quoted(service.address) + "]\n";
  by_hand += toml_header({"registry", service.address}) + "\n  http = true\n";
  propose(plan, machine, buildkit_config, by_hand,
          [&](const std::optional<std::string>& text) -> Result<std::string> {
            Result<std::string> result = text.value_or("# Written by staithe setup.\n");
            for (const std::string& host : service.hosts()) {
              if (!result) return result;
              const auto table = parsed(*result);
              if (!table) return fail(Errc::config, "it is not TOML, so buildkitd does not start");
              std::vector<std::string> mirrors{service.address};
              const auto present = (*table)["registry"][host]["mirrors"];
              if (present && !present.is_array())
                return fail(Errc::config, "its mirrors of " + host + " are not a list");
              bool has_it = false;
              for (std::size_t i = 0; present && i < present.as_array()->size(); ++i) {
                const auto mirror = present[i].value<std::string>();
                if (!mirror)
                  return fail(Errc::config, "its mirrors of " + host + " are not strings");
                has_it = has_it || *mirror == service.address;
                mirrors.push_back(*mirror);
              }
              if (has_it) continue;
              std::string list;
              for (const std::string& mirror : mirrors)
                list += (list.empty() ? "" : ", ") + toml_quoted(mirror);
              result = set_toml_key(*result, {"registry", host}, "mirrors", "[" + list + "]");
            }
            // A mirror's own settings stand below its own name. `insecure` would mean HTTPS first.
            if (result)
              result = set_toml_key(*result, {"registry", service.address}, "http", "true");
            return result;
          });
  warn_of_wildcards(plan, service, "buildkitd.toml has no wildcards");
  plan.restarts.push_back(
      {"systemctl restart buildkit", "it reads buildkitd.toml when it starts; builds are ended"});
}

}  // namespace staithe::daemon
