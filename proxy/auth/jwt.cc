#include "proxy/auth/jwt.h"

#include <algorithm>

#include "proxy/auth/base64.h"
#include "proxy/auth/json.h"
#include "proxy/auth/secret.h"

namespace staithe::proxy::auth {
namespace {

constexpr std::size_t max_access_entries = 256;
constexpr std::size_t max_actions = 32;

std::unexpected<Error> not_a_jwt(std::string_view why) {
  return fail(Errc::upstream_nonsense, "the token is not a JWT: " + std::string(why));
}

// A list of strings, or one string alone (the two forms of `aud`).
Result<std::vector<std::string>> read_texts(const json::value& value, std::size_t limit) {
  if (const json::string* text = value.if_string())
    return std::vector<std::string>{std::string(text->data(), text->size())};
  const json::array* array = value.if_array();
  if (!array || array->size() > limit) return not_a_jwt("a list of strings was expected");
  std::vector<std::string> texts;
  for (const json::value& item : *array) {
    const json::string* text = item.if_string();
    if (!text) return not_a_jwt("a list of strings was expected");
    texts.emplace_back(text->data(), text->size());
  }
  return texts;
}

Result<std::vector<Access>> read_access(const json::value& value) {
  const json::array* array = value.if_array();
  if (!array || array->size() > max_access_entries) return not_a_jwt("'access' is not a list");
  std::vector<Access> all;
  for (const json::value& item : *array) {
    const json::object* object = item.if_object();
    if (!object) return not_a_jwt("'access' holds something odd");
    const Result<std::string_view> type = text_field(*object, "type");
    const Result<std::string_view> name = text_field(*object, "name");
    if (!type || !name) return not_a_jwt("'access' holds something odd");
    Access access{.type = std::string(*type), .name = std::string(*name), .actions = {}};
    if (const json::value* actions = object->if_contains("actions");
        actions && !actions->is_null()) {
      Result<std::vector<std::string>> texts = read_texts(*actions, max_actions);
      if (!texts) return std::unexpected(std::move(texts.error()));
      access.actions = std::move(*texts);
    }
    all.push_back(std::move(access));
  }
  return all;
}

}  // namespace

bool Claims::may_grant(std::string_view repository, std::string_view action) const {
  if (!access) return true;
  return std::ranges::any_of(*access, [&](const Access& granted) {
    return granted.type == "repository" && granted.name == repository &&
           std::ranges::any_of(granted.actions, [&](const std::string& allowed) {
             return allowed == action || allowed == "*";
           });
  });
}

Result<Claims> read_jwt(std::string_view token) {
  if (token.size() > max_jwt_bytes) return not_a_jwt("it is longer than 64 KiB");
  const std::size_t first = token.find('.');
  const std::size_t second = first == std::string_view::npos ? first : token.find('.', first + 1);
  if (second == std::string_view::npos || token.find('.', second + 1) != std::string_view::npos)
    return not_a_jwt("it does not have three parts");
  if (!decode_base64url(token.substr(0, first)) || !decode_base64url(token.substr(second + 1)))
    return not_a_jwt("a part is not base64url");
  Result<std::string> payload = decode_base64url(token.substr(first + 1, second - first - 1));
  if (!payload) return not_a_jwt(payload.error().detail);
  const Result<json::value> parsed = parse_json_object(*payload);
  wipe(*payload);
  if (!parsed) return not_a_jwt(parsed.error().detail);
  const json::object& object = parsed->get_object();

  Claims claims;
  const auto expires = number_field(object, "exp");
  const auto issued = number_field(object, "iat");
  const auto not_before = number_field(object, "nbf");
  const auto issuer = text_field(object, "iss");
  if (!expires || !issued || !not_before || !issuer) return not_a_jwt("a claim has the wrong type");
  claims.expires = *expires;
  claims.issued = *issued;
  claims.not_before = *not_before;
  claims.issuer = std::string(*issuer);
  if (const json::value* audience = object.if_contains("aud"); audience && !audience->is_null()) {
    Result<std::vector<std::string>> texts = read_texts(*audience, max_actions);
    if (!texts) return std::unexpected(std::move(texts.error()));
    claims.audience = std::move(*texts);
  }
  if (const json::value* access = object.if_contains("access"); access && access->is_null()) {
    claims.access.emplace();  // How Go writes an empty list: nothing is granted.
  } else if (access) {
    Result<std::vector<Access>> granted = read_access(*access);
    if (!granted) return std::unexpected(std::move(granted.error()));
    claims.access = std::move(*granted);
  }
  return claims;
}

}  // namespace staithe::proxy::auth
