// TLS on a loopback address, for clients that speak nothing else to it: a certificate of this
// machine's own, what staithed needs to use it, and what clients need to trust it.
#include <algorithm>
#include <array>
#include <utility>

#include "daemon/edit_toml.h"
#include "daemon/local_ca.h"
#include "daemon/setup.h"

namespace staithe::daemon {
namespace {

constexpr const char* server_file = "/etc/staithe/tls/localhost.pem";
constexpr const char* authority_file = "/etc/staithe/tls/ca.crt";
constexpr const char* own_config = "/etc/staithe/staithe.toml";
constexpr const char* drop_in = "/etc/systemd/system/staithed.service.d/50-tls.conf";
constexpr std::string_view credential =
    "# Written by staithe setup --tls: the key is root's, and systemd hands it to the daemon.\n"
    "[Service]\n"
    "LoadCredential=tls.pem:/etc/staithe/tls/localhost.pem\n";
constexpr unsigned private_mode = 0600;

// Where a client looks for the authorities of one registry, and by which program it is told.
struct Trust {
  const char* directory;
  std::array<const char*, 4> programs;
};
constexpr std::array<Trust, 3> trusts{{
    {"/etc/docker/certs.d", {"dockerd"}},
    {"/etc/containerd/certs.d", {"containerd"}},
    {"/etc/containers/certs.d", {"podman", "skopeo", "buildah", "crio"}},
}};
constexpr std::array<std::string_view, 2> hosts{"localhost", "127.0.0.1"};
constexpr std::string_view containerd_certs = "/etc/containerd/certs.d";

// Without it containerd takes a loopback host for one that speaks plain HTTP, certificate or not.
std::string containerd_hosts(const std::string& address, const std::filesystem::path& authority) {
  const std::string url = toml_quoted("https://" + address);
  return "server = " + url + "\n\n[host." + url +
         "]\n  capabilities = [\"pull\", \"resolve\"]\n  ca = " + toml_quoted(authority.string()) +
         "\n";
}

Edit as(std::string text) {
  return [text = std::move(text)](const std::optional<std::string>&) -> Result<std::string> {
    return text;
  };
}

bool has_unit(const Machine& machine) {
  return std::ranges::any_of(
      std::array{"/usr/lib/systemd/system/staithed.service", "/lib/systemd/system/staithed.service",
                 "/etc/systemd/system/staithed.service"},
      [&](const char* path) {
        const auto text = machine.read(path);
        return text && text->has_value();
      });
}

// The certificate and its authority: those that are there while they are good, else new ones.
void plan_certificate(Plan& plan, const Machine& machine, WallTime now, std::string& authority) {
  const auto server = machine.read(server_file);
  const auto known = machine.read(authority_file);
  if (server && known && *server && *known && is_good_local_certificate(**known, **server, now)) {
    authority = **known;
    plan.settled.emplace_back(server_file);
    plan.settled.emplace_back(authority_file);
    return;
  }
  LocalCertificate made = make_local_certificate(now);
  propose(plan, machine, server_file, {}, as(std::move(made.server)));
  propose(plan, machine, authority_file, {}, as(made.authority));
  for (FileChange& change : plan.changes)
    if (change.path == server_file) change.mode = private_mode;
  authority = std::move(made.authority);
}

}  // namespace

void plan_tls(Plan& plan, const Machine& machine, WallTime now) {
  plan.found = true;
  std::string authority;
  plan_certificate(plan, machine, now, authority);
  const bool by_unit = has_unit(machine);
  const std::string listen = "[\"127.0.0.1:" + std::string(tls_port) + "\"]";
  const std::string file =
      by_unit ? "\"${CREDENTIALS_DIRECTORY}/tls.pem\"" : toml_quoted(server_file);
  propose(plan, machine, own_config, "[listen]\ntls = " + listen + "\ntls_file = " + file + "\n",
          [&](const std::optional<std::string>& text) -> Result<std::string> {
            if (!text || text->find_first_not_of(" \t\r\n") == text->npos)
              return "[listen]\ntls = " + listen + "\ntls_file = " + file + "\n";
            Result<std::string> edited = set_toml_key(*text, {"listen"}, "tls", listen);
            if (edited) edited = set_toml_key(*edited, {"listen"}, "tls_file", file);
            return edited;
          });
  if (by_unit)
    propose(plan, machine, drop_in, std::string(credential), as(std::string(credential)));
  for (const Trust& trust : trusts) {
    const bool installed = std::ranges::any_of(trust.programs, [&](const char* program) {
      return program && !machine.find(program).empty();
    });
    if (!installed) continue;
    for (const std::string_view host : hosts) {
      const std::string address = std::string(host) + ":" + std::string(tls_port);
      const auto directory = std::filesystem::path(trust.directory) / address;
      propose(plan, machine, directory / "ca.crt", authority, as(authority));
      if (trust.directory != containerd_certs) continue;
      const std::string text = containerd_hosts(address, directory / "ca.crt");
      propose(plan, machine, directory / "hosts.toml", text, as(text));
    }
  }
  plan.restarts.push_back(
      {by_unit ? "systemctl daemon-reload && systemctl restart staithed" : "restart staithed",
       "it listens on the new address, and is handed the key, when it starts"});
  plan.undo_restarts = plan.restarts;
}

}  // namespace staithe::daemon
