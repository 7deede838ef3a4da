// Small changes to TOML files of other programs that keep every other byte. Pure.
//
// An edit is tried on the text and then proved on the values: what the new text parses to must be
// what the old one parsed to with our value set, and nothing else. A text for which that fails
// (dotted keys, inline tables) is refused, not mended.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "cache/error.h"

namespace staithe::daemon {

// Keys from the root: {"plugins", "io.containerd.grpc.v1.cri", "registry"}.
using TomlPath = std::vector<std::string>;

// "\"a\\\"b\"", as a basic string of TOML; also one of JSON.
std::string toml_quoted(std::string_view text);
// `[plugins."io.containerd.grpc.v1.cri".registry]`
std::string toml_header(const TomlPath& path);

// `text` with `key` of the table at `table` being `value`, which is TOML ("\"x\"", "[1]"). The text
// itself if it is so already. Errc::config with a sentence if the text is not TOML or has a form
// that is not edited.
Result<std::string> set_toml_key(std::string_view text, const TomlPath& table, std::string_view key,
                                 std::string_view value);

// `text` with the table `table`/`name` of `body` (lines of keys) as the first of the tables in
// `table`; for hosts.toml, where the order counts. Such a table must not exist yet.
Result<std::string> insert_first_table(std::string_view text, const TomlPath& table,
                                       const std::string& name, std::string_view body);

// `text` with `block`, which is TOML, after it; the values of both must not meet.
Result<std::string> append_toml(std::string_view text, std::string_view block);

}  // namespace staithe::daemon
