// dockerd: two image stores with two ways (registry-clients.md section 6).
#include <algorithm>
#include <boost/json/parse.hpp>
#include <boost/json/value.hpp>

#include "cache/escape.h"
#include "daemon/edit_json.h"
#include "daemon/setup.h"

namespace staithe::daemon {
namespace {

namespace json = boost::json;

constexpr const char* config_file = "/etc/docker/daemon.json";
constexpr const char* certs_directory = "/etc/docker/certs.d";

enum class ImageStore { containerd, classic };

struct DockerdConfig {
  json::value value;  // an object; empty if there is no file
  bool readable = true;

  const json::value* get(std::string_view key) const {
    return value.is_object() ? value.get_object().if_contains(key) : nullptr;
  }
};

DockerdConfig read_config(const Machine& machine) {
  const auto text = machine.read(config_file);
  if (!text || !*text) return {.value = json::object{}, .readable = text.has_value()};
  boost::system::error_code error;
  json::value value = json::parse(**text, error);
  if (error) return {.value = json::object{}, .readable = false};
  return {.value = std::move(value)};
}

std::string text_of(const DockerdConfig& config, std::string_view key) {
  const json::value* value = config.get(key);
  return value && value->is_string() ? std::string(value->get_string()) : std::string();
}

// Asked of the running daemon if there is one, else told from what decides it at its start.
ImageStore image_store(const Machine& machine, const DockerdConfig& config,
                       const std::optional<Version>& version) {
  if (machine.is_running()) {
    const auto said = machine.run("docker", {"info", "--format", "{{json .DriverStatus}}"});
    if (said && said->contains("driver-type"))
      return said->contains("io.containerd.snapshotter") ? ImageStore::containerd
                                                         : ImageStore::classic;
    if (said && said->contains('[')) return ImageStore::classic;
  }
  if (const json::value* features = config.get("features"); features && features->is_object()) {
    const json::value* chosen = features->get_object().if_contains("containerd-snapshotter");
    if (chosen && chosen->is_bool())
      return chosen->get_bool() ? ImageStore::containerd : ImageStore::classic;
  }
  if (!version || version->major < 29) return ImageStore::classic;
  // 29 begins with the containerd store where there are no images of the other yet.
  const std::string root = text_of(config, "data-root");
  const std::filesystem::path images =
      std::filesystem::path(root.empty() ? "/var/lib/docker" : root) / "image";
  return machine.list(images).empty() ? ImageStore::containerd : ImageStore::classic;
}

bool is_loopback(std::string_view url) {
  for (const std::string_view scheme : {"http://", "https://"})
    if (url.starts_with(scheme)) url.remove_prefix(scheme.size());
  return url.starts_with("127.") || url.starts_with("localhost") || url.starts_with("[::1]");
}

void warn_of_mirrors(Plan& plan, const DockerdConfig& config) {
  const json::value* mirrors = config.get("registry-mirrors");
  if (!mirrors || !mirrors->is_array()) return;
  for (const json::value& mirror : mirrors->get_array()) {
    if (!mirror.is_string() || !is_loopback(mirror.get_string())) continue;
    plan.warnings.push_back(
        "daemon.json has the loopback registry-mirrors entry " +
        printable(mirror.get_string(), 100) +
        ": with the containerd image store it makes dockerd accept any certificate for Docker Hub "
        "itself (28.5.2, 29.7.2). certs.d/docker.io/hosts.toml does without it; take the entry "
        "out");
  }
}

void plan_containerd_store(Plan& plan, const Machine& machine, const Served& service,
                           const DockerdConfig& config, const std::optional<Version>& version) {
  if (version && version->major < 28) {
    plan.refusals.push_back(
        {certs_directory,
         "dockerd " + plan.version +
             " with the containerd image store reads no hosts.toml: that came with 28.0. Upgrade "
             "it, or take features.containerd-snapshotter out of daemon.json",
         {}});
    return;
  }
  plan.asks = Asks::by_ns;
  warn_of_mirrors(plan, config);
  const bool is_29 = version && version->major >= 29;
  // 29.7 is built with containerd 2.3, 29.0 with 2.1; 28 with one that may not go on behind
  // "_default".
  plan_hosts_toml(plan, machine, service,
                  {.directory = certs_directory,
                   .reader = "dockerd" + (plan.version.empty() ? "" : " " + plan.version),
                   .dial_timeout = is_29,
                   .referrers = version && *version >= Version{29, 7, 0},
                   .use_default = is_29});
}

void plan_classic_store(Plan& plan, const Machine& machine, const Served& service,
                        const DockerdConfig& config) {
  plan.asks = Asks::by_nothing;
  const auto hub = std::ranges::find(service.registries, "docker.io", &ServedRegistry::name);
  const bool serves_hub = hub != service.registries.end();
  if (!serves_hub || !hub->is_default) {
    plan.refusals.push_back(
        {config_file,
         "with its own image store dockerd asks a mirror for Docker Hub only, and without saying "
         "so; staithed " +
             std::string(serves_hub ? "does not take docker.io for what names no registry (default "
                                      "= true in staithe.toml)"
                                    : "does not serve docker.io, or it was not asked for"),
         {}});
  } else {
    const std::string by_hand = "\"registry-mirrors\": [\"" + service.url() + "\"]\n";
    std::vector<std::filesystem::path> places = unit_files(machine, "docker");
    places.insert(places.end(), {"/etc/default/docker", "/etc/sysconfig/docker"});
    if (const auto file = file_with(machine, places, "--registry-mirror")) {
      plan.refusals.push_back(
          {config_file,
           file->native() +
               " gives dockerd --registry-mirror, and dockerd does not start with both. Add this "
               "one there, as the first",
           "--registry-mirror=" + service.url() + "\n"});
    } else {
      propose(plan, machine, config_file, by_hand,
              [&](const std::optional<std::string>& text) -> Result<std::string> {
                const bool blank = !text || text->find_first_not_of(" \t\r\n") == text->npos;
                if (blank) return "{\n  \"registry-mirrors\": [\"" + service.url() + "\"]\n}\n";
                return put_first_in_list(*text, "registry-mirrors", service.url());
              });
      plan.restarts.push_back(
          {"systemctl reload docker", "it reads registry-mirrors again without ending containers"});
      // Seen with 20.10.24: a reload leaves what the file says no more as it was.
      if (!config.get("registry-mirrors")) {
        plan.undo_restarts.push_back(
            {"systemctl restart docker",
             "a reload does not take away the mirror that the file no longer names; until then "
             "pulls of Docker Hub still try staithed first"});
      }
    }
  }
  std::string others;
  for (const ServedRegistry& registry : service.registries)
    if (registry.name != "docker.io") others += (others.empty() ? "" : ", ") + registry.name;
  if (!others.empty()) {
    plan.warnings.push_back(
        "dockerd's own image store asks mirrors for Docker Hub only; images of " + others +
        " come through staithed as " + service.address +
        "/HOST/IMAGE, or with the containerd image store of dockerd 28 and later (\"features\": "
        "{\"containerd-snapshotter\": true})");
  }
}

}  // namespace

void plan_docker(Plan& plan, const Machine& machine, const Served& service) {
  plan.found = !machine.find("dockerd").empty();
  if (!plan.found) {
    plan.refusals.push_back({config_file, "dockerd is not installed", {}});
    return;
  }
  const auto version = parse_version(machine.run("dockerd", {"--version"}).value_or(""));
  if (version) plan.version = to_string(*version);
  const DockerdConfig config = read_config(machine);
  if (image_store(machine, config, version) == ImageStore::containerd) {
    plan_containerd_store(plan, machine, service, config, version);
  } else {
    plan_classic_store(plan, machine, service, config);
  }
}

}  // namespace staithe::daemon
