// containerd: hosts.toml for each registry, and where CRI looks for them.
#include <toml++/toml.h>

#include <utility>

#include "cache/escape.h"
#include "daemon/edit_toml.h"
#include "daemon/setup.h"

namespace staithe::daemon {
namespace {

constexpr const char* config_file = "/etc/containerd/config.toml";
constexpr const char* default_directory = "/etc/containerd/certs.d";

struct ConfigFile {
  std::filesystem::path path;
  toml::table table;
};

// The names of one version of the configuration file (registry-clients.md section 5).
struct Layout {
  std::string plugin;
  int version;  // what a new file begins with
};

// Files that `pattern` names: "/etc/containerd/conf.d/*.toml", with a star in the last part only.
std::vector<std::filesystem::path> expand(const Machine& machine, std::filesystem::path pattern) {
  if (pattern.is_relative()) pattern = std::filesystem::path(config_file).parent_path() / pattern;
  const std::string name = pattern.filename();
  const std::size_t star = name.find('*');
  if (star == name.npos) return {pattern};
  std::vector<std::filesystem::path> files;
  const std::string head = name.substr(0, star);
  const std::string tail = name.substr(star + 1);
  for (const std::string& found : machine.list(pattern.parent_path())) {
    if (found.size() >= head.size() + tail.size() && found.starts_with(head) &&
        found.ends_with(tail)) {
      files.push_back(pattern.parent_path() / found);
    }
  }
  return files;
}

// The configuration with what it imports, in the order in which containerd lays one over the other.
Result<std::vector<ConfigFile>> read_config(const Machine& machine,
                                            const std::optional<Version>& version) {
  std::vector<ConfigFile> files;
  std::vector<std::filesystem::path> paths{config_file};
  for (std::size_t i = 0; i < paths.size(); ++i) {
    auto text = machine.read(paths[i]);
    if (!text) return std::unexpected(text.error());
    if (!*text) continue;
    try {
      files.push_back({paths[i], toml::parse(**text)});
    } catch (const toml::parse_error& error) {
      return fail(Errc::config, paths[i].native() + " line " +
                                    std::to_string(error.source().begin.line) +
                                    " is not TOML: " + printable(error.description(), 200));
    }
    if (i > 0) continue;
    const toml::array* imports = files.front().table["imports"].as_array();
    for (std::size_t n = 0; imports && n < imports->size(); ++n) {
      for (auto& path : expand(machine, (*imports)[n].value_or(std::string())))
        if (!path.empty() && path != paths[0]) paths.push_back(path);
    }
  }
  // Without a configuration file its defaults hold, which import this since 2.2.
  if (files.empty() && version && *version >= Version{2, 2, 0}) {
    for (const auto& path : expand(machine, "/etc/containerd/conf.d/*.toml")) {
      auto text = machine.read(path);
      if (!text) return std::unexpected(text.error());
      try {
        files.push_back({path, toml::parse((*text).value_or(""))});
      } catch (const toml::parse_error&) {
        return fail(Errc::config, path.native() + " is not TOML");
      }
    }
  }
  return files;
}

Layout layout_of(const std::vector<ConfigFile>& files, const std::optional<Version>& version) {
  const bool second = version && version->major >= 2;
  if (files.empty() || files.front().path != config_file || files.front().table.empty()) {
    return second ? Layout{"io.containerd.cri.v1.images", 3}
                  : Layout{"io.containerd.grpc.v1.cri", 2};
  }
  // A file without a version is one of version 1, also for containerd 2, which converts it.
  switch (files.front().table["version"].value_or(1)) {
    case 1:
      return {"cri", 1};
    case 2:
      return {"io.containerd.grpc.v1.cri", 2};
    default:
      return {"io.containerd.cri.v1.images", 3};
  }
}

bool cri_is_off(const std::vector<ConfigFile>& files) {
  for (const ConfigFile& file : files) {
    const toml::array* off = file.table["disabled_plugins"].as_array();
    for (std::size_t i = 0; off && i < off->size(); ++i) {
      const std::string name = (*off)[i].value_or(std::string());
      if (name == "cri" || name == "io.containerd.grpc.v1.cri" ||
          name == "io.containerd.cri.v1.images") {
        return true;
      }
    }
  }
  return false;
}

// Settings that containerd does not take beside config_path: CRI does not load with both.
std::string conflict_in(const toml::node_view<const toml::node>& registry) {
  if (const auto* mirrors = registry["mirrors"].as_table(); mirrors && !mirrors->empty())
    return "registry.mirrors";
  if (const auto* configs = registry["configs"].as_table()) {
    for (const auto& [host, config] : *configs) {
      const toml::table* table = config.as_table();
      if (table && table->contains("tls"))
        return "registry.configs.\"" + printable(host.str(), 100) + "\".tls";
    }
  }
  return {};
}

// Has config_path name one directory; returns it, or nothing after a refusal.
std::optional<std::filesystem::path> plan_config(Plan& plan, const Machine& machine,
                                                 const std::optional<Version>& version) {
  const auto files = read_config(machine, version);
  if (!files) {
    plan.refusals.push_back({config_file, files.error().detail, {}});
    return std::nullopt;
  }
  if (cri_is_off(*files)) {
    plan.warnings.push_back(
        "CRI is switched off in config.toml (disabled_plugins), so config_path is left alone; ctr "
        "and nerdctl read the files with --hosts-dir /etc/containerd/certs.d");
    return default_directory;
  }
  const Layout layout = layout_of(*files, version);
  const TomlPath table{"plugins", layout.plugin, "registry"};
  std::filesystem::path target = config_file;
  std::string configured;
  std::string conflict;
  std::filesystem::path conflict_file;
  for (const ConfigFile& file : *files) {
    const auto plugin = file.table["plugins"][layout.plugin];
    const auto registry = plugin["registry"];
    // Up to 1.7 an import replaces the plugin's whole section, later ones merge; the last file
    // with something to say about it is the right one for both.
    if (registry["config_path"] || (plugin && (!version || version->major < 2))) target = file.path;
    if (const auto path = registry["config_path"].value<std::string>()) configured = *path;
    if (std::string found = conflict_in(registry); !found.empty()) {
      conflict = std::move(found);
      conflict_file = file.path;
    }
  }
  std::string wanted = configured.empty() ? default_directory : configured;
  const std::string by_hand =
      toml_header(table) + "\n  config_path = " + toml_quoted(default_directory) + "\n";
  if (!conflict.empty()) {
    plan.refusals.push_back(
        {conflict_file,
         "it has " + conflict +
             ", which containerd does not take beside config_path: CRI would not load. Move it to "
             "a hosts.toml below /etc/containerd/certs.d, then run setup again",
         by_hand});
    return std::nullopt;
  }
  if (const std::size_t colon = wanted.find(':'); colon != wanted.npos) {
    const std::string first = wanted.substr(0, colon);
    if (!version || *version >= Version{2, 1, 0}) {
      plan.warnings.push_back("config_path named several directories (" + printable(wanted, 200) +
                              "), which containerd 2.1 and later take for one that does not "
                              "exist; only the first is kept");
      wanted = first;
    } else {
      return first;  // Several are read here; ours is looked up first.
    }
  }
  propose(plan, machine, target, by_hand,
          [&](const std::optional<std::string>& text) -> Result<std::string> {
            const bool fresh = !text || text->find_first_not_of(" \t\r\n") == std::string::npos ||
                               (target == config_file && files->front().path == target &&
                                files->front().table.empty());
            if (!fresh) return set_toml_key(*text, table, "config_path", toml_quoted(wanted));
            std::string before = text.value_or("");
            if (!before.empty() && !before.ends_with('\n')) before += '\n';
            // Without a file this is imported since 2.2; it is to stay so with one.
            const std::string imports = version && *version >= Version{2, 2, 0}
                                            ? "imports = [\"/etc/containerd/conf.d/*.toml\"]\n"
                                            : "";
            return before + "version = " + std::to_string(layout.version) + "\n" + imports + "\n" +
                   toml_header(table) + "\n  config_path = " + toml_quoted(wanted) + "\n";
          });
  return wanted;
}

}  // namespace

void plan_containerd(Plan& plan, const Machine& machine, const Served& service) {
  plan.found = !machine.find("containerd").empty();
  if (!plan.found) {
    plan.refusals.push_back({config_file, "containerd is not installed", {}});
    return;
  }
  const auto version = parse_version(machine.run("containerd", {"--version"}).value_or(""));
  if (version) {
    plan.version = to_string(*version);
  } else {
    plan.warnings.push_back(
        "containerd --version says nothing of a version: written is what all of them take");
  }
  if (version && *version < Version{1, 5, 0}) {
    plan.refusals.push_back(
        {config_file,
         "hosts.toml is read by containerd 1.5 and later; this is " + plan.version,
         {}});
    return;
  }
  const auto directory = plan_config(plan, machine, version);
  if (!directory) return;
  if (!plan.changes.empty()) {
    plan.restarts.push_back({"systemctl restart containerd",
                             "it reads config.toml when it starts; containers go on running"});
  }
  HostsToml kind{.directory = *directory,
                 .reader = plan.version.empty() ? "containerd" : "containerd " + plan.version};
  if (version) {
    kind.dial_timeout = *version >= Version{2, 0, 7};
    kind.referrers = *version >= Version{2, 2, 0};
    // "_default" came with 1.6.17 and 1.7; 2.0.2 was seen not to go on to the registry behind it
    // (k3s-io/k3s#11857), and 2.0.4 was the first that did again.
    kind.use_default = *version >= Version{1, 6, 17} &&
                       !(*version >= Version{2, 0, 0} && *version < Version{2, 0, 4});
  }
  plan_hosts_toml(plan, machine, service, kind);
}

}  // namespace staithe::daemon
