#include "daemon/doctor_clients.h"

#include <toml++/toml.h>

#include <algorithm>
#include <boost/json/parse.hpp>
#include <cerrno>
#include <fstream>
#include <optional>
#include <sstream>
#include <utility>

#include "cache/error.h"
#include "cache/escape.h"
#include "proxy/listen_address.h"
#include "proxy/url.h"

namespace staithe::daemon {

namespace json = boost::json;

namespace {

constexpr std::size_t most_file_bytes = 1 << 20;
constexpr std::size_t most_directories = 200;

// A file that a client reads. Absent and empty are different, unreadable is neither.
struct Read {
  bool there = false;
  std::string text = {};
  std::string why_not = {};  // it is there, and cannot be read
};

Read read(const std::filesystem::path& file) {
  std::error_code error;
  const auto status = std::filesystem::status(file, error);
  if (error && error != std::errc::permission_denied) return {};
  if (!error && !std::filesystem::exists(status)) return {};
  Read result{.there = true};
  errno = 0;
  std::ifstream in(file, std::ios::binary);
  if (!in) {
    result.why_not = describe_errno(errno);
    return result;
  }
  result.text.resize(most_file_bytes);
  in.read(result.text.data(), static_cast<std::streamsize>(most_file_bytes));
  result.text.resize(static_cast<std::size_t>(in.gcount()));
  return result;
}

bool is_there(const std::filesystem::path& path) {
  std::error_code ignored;
  return std::filesystem::exists(path, ignored);
}

bool has_program(const std::filesystem::path& root, std::string_view name) {
  for (const char* directory : {"usr/bin", "usr/sbin", "usr/local/bin", "usr/local/sbin"})
    if (is_there(root / directory / name)) return true;
  return false;
}

// What a reading of one client has come to: the worst of it, and what was good.
class Finding {
 public:
  explicit Finding(std::string client) : client_(std::move(client)) {}

  void good(const std::string& registry) { good_.push_back(registry); }
  void looked_at(const std::filesystem::path& file) { files_.push_back(file.native()); }
  void note(StepState state, std::string what, std::string mend) {
    if (trouble_ && rank(state) <= rank(trouble_->state)) return;
    trouble_ = Trouble{state, std::move(what), std::move(mend)};
  }
  bool has_trouble() const { return trouble_.has_value(); }
  bool is_good_for(const std::string& registry) const {
    return std::ranges::find(good_, registry) != good_.end();
  }
  bool any_good() const { return !good_.empty(); }

  DoctorStep step(const DoctorListeners& listeners) const {
    DoctorStep step{.step = "client", .subject = client_, .finding = {}};
    for (const std::string& file : files_)
      step.tried += (step.tried.empty() ? "read " : ", ") + printable(file, 150);
    std::string names;
    for (const std::string& name : good_)
      names += (names.empty() ? "" : ", ") + printable(name, 80);
    const std::string leads =
        names.empty() ? std::string() : names + " come from staithed at " + listeners.shown();
    if (!trouble_) {
      step.finding = leads;
      return step;
    }
    step.state = trouble_->state;
    step.finding = trouble_->what + (leads.empty() ? "" : "; " + leads);
    step.mend = trouble_->mend;
    return step;
  }

 private:
  struct Trouble {
    StepState state;
    std::string what;
    std::string mend;
  };
  static int rank(StepState state) {
    return state == StepState::failed ? 3 : state == StepState::warning ? 2 : 1;
  }

  std::string client_;
  std::vector<std::string> files_;
  std::vector<std::string> good_;
  std::optional<Trouble> trouble_;
};

std::string mend_of(std::string_view client) {
  return "staithe setup " + std::string(client) + " --apply";
}

std::string shown_path(const std::filesystem::path& file) { return printable(file.native(), 200); }

bool is_here(Leads leads) { return leads == Leads::here || leads == Leads::here_by_tls; }

// As a finding about `address`, which `file` names, where it is one.
Leads judge(Finding& finding, const DoctorListeners& listeners, std::string_view address,
            const std::filesystem::path& file, std::string_view client) {
  const std::string named = shown_path(file) + " leads to " + printable(address, 150);
  const Leads leads = listeners.judge(address);
  switch (leads) {
    case Leads::no_tls:
      finding.note(StepState::failed, named + ", and staithed speaks plain HTTP there",
                   "write http:// in its place, or " + mend_of(client));
      break;
    case Leads::no_plain:
      finding.note(StepState::failed, named + ", and staithed speaks TLS there",
                   "write https:// in its place, or " + mend_of(client));
      break;
    case Leads::nowhere:
      finding.note(StepState::failed, named + ", where staithed does not listen",
                   "write " + listeners.shown() + " in its place, or " + mend_of(client));
      break;
    case Leads::here:
    case Leads::here_by_tls:
    case Leads::elsewhere:
      break;
  }
  return leads;
}

// A hosts.toml, as containerd and dockerd with its image store read it.
bool hosts_lead_here(Finding& finding, const DoctorListeners& listeners,
                     const std::filesystem::path& file, std::string_view client) {
  const Read hosts = read(file);
  if (!hosts.there) return false;
  if (!hosts.why_not.empty()) {
    finding.note(StepState::warning, shown_path(file) + " cannot be read: " + hosts.why_not,
                 "run this command as root");
    return false;
  }
  toml::table parsed;
  try {
    parsed = toml::parse(hosts.text);
  } catch (const toml::parse_error& error) {
    finding.note(StepState::failed,
                 shown_path(file) + ":" + std::to_string(error.source().begin.line) + ": " +
                     printable(error.description(), 150) +
                     "; the client fails every pull from this registry",
                 "correct the file, or " + mend_of(client));
    return false;
  }
  const toml::table* all = parsed["host"].as_table();
  if (!all) return false;
  bool here = false;
  for (const auto& [address, host] : *all) {
    const Leads leads = judge(finding, listeners, address.str(), file, client);
    if (!is_here(leads)) continue;
    here = true;
    const toml::table* settings = host.as_table();
    if (!settings) continue;
    if (leads == Leads::here && (settings->contains("skip_verify") || settings->contains("ca"))) {
      finding.note(StepState::failed,
                   shown_path(file) +
                       " gives staithed's plain HTTP host skip_verify or ca, which make "
                       "the client try HTTPS there first",
                   "remove that key, or " + mend_of(client));
      here = false;
    }
    if (const toml::array* capabilities = (*settings)["capabilities"].as_array()) {
      // Without "resolve" tags are asked from the registry itself, which an operator may want.
      const bool pull = std::ranges::any_of(
          *capabilities, [](const toml::node& one) { return one.value<std::string>() == "pull"; });
      if (!pull) {
        finding.note(StepState::failed,
                     shown_path(file) + " does not give staithed the capability to pull",
                     "write capabilities = [\"pull\", \"resolve\"], or " + mend_of(client));
        here = false;
      }
    }
  }
  return here;
}

// "host_5000_": how containerd names the directory of "host:5000" where a colon cannot stand.
std::string with_port_escaped(const std::string& registry) {
  const std::size_t colon = registry.find(':');
  if (colon == std::string::npos) return registry;
  return registry.substr(0, colon) + "_" + registry.substr(colon + 1) + "_";
}

// The directories of hosts.toml files below `certs`.
void judge_certs(Finding& finding, const DoctorListeners& listeners,
                 const std::filesystem::path& certs, const std::vector<std::string>& registries,
                 std::string_view client) {
  finding.looked_at(certs);
  std::error_code error;
  std::vector<std::string> names;
  for (std::filesystem::directory_iterator it(certs, error), end; !error && it != end;
       it.increment(error)) {
    if (names.size() == most_directories) break;
    names.push_back(it->path().filename().string());
  }
  std::ranges::sort(names);
  bool everything = false;
  for (const std::string& name : names) {
    if (!hosts_lead_here(finding, listeners, certs / name / "hosts.toml", client)) continue;
    finding.good(name == "_default" ? "all registries without a directory of their own"
                 : is_here(listeners.judge(name)) ? "images named " + name + "/REGISTRY/IMAGE"
                                                  : name);
    everything = everything || name == "_default";
  }
  for (const std::string& registry : registries) {
    const std::string escaped = with_port_escaped(registry);
    const bool own = std::ranges::find(names, registry) != names.end() ||
                     std::ranges::find(names, escaped) != names.end();
    if (finding.is_good_for(registry) || finding.is_good_for(escaped) || (everything && !own))
      continue;
    finding.note(StepState::warning,
                 registry + " is not pulled through staithed: " +
                     shown_path(certs / registry / "hosts.toml") +
                     (own ? " does not lead to it" : " is not there"),
                 mend_of(client));
  }
  if (!finding.any_good())
    finding.note(StepState::warning, "nothing in " + shown_path(certs) + " leads to staithed",
                 mend_of(client));
}

// "/etc/containerd/certs.d", below the root.
std::filesystem::path below(const std::filesystem::path& root, const std::string& path) {
  return root / std::filesystem::path(path).relative_path();
}

// The first that is set: where containerd 1 and 2 look for the same thing.
std::optional<std::string> config_path(const toml::table& config) {
  for (const char* plugin : {"io.containerd.cri.v1.images", "io.containerd.grpc.v1.cri"}) {
    const auto path = config["plugins"][plugin]["registry"]["config_path"].value<std::string>();
    if (path) return path;
  }
  return std::nullopt;
}

bool is_off(const toml::table& config) {
  const toml::array* disabled = config["disabled_plugins"].as_array();
  if (!disabled) return false;
  return std::ranges::any_of(*disabled, [](const toml::node& one) {
    const std::string name = one.value<std::string>().value_or("");
    return name == "cri" || name == "io.containerd.grpc.v1.cri" ||
           name == "io.containerd.cri.v1.images";
  });
}

std::optional<DoctorStep> containerd(const std::filesystem::path& root,
                                     const DoctorListeners& listeners,
                                     const std::vector<std::string>& registries) {
  const std::filesystem::path file = root / "etc/containerd/config.toml";
  const std::filesystem::path usual = root / "etc/containerd/certs.d";
  const Read config = read(file);
  if (!config.there && !is_there(usual)) {
    if (!has_program(root, "containerd")) return std::nullopt;
    return DoctorStep{.step = "client",
                      .subject = "containerd",
                      .state = StepState::skipped,
                      .finding =
                          "it has no configuration of its own, as where only dockerd uses "
                          "it; if kubelet or nerdctl does: " +
                          mend_of("containerd")};
  }
  Finding finding("containerd");
  std::filesystem::path certs = usual;
  if (config.there) {
    finding.looked_at(file);
    if (!config.why_not.empty()) {
      finding.note(StepState::warning, shown_path(file) + " cannot be read: " + config.why_not,
                   "run this command as root");
      return finding.step(listeners);
    }
    toml::table parsed;
    try {
      parsed = toml::parse(config.text);
    } catch (const toml::parse_error& error) {
      finding.note(StepState::failed,
                   shown_path(file) + ":" + std::to_string(error.source().begin.line) + ": " +
                       printable(error.description(), 150) + "; containerd does not start",
                   "correct the file");
      return finding.step(listeners);
    }
    const auto path = config_path(parsed);
    if (is_off(parsed)) {
      finding.note(
          StepState::skipped, "its CRI part is switched off in " + shown_path(file),
          "for kubelet, take \"cri\" out of disabled_plugins, then " + mend_of("containerd"));
      return finding.step(listeners);
    }
    if (!path || path->empty()) {
      finding.note(StepState::failed,
                   shown_path(file) +
                       " sets no registry.config_path, so kubelet's pulls read no "
                       "hosts.toml",
                   mend_of("containerd") + ", and restart containerd");
      return finding.step(listeners);
    }
    if (path->contains(':')) {
      finding.note(StepState::failed,
                   "registry.config_path in " + shown_path(file) + " is " + printable(*path, 200) +
                       ": containerd from 2.1 on takes two directories for one, which is not there",
                   "leave one directory, then restart containerd");
      return finding.step(listeners);
    }
    certs = below(root, *path);
  }
  judge_certs(finding, listeners, certs, registries, "containerd");
  return finding.step(listeners);
}

// daemon.json, as far as it matters here.
struct DockerConfig {
  std::vector<std::string> mirrors;
  bool containerd_store = false;
};

DockerConfig docker_config(const json::object& root) {
  DockerConfig config;
  if (const json::value* mirrors = root.if_contains("registry-mirrors");
      mirrors && mirrors->is_array()) {
    for (const json::value& mirror : mirrors->get_array())
      if (mirror.is_string()) config.mirrors.emplace_back(mirror.get_string());
  }
  const json::value* features = root.if_contains("features");
  const json::value* store = features && features->is_object()
                                 ? features->get_object().if_contains("containerd-snapshotter")
                                 : nullptr;
  config.containerd_store = store && store->is_bool() && store->get_bool();
  return config;
}

std::optional<DoctorStep> docker(const std::filesystem::path& root,
                                 const DoctorListeners& listeners,
                                 const std::vector<std::string>& registries) {
  const std::filesystem::path file = root / "etc/docker/daemon.json";
  const Read found = read(file);
  if (!found.there && !has_program(root, "dockerd")) return std::nullopt;
  Finding finding("docker");
  finding.looked_at(file);
  if (!found.why_not.empty()) {
    finding.note(StepState::warning, shown_path(file) + " cannot be read: " + found.why_not,
                 "run this command as root");
    return finding.step(listeners);
  }
  DockerConfig config;
  if (found.there && !found.text.empty()) {
    boost::system::error_code error;
    const json::value parsed = json::parse(found.text, error);
    if (error || !parsed.is_object()) {
      finding.note(StepState::failed, shown_path(file) + " is not JSON: dockerd does not start",
                   "correct the file: python3 -m json.tool " + shown_path(file));
      return finding.step(listeners);
    }
    config = docker_config(parsed.get_object());
  }
  bool by_mirror = false;
  for (const std::string& mirror : config.mirrors)
    by_mirror = is_here(judge(finding, listeners, mirror, file, "docker")) || by_mirror;
  if (config.containerd_store) {
    judge_certs(finding, listeners, root / "etc/docker/certs.d", registries, "docker");
    if (by_mirror)
      finding.note(StepState::warning,
                   "registry-mirrors in " + shown_path(file) +
                       " names staithed, and with the containerd image store dockerd then does "
                       "not check the certificate of Docker Hub itself",
                   "take it out of registry-mirrors, then " + mend_of("docker"));
    return finding.step(listeners);
  }
  if (by_mirror) {
    finding.good("Docker Hub's images");
    if (std::ranges::any_of(registries, [](const auto& name) { return name != "docker.io"; }))
      finding.note(StepState::ok,
                   "registry-mirrors is for Docker Hub alone: images of other registries are "
                   "pulled as " +
                       listeners.shown() + "/REGISTRY/IMAGE, or with the containerd image store",
                   "");
    return finding.step(listeners);
  }
  const std::filesystem::path certs = root / "etc/docker/certs.d";
  if (is_there(certs)) judge_certs(finding, listeners, certs, registries, "docker");
  if (finding.any_good()) {
    finding.note(StepState::ok,
                 "those files are read with the containerd image store alone, which dockerd 29 "
                 "begins with; docker info says which store it is",
                 "");
  } else {
    finding.note(StepState::warning, "dockerd does not ask staithed", mend_of("docker"));
  }
  return finding.step(listeners);
}

// One registries.conf of containers/image.
void judge_registries_conf(Finding& finding, const DoctorListeners& listeners,
                           const std::filesystem::path& file) {
  const Read found = read(file);
  if (!found.there) return;
  finding.looked_at(file);
  if (!found.why_not.empty()) {
    finding.note(StepState::warning, shown_path(file) + " cannot be read: " + found.why_not,
                 "run this command as root");
    return;
  }
  toml::table parsed;
  try {
    parsed = toml::parse(found.text);
  } catch (const toml::parse_error& error) {
    finding.note(StepState::failed,
                 shown_path(file) + ":" + std::to_string(error.source().begin.line) + ": " +
                     printable(error.description(), 150) + "; every pull fails",
                 "correct the file, or " + mend_of("podman"));
    return;
  }
  const toml::array* registries = parsed["registry"].as_array();
  if (!registries) return;
  for (const toml::node& node : *registries) {
    const toml::table* registry = node.as_table();
    if (!registry) continue;
    std::string name = (*registry)["prefix"].value_or<std::string>("");
    if (name.empty()) name = (*registry)["location"].value_or<std::string>("");
    const toml::array* mirrors = (*registry)["mirror"].as_array();
    if (!mirrors) continue;
    for (const toml::node& one : *mirrors) {
      const toml::table* mirror = one.as_table();
      if (!mirror) continue;
      const std::string location = (*mirror)["location"].value_or<std::string>("");
      const Leads leads = judge(finding, listeners, location, file, "podman");
      if (!is_here(leads)) continue;
      if (leads == Leads::here && !(*mirror)["insecure"].value_or(false)) {
        finding.note(StepState::failed,
                     shown_path(file) + ": the mirror " + printable(location, 150) +
                         " is asked by HTTPS, which staithed does not speak there",
                     "write insecure = true below it, or " + mend_of("podman"));
        continue;
      }
      const std::size_t slash = location.find('/');
      const std::string behind = slash == std::string::npos ? "" : location.substr(slash + 1);
      if (behind.substr(0, behind.find('/')) != name.substr(0, name.find('/'))) {
        finding.note(StepState::failed,
                     shown_path(file) + ": the mirror of " + printable(name, 100) + " is " +
                         printable(location, 150) + ", which is not that registry",
                     "write " + listeners.shown() + "/" + printable(name, 100) +
                         " as its location, or " + mend_of("podman"));
        continue;
      }
      finding.good(name);
    }
  }
}

std::optional<DoctorStep> podman(const std::filesystem::path& root,
                                 const DoctorListeners& listeners,
                                 const std::vector<std::string>& registries) {
  bool installed = false;
  for (const char* name : {"podman", "skopeo", "buildah", "crio"})
    installed = installed || has_program(root, name);
  const std::filesystem::path directory = root / "etc/containers";
  if (!installed) return std::nullopt;
  Finding finding("podman");
  judge_registries_conf(finding, listeners, directory / "registries.conf");
  std::vector<std::filesystem::path> files;
  std::error_code error;
  for (std::filesystem::directory_iterator it(directory / "registries.conf.d", error), end;
       !error && it != end; it.increment(error)) {
    if (it->path().extension() == ".conf" && files.size() < most_directories)
      files.push_back(it->path());
  }
  std::ranges::sort(files);
  for (const auto& file : files) judge_registries_conf(finding, listeners, file);
  for (const std::string& registry : registries) {
    if (!finding.is_good_for(registry) && finding.any_good())
      finding.note(StepState::warning, registry + " is not pulled through staithed",
                   mend_of("podman"));
  }
  if (!finding.any_good())
    finding.note(StepState::warning,
                 "podman, skopeo, buildah and CRI-O do not ask staithed: no mirror in " +
                     shown_path(directory) + " leads to it",
                 mend_of("podman"));
  return finding.step(listeners);
}

bool is_this_machine(std::string_view host) {
  return host == "localhost" || host == "[::1]" || host.starts_with("127.");
}

}  // namespace

DoctorListeners::DoctorListeners(const std::vector<std::string>& addresses) {
  for (const std::string& text : addresses) {
    const auto address = proxy::ListenAddress::parse(text);
    if (!address || !address->unix_path.empty()) continue;
    const bool v6 = address->ip.contains(':');
    listeners_.push_back({.host = v6 ? "[" + address->ip + "]" : address->ip,
                          .port = std::to_string(address->port),
                          .tls = address->tls});
  }
}

std::string DoctorListeners::shown() const {
  if (listeners_.empty()) return {};
  const auto plain = std::ranges::find(listeners_, false, &Listener::tls);
  const Listener& one = plain == listeners_.end() ? listeners_.front() : *plain;
  return one.host + ":" + one.port;
}

Leads DoctorListeners::judge(std::string_view address) const {
  const bool has_scheme = address.contains("://");
  const auto url =
      proxy::Url::parse(has_scheme ? std::string(address) : "http://" + std::string(address));
  if (!url) return Leads::elsewhere;
  const proxy::Origin& origin = url->origin();
  const bool tls = origin.scheme == "https";
  for (const Listener& listener : listeners_) {
    const bool same_host = origin.host == listener.host ||
                           (origin.host == "localhost" && is_this_machine(listener.host));
    if (!same_host || std::to_string(origin.port) != listener.port) continue;
    if (has_scheme && tls != listener.tls) return tls ? Leads::no_tls : Leads::no_plain;
    return listener.tls ? Leads::here_by_tls : Leads::here;
  }
  return is_this_machine(origin.host) ? Leads::nowhere : Leads::elsewhere;
}

std::vector<DoctorStep> examine_clients(const std::filesystem::path& root,
                                        const DoctorListeners& listeners,
                                        const std::vector<std::string>& registries) {
  std::vector<DoctorStep> steps;
  if (listeners.empty()) {
    steps.push_back({.step = "client",
                     .state = StepState::skipped,
                     .finding = "staithed listens on no TCP port, and clients take nothing else"});
    return steps;
  }
  for (const auto examine : {containerd, docker, podman})
    if (auto step = examine(root, listeners, registries)) steps.push_back(*std::move(step));
  if (steps.empty())
    steps.push_back({.step = "client",
                     .state = StepState::skipped,
                     .finding = "neither containerd nor dockerd nor podman is installed"});
  return steps;
}

}  // namespace staithe::daemon
