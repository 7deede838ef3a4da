// The token endpoints behind one registry, and the patience they need.
//
// A 429 pauses all calls of the registry, whatever repository they are for, since the limit is the
// registry's; where the limit is known, calls are spread to stay below it. A failure that is over
// in a moment (5xx, a broken connection) is tried once more before anybody hears of it. Held by
// shared_ptr by the sources that use it. Lives on the loop.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <optional>
#include <string>

#include "proxy/auth/environment.h"
#include "proxy/auth/token_call.h"
#include "proxy/rate_limit.h"

namespace staithe::proxy::auth {

class TokenServer {
 public:
  // `limit`: nullopt = none is known.
  TokenServer(Environment environment, std::string ca_file,
              std::optional<RateLimit> limit = std::nullopt)
      : environment_(environment), ca_file_(std::move(ca_file)), limit_(limit) {}

  // GET of a request with its URL, header fields, and how its peer is reached. `step` as in ask();
  // throws as ask(), and Postponed during a pause. Any status is an answer.
  asio::awaitable<Answer> get(HttpRequest request, std::string step);
  // POST of the form, which is kept here until the call ends and wiped then.
  asio::awaitable<Answer> post(HttpRequest request, Form form, std::string step);

 private:
  asio::awaitable<Answer> call(HttpRequest request, Form form, std::string step);
  // Throws Postponed if there is a pause.
  void check_pause(const std::string& step) const;

  Environment environment_;
  std::string ca_file_;
  std::optional<RateLimit> limit_;
  Instant paused_until_ = Instant::min();
};

}  // namespace staithe::proxy::auth
