// What a caller brings to prove its own right to private content: a user name and password, or a
// token of the registry's. Pure parsing; it is never kept longer than the proof takes.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "cache/error.h"
#include "proxy/auth/secret.h"

namespace staithe::proxy::auth {

struct CallerCredential {
  enum class Kind { anonymous, basic, bearer };
  Kind kind = Kind::anonymous;
  std::string username = {};                  // of basic
  std::shared_ptr<const Secret> secret = {};  // the password, or the token; null: anonymous
};

// The value of an Authorization field; empty: anonymous. So is an empty name with an empty
// password, which skopeo sends when it has none. Fails with bad_request, in words that quote
// nothing, for other schemes and for what is none of these.
Result<CallerCredential> parse_caller_credential(std::string_view field);

}  // namespace staithe::proxy::auth
