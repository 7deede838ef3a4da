#include "daemon/setup.h"

#include <algorithm>
#include <cassert>
#include <charconv>
#include <utility>

#include "cache/escape.h"

namespace staithe::daemon {
namespace {

constexpr std::array<std::string_view, all_clients.size()> client_names{
    "containerd", "docker", "podman", "crio", "buildkit", "k3s", "rke2", "kubelet", "nomad"};

bool is_digit(char c) { return c >= '0' && c <= '9'; }

// One number of a version and what follows it.
std::optional<int> take_number(std::string_view& text) {
  int number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || number < 0) return std::nullopt;
  text.remove_prefix(static_cast<std::size_t>(end - text.data()));
  return number;
}

}  // namespace

std::string_view to_string(Client client) {
  return client == Client::tls ? "tls" : client_names[static_cast<std::size_t>(client)];
}

std::optional<Client> parse_client(std::string_view name) {
  if (name == "cri-o") name = "crio";
  if (name == "dockerd") name = "docker";
  if (name == "buildkitd") name = "buildkit";
  const auto found = std::ranges::find(client_names, name);
  if (found == client_names.end()) return std::nullopt;
  return all_clients[static_cast<std::size_t>(found - client_names.begin())];
}

std::optional<Version> parse_version(std::string_view text) {
  for (std::size_t at = 0; at < text.size(); ++at) {
    // Not within a word or another number: "containerd/v2" and "20.10" as one.
    const char before = at > 0 ? text[at - 1] : ' ';
    const bool begins = before == ' ' || before == '\t' || before == '\n' || before == '"' ||
                        (before == 'v' && (at < 2 || text[at - 2] == ' ' || text[at - 2] == '"'));
    if (!is_digit(text[at]) || !begins) continue;
    std::string_view rest = text.substr(at);
    Version version;
    const auto major = take_number(rest);
    if (!major || !rest.starts_with('.')) continue;
    rest.remove_prefix(1);
    const auto minor = take_number(rest);
    if (!minor) continue;
    version.major = *major;
    version.minor = *minor;
    if (rest.size() > 1 && rest[0] == '.' && is_digit(rest[1])) {
      rest.remove_prefix(1);
      version.patch = take_number(rest).value_or(0);
    }
    return version;
  }
  return std::nullopt;
}

std::string to_string(const Version& version) {
  return std::to_string(version.major) + "." + std::to_string(version.minor) + "." +
         std::to_string(version.patch);
}

bool serves(const std::vector<ServedRegistry>& registries, std::string_view host) {
  return std::ranges::any_of(registries, [&](const ServedRegistry& registry) {
    const std::string_view name = registry.name;
    return name == host || (name.starts_with("*.") && host.size() > name.size() - 1 &&
                            host.ends_with(name.substr(1)));
  });
}

std::vector<std::string> Served::named() const {
  std::vector<std::string> names;
  for (const ServedRegistry& registry : registries)
    if (!registry.name.starts_with('*')) names.push_back(registry.name);
  return names;
}

std::vector<std::string> Served::hosts() const {
  std::vector<std::string> hosts = named();
  for (const std::string& host : seen) {
    if (serves(registries, host) && std::ranges::find(hosts, host) == hosts.end())
      hosts.push_back(host);
  }
  return hosts;
}

std::vector<std::string> Served::wildcards() const {
  std::vector<std::string> names;
  for (const ServedRegistry& registry : registries)
    if (registry.name.starts_with('*')) names.push_back(registry.name);
  return names;
}

void propose(Plan& plan, const Machine& machine, const std::filesystem::path& path,
             const std::string& by_hand, const Edit& edit) {
  const auto earlier = std::ranges::find(plan.changes, path, &FileChange::path);
  std::optional<std::string> before;
  std::optional<std::string> current;
  if (earlier != plan.changes.end()) {
    before = earlier->before;
    current = earlier->after;
  } else {
    auto read = machine.read(path);
    if (!read) {
      plan.refusals.push_back({path, read.error().detail, by_hand});
      return;
    }
    current = before = *std::move(read);
  }
  const Result<std::string> after = edit(current);
  if (!after) {
    plan.refusals.push_back({path, after.error().detail, by_hand});
  } else if (current == *after) {
    if (earlier == plan.changes.end() &&
        std::ranges::find(plan.settled, path) == plan.settled.end())
      plan.settled.push_back(path);
  } else if (earlier != plan.changes.end()) {
    earlier->after = *after;
  } else {
    std::erase(plan.settled, path);
    plan.changes.push_back({path, std::move(before), *after});
  }
}

void warn_of_wildcards(Plan& plan, const Served& service, std::string_view why) {
  const std::vector<std::string> wildcards = service.wildcards();
  if (wildcards.empty()) return;
  std::string names;
  for (const std::string& name : wildcards) names += (names.empty() ? "" : ", ") + name;
  plan.warnings.push_back(std::string(why) + ", so of " + names +
                          " only registries whose images are in the cache are set up: name others "
                          "with --registry, for instance --registry contoso.azurecr.io");
}

std::optional<std::filesystem::path> file_with(const Machine& machine,
                                               const std::vector<std::filesystem::path>& files,
                                               std::string_view word) {
  for (const std::filesystem::path& file : files) {
    const auto text = machine.read(file);
    if (!text || !*text) continue;
    // What a comment says is not so.
    std::string_view rest = **text;
    while (!rest.empty()) {
      const std::size_t end = std::min(rest.find('\n'), rest.size());
      std::string_view line = rest.substr(0, end);
      rest.remove_prefix(std::min(end + 1, rest.size()));
      line.remove_prefix(std::min(line.find_first_not_of(" \t"), line.size()));
      if (!line.starts_with('#') && !line.starts_with(';') && line.contains(word)) return file;
    }
  }
  return std::nullopt;
}

std::vector<std::filesystem::path> unit_files(const Machine& machine, std::string_view service) {
  std::vector<std::filesystem::path> files;
  for (const std::filesystem::path directory : {"/etc/systemd/system", "/run/systemd/system",
                                                "/usr/lib/systemd/system", "/lib/systemd/system"}) {
    const std::string unit = std::string(service) + ".service";
    files.push_back(directory / unit);
    const std::filesystem::path drop_ins = directory / (unit + ".d");
    for (const std::string& name : machine.list(drop_ins))
      if (name.ends_with(".conf")) files.push_back(drop_ins / name);
  }
  return files;
}

Plan plan_setup(Client client, const Machine& machine, const Served& service) {
  assert(!service.address.empty());
  Plan plan{.client = client};
  switch (client) {
    case Client::containerd:
      plan_containerd(plan, machine, service);
      break;
    case Client::docker:
      plan_docker(plan, machine, service);
      break;
    case Client::podman:
    case Client::crio:
      plan_containers(plan, machine, service);
      break;
    case Client::buildkit:
      plan_buildkit(plan, machine, service);
      break;
    case Client::k3s:
    case Client::rke2:
      plan_k3s(plan, machine, service);
      break;
    case Client::kubelet:
      plan_kubelet(plan, machine, service);
      break;
    case Client::nomad:
      plan_nomad(plan, machine, service);
      break;
    case Client::tls:
      plan_tls(plan, machine, std::chrono::system_clock::now());
      break;
  }
  if (plan.changes.empty()) {
    plan.restarts.clear();
    plan.undo_restarts.clear();
  }
  return plan;
}

}  // namespace staithe::daemon
