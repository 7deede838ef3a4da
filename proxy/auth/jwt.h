// What a token says about itself: the claims of a JWT that bear on its use.
//
// The signature is not checked, since this program is not the verifier: a lie about the lifetime
// or the granted access costs the liar's own tokens a failed request, nothing else. Pure, for
// hostile input.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "cache/error.h"

namespace staithe::proxy::auth {

// One entry of the `access` claim (distribution spec, token scope).
struct Access {
  std::string type;  // "repository"
  std::string name;
  std::vector<std::string> actions;
};

struct Claims {
  std::optional<std::int64_t> expires, issued, not_before;  // seconds since 1970
  std::string issuer;
  std::vector<std::string> audience;
  std::optional<std::vector<Access>> access;  // nullopt: the claim is missing

  // True unless the token says what it grants and that is not `action` on `repository`.
  bool may_grant(std::string_view repository, std::string_view action) const;
};

inline constexpr std::size_t max_jwt_bytes = std::size_t{64} * 1024;

// Fails with upstream_nonsense if the text is no JWT (RFC 7519, three parts, strict base64url);
// many registries' tokens are none. The error never quotes the token.
Result<Claims> read_jwt(std::string_view token);

}  // namespace staithe::proxy::auth
