// WWW-Authenticate as a hostile upstream sends it, one field per line: what is understood can be
// written down again in one way, and is understood as the same.
#include "proxy/auth/challenge.h"

#include <string>
#include <vector>

#include "tests/fuzz/fuzz.h"

namespace staithe::fuzz {

namespace {

std::string written(const std::vector<proxy::auth::Challenge>& challenges) {
  std::string field;
  for (const auto& challenge : challenges) {
    field += (field.empty() ? "" : ", ") + challenge.scheme;
    if (!challenge.token68.empty()) field += " " + challenge.token68;
    for (const auto& [name, value] : challenge.params) {
      field += &name == &challenge.params.front().first ? " " : ", ";
      field += name + "=\"";
      for (const char c : value) {
        if (c == '"' || c == '\\') field += '\\';
        field += c;
      }
      field += '"';
    }
  }
  return field;
}

}  // namespace

void one(std::string_view input) {
  std::vector<std::string_view> fields;
  for (Input lines(input); !lines.empty();) fields.push_back(lines.line());
  const auto challenges = proxy::auth::parse_challenges(fields);
  if (!challenges) {
    check(is_printable(challenges.error().detail) && !challenges.error().detail.empty());
    return;
  }
  check(challenges->size() <= proxy::auth::max_challenges);
  for (const auto& challenge : *challenges) {
    check(!challenge.scheme.empty());
    check(challenge.token68.empty() || challenge.params.empty());
    check(challenge.params.size() <= proxy::auth::max_challenge_params);
    for (const auto& [name, value] : challenge.params) {
      check(challenge.param(name) == &value);  // Each is there once.
      check(value.find_first_of(std::string_view("\r\n\0", 3)) == std::string::npos);
    }
  }
  const std::string field = written(*challenges);
  if (field.size() > proxy::auth::max_challenge_bytes) return;
  const auto again = proxy::auth::parse_challenges({field});
  check(again && again->size() == challenges->size());
  for (std::size_t i = 0; i < again->size(); ++i) {
    check((*again)[i].scheme == (*challenges)[i].scheme);
    check((*again)[i].token68 == (*challenges)[i].token68);
    check((*again)[i].params == (*challenges)[i].params);
  }
  if (const auto* chosen = proxy::auth::choose(*challenges))
    check(chosen->scheme == "basic" || (chosen->scheme == "bearer" && chosen->param("realm")));
}

}  // namespace staithe::fuzz
