// k3s and RKE2 by registries.yaml (registry-clients.md section 5), kubelet by its credential
// provider, Nomad by its credential helper (section 10).
#include <algorithm>
#include <utility>

#include "cache/escape.h"
#include "daemon/edit_yaml.h"
#include "daemon/setup.h"

namespace staithe::daemon {
namespace {

constexpr const char* kubelet_file = "/etc/kubernetes/kubelet-credential-provider.yaml";
constexpr const char* provider_program = "staithe-credential-provider";
constexpr std::string_view config_flag = "--image-credential-provider-config";
constexpr std::string_view directory_flag = "--image-credential-provider-bin-dir";
constexpr const char* nomad_directory = "/etc/nomad.d";
constexpr const char* nomad_file = "/etc/nomad.d/staithe-docker.hcl";
constexpr const char* nomad_program = "docker-credential-staithe-nomad";

// "*" goes on to the registry behind it where both faults of that are mended: k3s-io/k3s#9728
// (before 1.26.15, 1.27.12, 1.28.8, 1.29.3) and, of containerd 2.0, k3s-io/k3s#11857 (1.31.6,
// 1.32.0 to 1.32.2).
bool star_falls_back(const Version& version) {
  if (version.major != 1) return version.major > 1;
  switch (version.minor) {
    case 26:
      return version.patch >= 15;
    case 27:
      return version.patch >= 12;
    case 28:
      return version.patch >= 8;
    case 29:
      return version.patch >= 3;
    case 31:
      return version.patch != 6;
    case 32:
      return version.patch >= 3;
    default:
      return version.minor >= 30;
  }
}

// kubelet's one star stands for one label, so the regional names of an Azure registry need a
// pattern of their own.
std::vector<std::string> match_images(const Served& service) {
  std::vector<std::string> patterns;
  for (const ServedRegistry& registry : service.registries) {
    if (!registry.has_identity) continue;
    patterns.push_back(registry.name);
    for (const std::string_view suffix : {"azurecr.io", "azurecr.cn", "azurecr.us"})
      if (registry.name == "*." + std::string(suffix))
        patterns.push_back("*.*.geo." + std::string(suffix));
  }
  return patterns;
}

std::string provider_entry(const std::vector<std::string>& patterns, const std::string& api) {
  std::string text = "  - name: " + std::string(provider_program) + "\n    matchImages:\n";
  for (const std::string& pattern : patterns) text += "      - \"" + pattern + "\"\n";
  return text +
         "    # For credentials without a known end; the others say how long they may be kept.\n"
         "    defaultCacheDuration: \"10m\"\n"
         "    apiVersion: credentialprovider.kubelet.k8s.io/" +
         api + "\n";
}

// An assignment in an EnvironmentFile of systemd with `flags` added to its value.
Result<std::string> with_flags(const std::optional<std::string>& text, std::string_view variable,
                               const std::string& flags) {
  std::string result = text.value_or("");
  const std::string name = std::string(variable) + "=";
  std::size_t begin = std::string::npos;
  for (std::size_t at = 0; at < result.size();) {
    const std::size_t end = std::min(result.find('\n', at), result.size());
    const std::string_view line = std::string_view(result).substr(at, end - at);
    if (line.starts_with(name)) {
      if (begin != std::string::npos)
        return fail(Errc::config, std::string(variable) + " is set twice in it");
      begin = at;
    }
    at = end + 1;
  }
  if (begin == std::string::npos) {
    if (!result.empty() && !result.ends_with('\n')) result += '\n';
    return result + name + "\"" + flags + "\"\n";
  }
  const std::size_t end = std::min(result.find('\n', begin), result.size());
  const std::string value = result.substr(begin + name.size(), end - begin - name.size());
  if (value.contains(flags)) return result;
  const bool quoted = value.size() >= 2 && value.front() == '"' && value.back() == '"' &&
                      value.find('"', 1) == value.size() - 1;
  if (value.contains('\\') || (!quoted && (value.contains('"') || value.contains('\''))))
    return fail(Errc::config, "the quotes of " + std::string(variable) + " are not edited");
  if (value.empty()) {
    result.insert(end, "\"" + flags + "\"");
  } else {
    const bool blank = quoted && value.size() == 2;
    result.insert(quoted ? end - 1 : end, (blank ? "" : " ") + flags);
  }
  return result;
}

}  // namespace

void plan_k3s(Plan& plan, const Machine& machine, const Served& service) {
  const bool is_rke2 = plan.client == Client::rke2;
  const std::string program = is_rke2 ? "rke2" : "k3s";
  const std::filesystem::path file = "/etc/rancher/" + program + "/registries.yaml";
  plan.found = !machine.find(program).empty();
  if (!plan.found) {
    plan.refusals.push_back({file, program + " is not installed", {}});
    return;
  }
  const auto version = parse_version(machine.run(program, {"--version"}).value_or(""));
  if (version) plan.version = to_string(*version);
  std::vector<std::string> hosts = service.hosts();
  if (!service.wildcards().empty()) {
    if (version && star_falls_back(*version)) {
      hosts = service.named();
      hosts.push_back("*");
    } else {
      warn_of_wildcards(plan, service,
                        "\"*\" in registries.yaml ends at the mirror in this version of " +
                            program + " (k3s-io/k3s#9728, #11857)");
    }
  }
  if (hosts.empty()) return;
  const auto fresh = add_mirrors("", hosts, service.url());
  propose(plan, machine, file, fresh.value_or(""),
          [&](const std::optional<std::string>& text) -> Result<std::string> {
            return add_mirrors(text.value_or("# Written by staithe setup.\n"), hosts,
                               service.url());
          });
  const bool is_agent =
      file_with(machine, unit_files(machine, is_rke2 ? "rke2-agent" : "k3s-agent"), "ExecStart")
          .has_value() &&
      !file_with(machine, unit_files(machine, is_rke2 ? "rke2-server" : "k3s"), "ExecStart");
  plan.restarts.push_back(
      {"systemctl restart " + (is_rke2 ? std::string(is_agent ? "rke2-agent" : "rke2-server")
                                       : std::string(is_agent ? "k3s-agent" : "k3s")),
       "it makes containerd's files of registries.yaml when it starts; pods go on running"});
}

void plan_kubelet(Plan& plan, const Machine& machine, const Served& service) {
  plan.asks = Asks::kubelet_credential;
  plan.found = !machine.find("kubelet").empty();
  if (!plan.found) {
    plan.refusals.push_back({kubelet_file, "kubelet is not installed", {}});
    return;
  }
  const auto version = parse_version(machine.run("kubelet", {"--version"}).value_or(""));
  if (version) plan.version = to_string(*version);
  if (version && *version < Version{1, 24, 0}) {
    plan.refusals.push_back({kubelet_file,
                             "credential providers are behind a feature gate before kubelet 1.24; "
                             "this is " +
                                 plan.version,
                             {}});
    return;
  }
  const std::vector<std::string> patterns = match_images(service);
  if (patterns.empty()) {
    plan.refusals.push_back({kubelet_file,
                             "no registry of staithed has an identity, so there is no credential "
                             "for kubelet to ask for",
                             {}});
    return;
  }
  const std::filesystem::path program = machine.find(provider_program);
  if (program.empty()) {
    plan.refusals.push_back(
        {kubelet_file, std::string(provider_program) + " is not installed beside staithe", {}});
    return;
  }
  const std::string api = version && *version < Version{1, 26, 0} ? "v1beta1" : "v1";
  const std::string entry = provider_entry(patterns, api);
  const std::string whole =
      "# Written by staithe setup: kubelet gets credentials from staithed for every pod, without\n"
      "# pull secrets.\napiVersion: kubelet.config.k8s.io/" +
      api + "\nkind: CredentialProviderConfig\nproviders:\n" + entry;
  const std::string flags = std::string(config_flag) + "=" + kubelet_file + " " +
                            std::string(directory_flag) + "=" + program.parent_path().native();

  std::vector<std::filesystem::path> places{"/etc/default/kubelet", "/etc/sysconfig/kubelet",
                                            "/var/lib/kubelet/kubeadm-flags.env"};
  for (const auto& unit : unit_files(machine, "kubelet")) places.push_back(unit);
  const auto flagged = file_with(machine, places, config_flag);
  const bool ours =
      flagged && file_with(machine, {*flagged}, std::string(config_flag) + "=" + kubelet_file);
  if (flagged && !ours) {
    plan.refusals.push_back(
        {*flagged,
         "kubelet has a credential provider configuration already, and takes only one. Add this to "
         "its providers, and a link to " +
             program.native() + " in the directory of its programs",
         entry});
    return;
  }
  propose(plan, machine, kubelet_file, whole,
          [&](const std::optional<std::string>& text) -> Result<std::string> {
            if (text && *text != whole && !text->starts_with("# Written by staithe setup"))
              return fail(Errc::config, "somebody else has written it");
            return whole;
          });
  if (!flagged) {
    const auto units = unit_files(machine, "kubelet");
    std::filesystem::path environment;
    for (const char* file : {"/etc/default/kubelet", "/etc/sysconfig/kubelet"})
      if (environment.empty() && file_with(machine, units, file)) environment = file;
    if (environment.empty() || !file_with(machine, units, "KUBELET_EXTRA_ARGS")) {
      plan.refusals.push_back(
          {kubelet_file,
           "kubelet's unit does not read KUBELET_EXTRA_ARGS from /etc/default/kubelet, so only you "
           "know where its flags are; give it these, with the configuration below",
           flags + "\n\n" + whole});
      return;
    }
    propose(plan, machine, environment, "KUBELET_EXTRA_ARGS=\"" + flags + "\"\n",
            [&](const std::optional<std::string>& text) {
              return with_flags(text, "KUBELET_EXTRA_ARGS", flags);
            });
  }
  plan.warnings.push_back(
      "this is for credentials; the way of the images themselves is the container runtime's: "
      "staithe setup containerd, or crio");
  plan.restarts.push_back(
      {"systemctl restart kubelet", "it reads its flags when it starts; pods go on running"});
}

void plan_nomad(Plan& plan, const Machine& machine, const Served&) {
  plan.asks = Asks::nomad_credential;
  plan.found = !machine.find("nomad").empty();
  const std::string whole =
      "# Written by staithe setup: credentials from staithed for every task that names none.\n"
      "plugin \"docker\" {\n  config {\n    auth {\n      helper = \"staithe-nomad\"\n    }\n  }\n"
      "}\n";
  if (!plan.found) {
    plan.refusals.push_back({nomad_file, "nomad is not installed", {}});
    return;
  }
  const auto version = parse_version(machine.run("nomad", {"version"}).value_or(""));
  if (version) plan.version = to_string(*version);
  if (machine.find(nomad_program).empty()) {
    plan.refusals.push_back(
        {nomad_file, std::string(nomad_program) + " is not installed beside staithe", {}});
    return;
  }
  const std::vector<std::string> files = machine.list(nomad_directory);
  std::vector<std::filesystem::path> others;
  for (const std::string& name : files) {
    const std::filesystem::path path = std::filesystem::path(nomad_directory) / name;
    if ((name.ends_with(".hcl") || name.ends_with(".json")) && path != nomad_file)
      others.push_back(path);
  }
  if (files.empty()) {
    plan.refusals.push_back({nomad_file,
                             "there is no configuration in /etc/nomad.d, so only you know where "
                             "this Nomad reads it",
                             whole});
    return;
  }
  // Of two files with a config of one plugin, Nomad takes the later one's as a whole.
  for (const auto& path : others) {
    const auto text = machine.read(path);
    if (text && *text && (*text)->contains("plugin") &&
        ((*text)->contains("\"docker\"") || (*text)->contains("plugin docker"))) {
      plan.refusals.push_back({path,
                               "it may configure the docker plugin already, and Nomad would take "
                               "only one of both; add the auth block there",
                               whole});
      return;
    }
  }
  propose(plan, machine, nomad_file, whole,
          [&](const std::optional<std::string>& text) -> Result<std::string> {
            if (text && *text != whole) return fail(Errc::config, "somebody has changed it");
            return whole;
          });
  plan.warnings.push_back(
      "this is for credentials; the way of the images themselves is dockerd's or podman's: staithe "
      "setup docker, or podman");
  plan.restarts.push_back(
      {"systemctl restart nomad", "it reads plugin settings when it starts; tasks go on running"});
}

}  // namespace staithe::daemon
