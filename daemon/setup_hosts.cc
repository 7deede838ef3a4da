// hosts.toml, which containerd's library reads for containerd, dockerd and others.
#include <toml++/toml.h>

#include <algorithm>
#include <utility>

#include "daemon/edit_toml.h"
#include "daemon/setup.h"

namespace staithe::daemon {
namespace {

// Behind the mirror: what the client would ask without us.
std::string server_of(std::string_view host) {
  return "https://" + std::string(host == "docker.io" ? "registry-1.docker.io" : host);
}

std::string capabilities(const HostsToml& kind) {
  return kind.referrers ? R"(["pull", "resolve", "referrers"])" : R"(["pull", "resolve"])";
}

// The lines of our [host."http://..."]. Neither "push", which the daemon does not take, nor
// skip_verify or ca, which would make containerd try HTTPS first.
std::string host_body(const HostsToml& kind) {
  std::string body = "capabilities = " + capabilities(kind) + "\n";
  if (kind.dial_timeout) body += "dial_timeout = \"500ms\"\n";
  return body;
}

// `certificates`: root keys for the registry itself, as lines.
std::string new_file(const HostsToml& kind, const std::string& name, const Served& service,
                     const std::string& certificates) {
  std::string text = "# Written by staithe setup for " + kind.reader +
                     "; read at every pull. If staithed does not answer, the\n"
                     "# registry itself is asked.\n";
  if (name != "_default") text += "server = " + toml_quoted(server_of(name)) + "\n";
  text += certificates;
  text += "\n" + toml_header({"host", service.url()}) + "\n";
  const std::string body = host_body(kind);
  for (std::string_view rest = body; !rest.empty();) {
    const std::size_t end = rest.find('\n') + 1;
    text += "  " + std::string(rest.substr(0, end));
    rest.remove_prefix(end);
  }
  return text;
}

Result<std::string> edited(const std::string& text, const HostsToml& kind, const Served& service) {
  toml::table table;
  try {
    table = toml::parse(text);
  } catch (const toml::parse_error& error) {
    return fail(Errc::config, "line " + std::to_string(error.source().begin.line) +
                                  " is not TOML, so containerd ignores the file");
  }
  const TomlPath own{"host", service.url()};
  if (!table["host"][service.url()])
    return insert_first_table(text, {"host"}, service.url(), host_body(kind));
  auto result = set_toml_key(text, own, "capabilities", capabilities(kind));
  if (result && kind.dial_timeout) result = set_toml_key(*result, own, "dial_timeout", "\"500ms\"");
  return result;
}

// What containerd's library reads from a directory without hosts.toml: authorities, and pairs for
// client authentication. Once there is a hosts.toml it looks only there.
struct CertificateFiles {
  std::vector<std::string> authorities;
  bool pairs = false;
};
CertificateFiles certificate_files(const Machine& machine, const std::filesystem::path& directory) {
  CertificateFiles files;
  for (const std::string& name : machine.list(directory)) {
    if (name.ends_with(".crt")) files.authorities.push_back((directory / name).native());
    if (name.ends_with(".cert") || name.ends_with(".key")) files.pairs = true;
  }
  return files;
}

}  // namespace

void plan_hosts_toml(Plan& plan, const Machine& machine, const Served& service,
                     const HostsToml& kind) {
  const std::vector<std::string> present = machine.list(kind.directory);
  const auto exists = [&](const std::string& name) {
    return std::ranges::find(present, name) != present.end();
  };
  const bool wildcards = !service.wildcards().empty();
  const bool use_default = wildcards && kind.use_default;
  std::vector<std::string> names = use_default ? service.named() : service.hosts();
  if (use_default) {
    names.push_back("_default");
    // A directory of its own hides _default from a registry.
    for (const std::string& name : present) {
      if (serves(service.registries, name) && std::ranges::find(names, name) == names.end())
        names.push_back(name);
    }
  }
  for (const std::string& name : names) {
    std::string directory = name;
    // The library looks for "host_5000_" before "host:5000".
    if (const std::size_t colon = name.rfind(':'); colon != name.npos) {
      const std::string other = name.substr(0, colon) + "_" + name.substr(colon + 1) + "_";
      if (exists(other)) directory = other;
    }
    const std::filesystem::path path = kind.directory / directory / "hosts.toml";
    const CertificateFiles files = certificate_files(machine, kind.directory / directory);
    std::string certificates;
    for (const std::string& file : files.authorities)
      certificates += (certificates.empty() ? "ca = [" : ", ") + toml_quoted(file);
    if (!certificates.empty()) certificates += "]\n";
    const std::string whole = new_file(kind, name, service, certificates);
    propose(plan, machine, path, whole,
            [&](const std::optional<std::string>& text) -> Result<std::string> {
              if (text) return edited(*text, kind, service);
              if (files.pairs) {
                return fail(Errc::config,
                            "client certificates stand beside it, which a hosts.toml would switch "
                            "off unless it names them (client = ...)");
              }
              return whole;
            });
    if (const auto text = machine.read(path); text && *text) {
      const toml::table table = [&]() -> toml::table {
        try {
          return toml::parse(**text);
        } catch (const toml::parse_error&) {
          return toml::table{};
        }
      }();
      const auto own = table["host"][service.url()];
      if (own["skip_verify"] || own["ca"]) {
        plan.warnings.push_back(path.native() +
                                ": skip_verify or ca below the plain HTTP host makes the client "
                                "try HTTPS first; take it out");
      }
      if (table["server"].value<std::string>() == service.url()) {
        plan.warnings.push_back(path.native() +
                                ": its server is staithed itself, so there is no fallback to the "
                                "registry; server = \"" +
                                server_of(name) + "\" gives it back");
      }
    }
  }
  if (wildcards && !kind.use_default)
    warn_of_wildcards(plan, service, kind.reader + " is set up by name");
}

}  // namespace staithe::daemon
