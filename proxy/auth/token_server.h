// The token endpoints behind one registry, and the patience they need.
//
// A 429 pauses all calls of the registry, whatever repository they are for, since the limit is the
// registry's. A failure that is over in a moment (5xx, a broken connection) is tried once more
// before anybody hears of it. Held by shared_ptr by the sources that use it. Lives on the loop.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <string>

#include "proxy/auth/environment.h"
#include "proxy/auth/token_call.h"

namespace staithe::proxy::auth {

class TokenServer {
 public:
  TokenServer(Environment environment, std::string ca_file)
      : environment_(environment), ca_file_(std::move(ca_file)) {}

  // GET with these headers. `step` as in ask(); throws as ask(), and Postponed during a pause. Any
  // status is an answer.
  asio::awaitable<Answer> get(Url url, Headers headers, std::string step);
  asio::awaitable<Answer> get(HttpRequest request, std::string step);
  // POST of the form, which is kept here until the call ends and wiped then.
  asio::awaitable<Answer> post(Url url, Form form, std::string step);
  // Likewise, with what else the request needs: its header fields and how its peer is reached.
  asio::awaitable<Answer> post(HttpRequest request, Form form, std::string step);

 private:
  asio::awaitable<Answer> call(HttpRequest request, Form form, std::string step);

  Environment environment_;
  std::string ca_file_;
  Instant paused_until_ = Instant::min();
};

}  // namespace staithe::proxy::auth
