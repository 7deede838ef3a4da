// WWW-Authenticate: what a registry asks for (RFC 9110 section 11.6.1).
//
// A response may have several such fields, and a field several challenges. Names are
// case-insensitive; values come quoted, with escapes, or bare (Azure Arc's realm is a bare path).
// Pure, for hostile input: a field that does not follow the grammar is an error, because a realm
// that can be read in two ways is one that somebody checks in one way and dials in the other.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "cache/error.h"

namespace staithe::proxy::auth {

struct Challenge {
  std::string scheme;   // lower case: "bearer"
  std::string token68;  // as in "Negotiate YII="; without parameters then
  std::vector<std::pair<std::string, std::string>> params;  // names in lower case, each once

  // The parameter of that (lower-case) name, or nullptr.
  const std::string* param(std::string_view name) const;
};

// Limits of what is parsed, all fields together.
inline constexpr std::size_t max_challenge_bytes = std::size_t{16} * 1024;
inline constexpr std::size_t max_challenges = 16;
inline constexpr std::size_t max_challenge_params = 32;

// `fields` are the values of all WWW-Authenticate fields, in their order (Headers::all).
Result<std::vector<Challenge>> parse_challenges(const std::vector<std::string_view>& fields);

// The challenge to answer: Bearer with a realm before Basic; nullptr if there is neither.
const Challenge* choose(const std::vector<Challenge>& challenges);

}  // namespace staithe::proxy::auth
