// Who may be sent what: the rules that keep a credential with its owner. Pure.
//
// Hosts are compared by whole labels from the right, never by substring (an unanchored match has
// leaked tokens: GHSA-w73w-5m7g-f7qc), and a challenge names no place that a credential goes to.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "cache/error.h"
#include "proxy/dial_policy.h"
#include "proxy/url.h"

namespace staithe::proxy::auth {

// The login server of an Azure Container Registry (azure-protocol.md section 2).
struct AcrHost {
  std::string name;    // first label: "contoso", or with a domain name label "contoso-a1b2c3"
  std::string region;  // of `name.<region>.geo.<suffix>`, else empty
  std::string suffix;  // "azurecr.io"
};

// What `host` is by the configured suffixes; nullopt for anything but a login server: other
// domains, look-alikes, the suffix itself, data endpoints (`name.<region>.data.<suffix>`).
std::optional<AcrHost> parse_acr_host(std::string_view host,
                                      const std::vector<std::string>& suffixes);

// May an Azure identity be used at this origin? It must be an ACR login server over https; plain
// http only for a loopback name, where no network is between. The error is for the operator.
Result<void> check_acr_origin(const Origin& registry, const std::vector<std::string>& suffixes);

// The realm of a challenge by a registry that is used with an Azure identity: on the registry's own
// origin, or, https on its own port both, on another login server of the same registry (global
// and regional). Even then the realm is only a sign that the answer is genuine: tokens are posted
// to the registry's own origin.
Result<Url> check_acr_realm(const Origin& registry, std::string_view realm,
                            const std::vector<std::string>& suffixes);

// How private a host is; a name that only some network knows is internal.
enum class Reach {
  anywhere,  // a name in the public DNS, as far as its form tells
  internal,  // one label, or below local, internal, home.arpa, lan, intranet, corp, private
  loopback,  // localhost, anything below it, 127.0.0.0/8, ::1
  address,   // any other IP literal
};
Reach reach_of(std::string_view host);

// The realm of a challenge by a registry that is used anonymously, where the request carries no
// credential but must not become a probe of what only we can reach:
//   - https; or http if the registry itself is plain http and the realm is on its origin;
//   - an IP address only if it is the registry's own host;
//   - a host no more private than the registry's: a loopback name only for a registry on a loopback
//     name, an internal name only for a registry on an internal name, a loopback name or an
//     address.
Result<Url> check_anonymous_realm(const Origin& registry, std::string_view realm);

// The realm of a challenge by a registry that is used with a password or an identity token, which
// the token server is sent: https (or the registry's own origin, where check_password_origin() let
// it be plain), and on
//   - the registry's own origin, or
//   - the token server that is known to belong to the registry (Docker Hub's, GitLab's), or
//   - a host of `token_hosts`, on port 443, where the operator says so.
// Everything else is a way to steal the password (CVE-2026-33540).
Result<Url> check_password_realm(const Origin& registry, std::string_view realm,
                                 const std::vector<std::string>& token_hosts);

// For the dial, by whom the host of a realm that has passed one of these rules is named: by the
// configuration if it is the registry's own or one of `token_hosts`, or if neither it nor the
// registry's is a name of the public DNS; else by the registry, which must not make us dial what
// only we can reach.
HostNamedBy realm_named_by(const Origin& registry, const Origin& realm,
                           const std::vector<std::string>& token_hosts);

// May a password be used at this origin? Over https; plain http only for a loopback name.
Result<void> check_password_origin(const Origin& registry);

}  // namespace staithe::proxy::auth
