// One question to a token server, and what can be said about its answer.
//
// Redirects are never followed, since a redirect would name the place that a credential goes to.
// The status is judged before the body is read as anything (a 429 with an HTML body is a 429).
// What a server says may be shown, but escaped, short, and without anything that may be a secret,
// because a server can echo what it was sent.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "proxy/auth/environment.h"
#include "proxy/auth/token.h"
#include "proxy/http.h"

namespace staithe::proxy::auth {

namespace asio = boost::asio;

inline constexpr std::size_t max_answer_bytes =
    std::size_t{64} * 1024;  // go-containerregistry's limit
inline constexpr std::size_t max_token_bytes =
    std::size_t{32} * 1024;                           // Entra tokens with many groups: 10 KiB
inline constexpr std::chrono::seconds call_time{60};  // one call, all its phases together

// application/x-www-form-urlencoded, made for secrets: it grows in place and is wiped.
class Form {
 public:
  Form() = default;
  Form(Form&&) = default;
  Form& operator=(Form&&) = default;
  ~Form() { wipe(text_); }
  Form& add(std::string_view name, std::string_view value);
  std::string_view text() const { return text_; }

 private:
  std::string text_;
};

struct Answer {
  int status = 0;
  Headers headers;
  Secret body;
  // When the request was sent: the life of a token in the answer begins here.
  Instant sent;
  WallTime wall_sent;

  std::optional<std::int64_t> date() const;  // of the server, seconds since 1970
  // Retry-After in whole seconds, the only form that registries send.
  std::optional<std::chrono::seconds> retry_after() const;
};

// Sends the request and reads the whole answer. Throws Failure, its detail beginning with `step`
// ("exchanging the Entra token at contoso.azurecr.io"): unreachable, upstream_failed,
// upstream_nonsense, as HttpClient; nonsense too if the body is longer than max_answer_bytes.
asio::awaitable<Answer> ask(Environment environment, HttpRequest request, std::string step);

// What the class of an answer other than 200 is: 401 unauthorized, 403 denied, 429 throttled,
// 5xx upstream_failed, a redirect or 404 upstream_nonsense, another 4xx unauthorized.
Errc classify(int status);

// "401 UNAUTHORIZED: authentication required; correlation id 1234": the status and what the server
// says (OCI errors, OAuth error and error_description, plain text), for people. `sent` are the
// secrets of the request.
std::string describe(const Answer& answer, const std::vector<std::string_view>& sent = {});

// Ends a fetch with what the server refused: "<step>: <what it says>. <remedy>". Throws Failure, or
// Postponed if the server names a time.
[[noreturn]] void throw_refused(const Answer& answer, const std::string& step,
                                std::string_view remedy,
                                const std::vector<std::string_view>& sent = {});

// A token's text can stand in a header or form: visible ASCII, not empty, within max_token_bytes.
bool is_token_text(std::string_view text);

// The life of `token`, which `answer` brought, by its own claims and what the answer says.
Result<Life> life_of(const Answer& answer, std::string_view token,
                     std::optional<std::int64_t> expires_in,
                     std::optional<std::int64_t> expires_on = std::nullopt);

}  // namespace staithe::proxy::auth
