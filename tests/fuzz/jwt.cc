// Tokens as an issuer sends them, whole or as their claims alone: what is read is what is written
// there, and what is refused is not quoted.
#include "proxy/auth/jwt.h"

#include <string>

#include "proxy/auth/base64.h"
#include "proxy/auth/json.h"
#include "tests/fuzz/fuzz.h"

namespace staithe::fuzz {

namespace {

namespace auth = proxy::auth;

void check_token(std::string_view token, std::string_view claims_text) {
  const auto claims = auth::read_jwt(token);
  if (!claims) {
    check(is_printable(claims.error().detail));
    return;
  }
  check(std::ranges::count(token, '.') == 2);
  // The same claims, by their names.
  const auto parsed = auth::parse_json_object(claims_text);
  check(parsed.has_value());
  const auto& object = parsed->get_object();
  check(*auth::number_field(object, "exp") == claims->expires);
  check(*auth::number_field(object, "iat") == claims->issued);
  check(*auth::text_field(object, "iss") == claims->issuer);
  check(claims->access.has_value() == object.contains("access"));
  // "pull" on a repository that is not named is granted by silence alone.
  const bool named = claims->access && std::ranges::any_of(*claims->access, [](const auto& access) {
                       return access.name == "team/app";
                     });
  if (claims->may_grant("team/app", "pull")) check(named || !claims->access);
}

}  // namespace

void one(std::string_view input) {
  const auto bytes = auth::decode_base64url(input);
  if (bytes) check(auth::encode_base64url(*bytes) == input);
  if (const auto padded = auth::decode_base64(input)) check(auth::encode_base64(*padded) == input);
  check(auth::decode_base64url(auth::encode_base64url(input)).value_or("\1") == input ||
        input == "\1");
  check(auth::decode_base64(auth::encode_base64(input)).value_or("\1") == input || input == "\1");

  check_token("e30." + auth::encode_base64url(input) + ".c2ln", input);
  const std::size_t first = input.find('.');
  if (first == std::string_view::npos) return;
  const std::size_t second = input.find('.', first + 1);
  if (second == std::string_view::npos) return;
  const auto payload = auth::decode_base64url(input.substr(first + 1, second - first - 1));
  check_token(input, payload ? std::string_view(*payload) : std::string_view());
}

}  // namespace staithe::fuzz
