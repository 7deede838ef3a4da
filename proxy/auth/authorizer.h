// What an upstream request needs from the credentials behind it: one header value.
//
// One Authorizer serves one upstream origin with one identity. Its tokens are shared by all
// requests, fetched once however many ask, and renewed ahead of expiry. Lives on the loop.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <chrono>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "proxy/auth/secret.h"
#include "proxy/http.h"

namespace staithe::proxy::auth {

// One token as status shows it; never its value.
struct TokenStatus {
  std::string kind;  // "entra", "refresh", "access"
  std::chrono::seconds expires_in;
  std::chrono::seconds renews_in;
};

// The value of an Authorization header, shared by the requests that use it; null = send none.
using Authorization = std::shared_ptr<const Secret>;

class Authorizer {
 public:
  virtual ~Authorizer() = default;

  // For pulling from `repository` (as upstream names it). Returns at once while a valid token is
  // held. Throws Failure: unauthorized, denied, unreachable, throttled, upstream_nonsense, each
  // with a sentence that names the step (identity, exchange, token), the cause and the remedy.
  virtual asio::awaitable<Authorization> for_pull(std::string repository) = 0;

  // Upstream answered 401 to a request that carried `used` (null: none). Forgets that token if it
  // is still the current one, and learns from the challenge. True if the request is worth
  // repeating, once, with a new for_pull().
  virtual bool refused(const std::string& repository, const Authorization& used,
                       const Headers& response) = 0;

  virtual std::vector<TokenStatus> tokens() const = 0;
};

}  // namespace staithe::proxy::auth
