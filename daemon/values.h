// The grammar of single values in staithe.toml: text in, checked value out. Pure.
//
// An error is the second half of a fault: what is wrong and what is accepted. It quotes the value,
// escaped and cut, except where the value may hold a secret.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <expected>
#include <string>
#include <string_view>

#include "cache/settings.h"

namespace staithe::daemon {

template <class T>
using Parsed = std::expected<T, std::string>;

// The value as a message shows it: in double quotes, escaped, at most 80 bytes of it.
std::string shown(std::string_view text);

// "500ms", "10s", "5m", "12h", "7d": one whole number and one unit.
Parsed<std::chrono::milliseconds> parse_duration(std::string_view text);
// The shortest text that parse_duration() reads as the same value.
std::string format_duration(std::chrono::milliseconds duration);

// "1048576" (bytes), "512MiB" (KiB MiB GiB TiB), "80%" (of the filesystem, 0 to 100).
Parsed<cache::Size> parse_size(std::string_view text);
std::string format_size(const cache::Size& size);

// Where to listen: "127.0.0.1:5050", "[::1]:5050" (port 0: any free one) or "unix:/path", in its
// one canonical form, which proxy::ListenAddress reads. Only loopback: the listeners lend out the
// machine's identity.
Parsed<std::string> parse_listen_address(std::string_view text);
inline constexpr std::size_t kMaxSocketPath = 107;  // sun_path of unix(7) without its NUL

// "contoso.azurecr.io", "localhost:5000", "10.1.2.3:5000": lower case, as image names have it.
Parsed<std::string> parse_host(std::string_view text);
// A registry's name: a host that cannot be mistaken for a path component (it has a dot or a port,
// or is localhost), or "*.suffix" with a suffix of at least two labels.
Parsed<std::string> parse_registry_name(std::string_view text);
// A host without port, or "*.suffix" of at least two labels.
Parsed<std::string> parse_host_pattern(std::string_view text);
// "azurecr.io": at least two labels, no leading dot, no port.
Parsed<std::string> parse_host_suffix(std::string_view text);

// "https://host[:port]", http if written out. A trailing slash is dropped; path, query and userinfo
// are refused, and userinfo and query are not quoted in the error.
Parsed<std::string> parse_origin_url(std::string_view text);
// Likewise, or with a path of repository components, which loses a trailing slash:
// "https://contoso.azurecr.io/docker-hub".
Parsed<std::string> parse_upstream_url(std::string_view text);
// The origin of an Entra authority: https, or http for a loopback name, where no network is
// between.
Parsed<std::string> parse_authority(std::string_view text);
// The audience of a token: an identifier, compared byte by byte by its issuer, so kept as written.
Parsed<std::string> parse_audience(std::string_view text);

// "team-a/", "a/b/": repository path components of the OCI distribution spec, each with its slash.
Parsed<std::string> parse_repository_prefix(std::string_view text);

// "8d3f4b1e-0000-4000-8000-0123456789ab", lower-cased.
Parsed<std::string> parse_guid(std::string_view text);
// "/subscriptions/<guid>/resourceGroups/<name>/providers/<namespace>/<type>/<name>".
Parsed<std::string> parse_azure_resource_id(std::string_view text);

// A user's or group's name or number.
Parsed<std::string> parse_account(std::string_view text);
// The NAME of an [identity.NAME].
Parsed<std::string> parse_identity_name(std::string_view text);

// An absolute path without "." and ".." in it. "${CREDENTIALS_DIRECTORY}" at its start stands for
// `credentials_directory`, which is empty if the process has none.
Parsed<std::string> parse_path(std::string_view text, std::string_view credentials_directory);

// The suffix of a docker-credential program: [a-z0-9][a-z0-9-]*, at most 64 characters.
Parsed<std::string> parse_helper_name(std::string_view text);

// A day as TOML has it, "2027-01-31"; from 2000 on, since an earlier one is a slip.
Parsed<std::chrono::sys_days> check_date(int year, unsigned month, unsigned day);
std::string format_date(std::chrono::sys_days date);

// Text that may stand in a line of its own: no control characters, at most 255 bytes.
Parsed<std::string> parse_plain_text(std::string_view text);

// The candidate that `text` is probably meant to be, or empty.
std::string_view nearest(std::string_view text, const auto& candidates);

// How many single edits (insert, delete, replace, swap neighbours) turn `a` into `b`.
std::size_t edit_distance(std::string_view a, std::string_view b);

std::string_view nearest(std::string_view text, const auto& candidates) {
  std::size_t best = edit_distance(text, "") + 1;
  std::string_view found;
  for (const std::string_view candidate : candidates) {
    // One edit in three characters: "tag_tll" is near "tag_ttl", "users" is not near "hosts".
    const std::size_t most = std::max(text.size(), candidate.size()) / 3;
    const std::size_t distance = edit_distance(text, candidate);
    if (distance <= most && distance < best) {
      best = distance;
      found = candidate;
    }
  }
  return found;
}

}  // namespace staithe::daemon
