// Where a redirect of an upstream may lead: pure policy (threats T8, T10).
//
// Redirects are followed only from a configured registry to itself or to the hosts where its blobs
// are known to lie, over TLS unless the registry itself is plain HTTP, and never with Authorization
// once the registry's origin was left.
#pragma once

#include <string>
#include <string_view>
#include <vector>

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

inline constexpr int max_redirects = 5;

}  // namespace staithe::proxy
