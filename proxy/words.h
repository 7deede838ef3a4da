// What a server says about a failure, fit for people: short, and without anything that may be a
// secret, because a server can echo what it was sent. Pure.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace staithe::proxy {

// The words of an error's body in one of the known shapes: OCI errors, OAuth error and
// error_description, plain text; empty for a page. Neither escaped nor without secrets yet.
std::string words_of(std::string_view body);

// Without the secrets that were sent, in whole or in pieces of 8 bytes, and without anything else
// that is long and looks like a token (digests do not). At most 1 KiB of it.
std::string without_secrets(std::string_view text, const std::vector<std::string_view>& sent);

}  // namespace staithe::proxy
