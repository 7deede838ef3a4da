// Realms of a hostile registry's challenge: which token server may be asked, and with what (threat
// T7). No realm makes a credential go to another's host.
#include <array>

#include "proxy/auth/trust.h"
#include "tests/fuzz/fuzz.h"

namespace staithe::fuzz {

namespace {

namespace auth = proxy::auth;
using proxy::Origin;

const std::vector<std::string> suffixes{"azurecr.io"};
const Origin contoso{"https", "contoso.azurecr.io", 443};

void check_acr(std::string_view realm) {
  const auto url = auth::check_acr_realm(contoso, realm, suffixes);
  if (!url) {
    check(is_printable(url.error().detail));
    return;
  }
  const Origin& origin = url->origin();
  check(origin.scheme == "https" && origin.port == 443);
  const auto host = auth::parse_acr_host(origin.host, suffixes);
  check(host && host->name == "contoso" && host->suffix == "azurecr.io");
}

void check_password(std::string_view realm) {
  const Origin registry{"https", "ghcr.example", 443};
  const auto url = auth::check_password_realm(registry, realm, {"auth.example"});
  if (!url) {
    check(is_printable(url.error().detail));
    return;
  }
  check(url->origin() == registry || url->origin() == (Origin{"https", "auth.example", 443}));
}

void check_anonymous(const Origin& registry, std::string_view realm) {
  const auto url = auth::check_anonymous_realm(registry, realm);
  if (!url) {
    check(is_printable(url.error().detail));
    return;
  }
  const Origin& origin = url->origin();
  check(origin.scheme == "https" || origin == registry);
  if (proxy::is_ip_literal(origin.host)) check(origin.host == registry.host);
  if (auth::reach_of(registry.host) == auth::Reach::anywhere)
    check(auth::reach_of(origin.host) == auth::Reach::anywhere);
}

}  // namespace

void one(std::string_view input) {
  check_acr(input);
  check_password(input);
  for (const Origin& registry :
       {Origin{"https", "quay.example", 443}, Origin{"http", "localhost", 5000},
        Origin{"https", "10.1.2.3", 5000}, Origin{"https", "registry.internal", 443}})
    check_anonymous(registry, input);
  // Hosts that are only alike are none.
  if (const auto host = auth::parse_acr_host(input, suffixes)) {
    check(proxy::host_below(input, host->suffix));
    check(host->name.find_first_of("./@:") == std::string::npos && !host->name.empty());
  }
}

}  // namespace staithe::fuzz
