#include "proxy/auth/caller_credential.h"

#include <algorithm>
#include <utility>

#include "proxy/auth/base64.h"
#include "proxy/auth/token_call.h"
#include "proxy/http.h"

namespace staithe::proxy::auth {
namespace {

constexpr std::size_t most_username_bytes = 1024;

bool has_control(std::string_view text) {
  return std::ranges::any_of(
      text, [](char c) { return static_cast<unsigned char>(c) < ' ' || c == '\x7f'; });
}

Result<CallerCredential> parse_basic(std::string_view token) {
  constexpr std::string_view wrong =
      "the Basic credential is not base64 of user:password without control characters";
  Result<std::string> decoded = decode_base64(token);
  if (!decoded) return fail(Errc::bad_request, std::string(wrong));
  const Secret kept = Secret::take(std::move(*decoded));
  const std::string_view pair = kept.reveal();
  const std::size_t colon = pair.find(':');
  if (colon == std::string_view::npos || colon > most_username_bytes || has_control(pair))
    return fail(Errc::bad_request, std::string(wrong));
  const std::string_view username = pair.substr(0, colon);
  const std::string_view password = pair.substr(colon + 1);
  if (username.empty() && password.empty()) return CallerCredential{};
  if (username.empty() || password.empty())
    return fail(Errc::bad_request, "the Basic credential lacks the user name or the password");
  return CallerCredential{.kind = CallerCredential::Kind::basic,
                          .username = std::string(username),
                          .secret = std::make_shared<const Secret>(password)};
}

}  // namespace

Result<CallerCredential> parse_caller_credential(std::string_view field) {
  if (field.empty()) return CallerCredential{};
  const std::size_t space = field.find(' ');
  const std::string_view scheme = field.substr(0, space);
  std::string_view token = space == std::string_view::npos ? "" : field.substr(space);
  token.remove_prefix(std::min(token.find_first_not_of(' '), token.size()));
  if (iequals(scheme, "Basic")) return parse_basic(token);
  if (iequals(scheme, "Bearer") && is_token_text(token))
    return CallerCredential{.kind = CallerCredential::Kind::bearer,
                            .username = {},
                            .secret = std::make_shared<const Secret>(token)};
  return fail(Errc::bad_request,
              "Authorization holds neither a user name and password (Basic) nor a token (Bearer)");
}

}  // namespace staithe::proxy::auth
