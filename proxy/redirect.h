// Where a redirect of an upstream may lead: pure policy (threats T8, T10).
//
// Redirects are followed only from a configured registry to itself or to the hosts where its blobs
// are known to lie, over TLS unless the registry itself is plain HTTP, and never with Authorization
// once the registry's origin was left.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "proxy/dial_policy.h"
#include "proxy/url.h"

namespace staithe::proxy {

struct RedirectPolicy {
  Origin registry;                        // the configured upstream
  std::vector<std::string> data_hosts;    // configured: "host" or "*.suffix"
  std::vector<std::string> acr_suffixes;  // makes dedicated data endpoints known
};

// Whether to follow from `from` (the registry, or a hop after it) to `to`. The error's sentence
// names the host and the key that would allow it.
Result<void> may_follow(const RedirectPolicy& policy, const Url& from, const Url& to);

// For the dial, by whom a host that may be asked for this registry is named: by the configuration
// if it is the registry's own or in data_hosts, or one of Azure's for an ACR, which its private
// endpoints give private addresses. The other known hosts lie in public networks alone.
HostNamedBy named_by(const RedirectPolicy& policy, std::string_view host);

inline constexpr int max_redirects = 5;

}  // namespace staithe::proxy
