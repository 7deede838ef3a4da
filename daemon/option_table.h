// Every key of staithe.toml, once: what it is called, what it accepts, its default, what it means,
// and where its value goes. The reader (options.cc) and the writers (options_text.cc: sample,
// --help, effective configuration) hold no key names of their own.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "cache/settings.h"
#include "daemon/options.h"
#include "proxy/settings.h"

namespace staithe::daemon {

// What a key's text must look like (values.h has the grammars).
enum class Grammar {
  flag,
  count,
  duration,
  size,
  word,  // one of Option::words
  path,
  listen_address,
  host,
  host_pattern,
  host_suffix,
  registry_name,
  origin_url,
  upstream_url,
  authority,
  audience,
  repository_prefix,
  image,
  platform,
  identity_name,
  account,
  guid,
  azure_resource_id,
  helper_name,
  plain_text,
  date,
};

// What one key's value goes into; which pointer is set depends on the table.
struct Target {
  Config* config = nullptr;
  proxy::RegistrySettings* registry = nullptr;  // [[registry]] and its sub-tables
  proxy::IdentityFor* below = nullptr;          // [[registry.identity_for]]
  proxy::IdentitySettings* identity = nullptr;  // [identity.NAME]
};

template <class T>
using Member = T& (*)(Target);

// An enumeration, by its position among Option::words.
struct Choice {
  void (*set)(Target, std::size_t index);
  std::size_t (*get)(Target);
};

using Slot = std::variant<Member<bool>, Member<std::size_t>, Member<std::chrono::milliseconds>,
                          Member<cache::Size>, Member<std::filesystem::path>, Member<std::string>,
                          Member<std::vector<std::string>>,
                          Member<std::optional<std::chrono::sys_days>>, Choice>;

// A value on its way between text and Slot. A word is its index; a date may be none.
struct WordIndex {
  std::size_t index;
};
using OptionValue =
    std::variant<bool, std::size_t, std::chrono::milliseconds, cache::Size, std::string,
                 std::vector<std::string>, std::optional<std::chrono::sys_days>, WordIndex>;

// The initializers say what a row may leave out (-Wextra); the tool takes them for redundant.
// NOLINTBEGIN(readability-redundant-member-init)
struct Option {
  std::string_view table;  // "limits", "registry.freshness"; "identity" for every [identity.NAME]
  std::string_view key;
  Grammar grammar;
  bool list = false;  // a list of the grammar's values
  // As it would stand in the file. Empty: there is none, the key is required or derived.
  std::string_view standard = {};
  std::string_view help;  // one sentence without its full stop
  Slot slot;
  // Of a count; of a duration in milliseconds; of a size in bytes.
  std::int64_t least = 0;
  std::int64_t most = 0;
  // Of a size that is given as a share.
  int least_percent = 0;
  int most_percent = 100;
  std::span<const std::string_view> words = {};
  // Of [identity.NAME]: the kinds that take this key, separated by spaces. Empty: all.
  std::string_view kinds = {};
  // Of a key without a default: what the sample shows.
  std::string_view example = {};
};
// NOLINTEND(readability-redundant-member-init)

std::span<const Option> options();

// How a table is written in the file.
enum class Shape { single, repeated, named };  // [x], [[x]], [x.NAME]
struct Table {
  std::string_view name;
  Shape shape;
  std::string_view help;
};
// In the order of the sample.
std::span<const Table> tables();

// Null if there is no such key.
const Option* find_option(std::string_view table, std::string_view key);

// True if an identity of this kind ("basic") takes the key.
bool belongs_to(const Option& option, std::string_view kind);

// What the option accepts, in words: "1 to 1000000", "\"trace\", \"debug\" or \"info\"".
std::string accepted(const Option& option);

// Moves a value that the option's grammar has produced into its slot.
void store(const Option& option, const Target& target, OptionValue value);
OptionValue fetch(const Option& option, const Target& target);

// The value as it stands in the file: "30s" in quotes, ["a", "b"].
std::string toml_text(const Option& option, const OptionValue& value);

}  // namespace staithe::daemon
