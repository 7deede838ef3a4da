// Base64 in its two alphabets (RFC 4648). Pure; what is encoded here is often secret, so results
// are for the caller to wipe.
#pragma once

#include <string>
#include <string_view>

#include "cache/error.h"

namespace staithe::proxy::auth {

// With padding (section 4): Basic authentication, docker's config.json.
std::string encode_base64(std::string_view bytes);
// Without padding (section 5): JWT.
std::string encode_base64url(std::string_view bytes);

// Strict: padding as section 4 has it, no other characters, no left-over bits. Fails with
// upstream_nonsense; the error does not quote the text.
Result<std::string> decode_base64(std::string_view text);
// Without padding, without other characters, without left-over bits.
Result<std::string> decode_base64url(std::string_view text);

}  // namespace staithe::proxy::auth
