// What differs between two texts, line by line, and what one change is without another. Pure.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace staithe::daemon {

// As `diff -u` shows it: "--- a", "+++ b", hunks with three lines of context. Empty if both are the
// same. A missing text is /dev/null.
std::string unified_diff(std::string_view name, const std::optional<std::string>& before,
                         const std::optional<std::string>& after);

// The same without what stands behind a key that names a secret (password, token, auth), and
// without the body of a PEM file: a diff goes to terminals and tickets.
std::string without_secrets(std::string_view diff);

// `current` was made of `after` by somebody else, and `after` of `before` by us: what `current` is
// without our part. None if both have touched the same or neighbouring lines.
std::optional<std::string> without_change(std::string_view before, std::string_view after,
                                          std::string_view current);

}  // namespace staithe::daemon
