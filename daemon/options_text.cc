// The writers: what the option table says about itself (sample, help) and a Config in its own words
// (effective configuration).
#include <algorithm>
#include <array>
#include <boost/json/array.hpp>
#include <boost/json/value.hpp>
#include <cassert>
#include <optional>
#include <set>

#include "daemon/option_table.h"
#include "daemon/options.h"

namespace staithe::daemon {
namespace {

namespace json = boost::json;

constexpr std::size_t kSampleColumns = 100;

// What stands in a file for `option`, or nothing where the key would be out of place: an
// identity's key that its kind does not take, an optional text that is not set.
std::optional<OptionValue> effective(const Option& option, const Target& target) {
  if (target.identity && !belongs_to(option, to_string(target.identity->kind))) return std::nullopt;
  OptionValue value = fetch(option, target);
  const auto* text = std::get_if<std::string>(&value);
  if (text && text->empty()) return std::nullopt;
  const auto* date = std::get_if<std::optional<std::chrono::sys_days>>(&value);
  if (date && !*date) return std::nullopt;
  const auto* list = std::get_if<std::vector<std::string>>(&value);
  if (list && list->empty() && option.key == "upstream") return std::nullopt;  // of a wildcard
  return value;
}

// Calls visit(option, value) for every key of `table` that has something to say.
void each_option(std::string_view table, const Target& target, auto visit) {
  for (const Option& option : options()) {
    if (option.table != table) continue;
    if (const auto value = effective(option, target)) visit(option, *value);
  }
}

bool is_top_level(const Table& table) {
  return table.shape == Shape::single && table.name.find('.') == table.name.npos;
}

std::string toml_table(std::string_view header, std::string_view table, const Target& target) {
  std::string text = std::string(header) + "\n";
  each_option(table, target, [&](const Option& option, const OptionValue& value) {
    text += std::string(option.key) + " = " + toml_text(option, value) + "\n";
  });
  return text;
}

json::value json_value(const Option& option, const OptionValue& value) {
  if (const auto* flag = std::get_if<bool>(&value)) return *flag;
  if (const auto* count = std::get_if<std::size_t>(&value)) return *count;
  if (const auto* text = std::get_if<std::string>(&value)) return json::string(*text);
  if (const auto* list = std::get_if<std::vector<std::string>>(&value)) {
    json::array array;
    for (const std::string& text : *list) array.emplace_back(text);
    return array;
  }
  // Words, durations and sizes are strings in the file, but for a bare number of bytes; a date
  // stands there without quotes.
  const std::string text = toml_text(option, value);
  if (option.grammar == Grammar::date) return json::string(text);
  if (!text.starts_with('"')) return std::get<cache::Size>(value).bytes;
  return json::string(text.substr(1, text.size() - 2));
}

json::object json_table(std::string_view table, const Target& target) {
  json::object object;
  each_option(table, target, [&](const Option& option, const OptionValue& value) {
    object[option.key] = json_value(option, value);
  });
  return object;
}

// `text` as comment lines. "# " begins an explanation, "#" at once a line that may be used.
std::string comment(std::string_view text) {
  std::string result;
  std::string line = "#";
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = std::min(text.find(' ', begin), text.size());
    const std::string_view word = text.substr(begin, end - begin);
    if (line.size() + 1 + word.size() > kSampleColumns) {
      result += line + "\n";
      line = "#";
    }
    line += " " + std::string(word);
    begin = end + 1;
  }
  return result + line + "\n";
}

// The key's meaning, and its range where the meaning does not tell it: "... (0s to 1h)".
std::string explanation(const Option& option) {
  switch (option.grammar) {
    case Grammar::count:
    case Grammar::duration:
    case Grammar::size:
    case Grammar::word:
      return std::string(option.help) + " (" + accepted(option) + ")";
    default:
      return std::string(option.help);
  }
}

std::string sample_option(const Option& option, std::string_view value) {
  return comment(explanation(option) + ".") + "#" + std::string(option.key) + " = " +
         std::string(value) + "\n";
}

const Table& table_named(std::string_view name) {
  for (const Table& table : tables()) {
    if (table.name == name) return table;
  }
  assert(false);
  return tables().front();
}

// Every key of `table`; `value_of` gives a key's text or nothing.
std::string sample_table(std::string_view header, std::string_view table, auto value_of) {
  std::string text = comment(table_named(table).help) + "#" + std::string(header) + "\n";
  for (const Option& option : options()) {
    if (option.table != table) continue;
    const std::string value = value_of(option);
    if (!value.empty()) text += sample_option(option, value);
  }
  return text + "\n";
}

// An example of every other kind than the built-in identity's, with all of its keys.
std::string sample_kinds() {
  constexpr std::array<std::string_view, 6> kNames{"app",    "pod", "puller",
                                                   "handed", "aws", "mounted"};
  std::size_t next = 0;
  std::set<std::string_view> explained;
  std::string text = comment(
      "The other kinds of identity, each with all of its keys; the names are the "
      "operator's own.");
  for (const std::string_view kind : find_option("identity", "kind")->words) {
    if (kind == "managed-identity" || kind == "anonymous") continue;
    assert(next < kNames.size());
    text += "#  [identity." + std::string(kNames[next++]) + "]\n#  kind = \"" + std::string(kind) +
            "\"\n";
    for (const Option& option : options()) {
      if (option.table != "identity" || option.kinds.empty() || !belongs_to(option, kind)) continue;
      const bool is_above = belongs_to(option, "managed-identity");
      if (!is_above && explained.insert(option.key).second)
        text += comment(explanation(option) + ".");
      text += "#  " + std::string(option.key) + " = " + std::string(option.example) + "\n";
    }
    text += "\n";
  }
  return text;
}

}  // namespace

std::string to_toml(const Config& config) {
  Config copy = config;  // slots give access for writing too
  std::string text;
  for (const Table& table : tables()) {
    if (!is_top_level(table)) continue;
    text += toml_table("[" + std::string(table.name) + "]", table.name, {.config = &copy}) + "\n";
  }
  for (proxy::RegistrySettings& registry : copy.proxy.registries) {
    const Target target{.config = &copy, .registry = &registry};
    text += toml_table("[[registry]]", "registry", target);
    text += toml_table("[registry.freshness]", "registry.freshness", target);
    if (registry.access) text += toml_table("[registry.access]", "registry.access", target);
    for (proxy::IdentityFor& below : registry.identity_for) {
      text += toml_table("[[registry.identity_for]]", "registry.identity_for",
                         {.config = &copy, .registry = &registry, .below = &below});
    }
    text += "\n";
  }
  for (auto& [name, identity] : copy.proxy.identities) {
    // A bare key of TOML has no dots; a name's grammar has no quote and no backslash.
    const bool bare = name.find('.') == name.npos;
    text += toml_table("[identity." + (bare ? name : "\"" + name + "\"") + "]", "identity",
                       {.config = &copy, .identity = &identity}) +
            "\n";
  }
  text.pop_back();
  return text;
}

json::object to_json(const Config& config) {
  Config copy = config;
  json::object object;
  for (const Table& table : tables()) {
    if (is_top_level(table)) object[table.name] = json_table(table.name, {.config = &copy});
  }
  json::array registries;
  for (proxy::RegistrySettings& registry : copy.proxy.registries) {
    const Target target{.config = &copy, .registry = &registry};
    json::object entry = json_table("registry", target);
    entry["freshness"] = json_table("registry.freshness", target);
    if (registry.access) entry["access"] = json_table("registry.access", target);
    json::array identity_for;
    for (proxy::IdentityFor& below : registry.identity_for) {
      identity_for.push_back(json_table("registry.identity_for",
                                        {.config = &copy, .registry = &registry, .below = &below}));
    }
    entry["identity_for"] = std::move(identity_for);
    registries.push_back(std::move(entry));
  }
  object["registry"] = std::move(registries);
  json::object identities;
  for (auto& [name, identity] : copy.proxy.identities) {
    identities[name] = json_table("identity", {.config = &copy, .identity = &identity});
  }
  object["identity"] = std::move(identities);
  return object;
}

std::string sample_config() {
  const auto defaults = parse_config("", "built-in defaults", Environment{});
  assert(defaults);
  Config config = *defaults;

  std::string text =
      "# /etc/staithe/staithe.toml: what staithed does, and for whom.\n"
      "#\n"
      "# Every key stands here with its default, commented out: a file without any of them does "
      "the\n"
      "# same. Take the \"#\" away from a table's [header] and from the keys that should differ.\n"
      "# `staithed --check` reads the file and names everything that is wrong with it; a running\n"
      "# daemon takes it over by `systemctl reload staithed`, and `staithe config` shows what is "
      "in\n"
      "# force. Durations have ms, s, m, h or d.\n"
      "#\n"
      "# Written by the program from its own table of options; tests compare the two.\n\n";
  for (const Table& table : tables()) {
    if (!is_top_level(table)) continue;
    text += sample_table("[" + std::string(table.name) + "]", table.name,
                         [](const Option& option) { return std::string(option.standard); });
  }
  bool explained = false;
  for (proxy::RegistrySettings& registry : config.proxy.registries) {
    const Target target{.config = &config, .registry = &registry};
    // The default registry shows every key, the others only what makes them differ.
    if (registry.is_default) {
      text += "#[[registry]]\n";
      for (const Option& option : options()) {
        if (option.table != "registry") continue;
        text += sample_option(option, toml_text(option, fetch(option, target)));
      }
      text += sample_table("[registry.freshness]", "registry.freshness", [&](const Option& option) {
        return toml_text(option, fetch(option, target));
      });
      text += comment(table_named("registry.access").help) + "#  [registry.access]\n";
      for (const Option& option : options()) {
        if (option.table == "registry.access")
          text += "#  " + std::string(option.key) + " = " + std::string(option.example) + "\n";
      }
      text += "\n";
      text += comment(table_named("registry.identity_for").help);
      for (const std::string_view line :
           {"  [[registry.identity_for]]", "  prefix = \"team-a/\"", "  identity = \"team-a\""}) {
        text += "#" + std::string(line) + "\n";
      }
      text += "\n";
      continue;
    }
    if (!explained) text += comment(table_named("registry").help);
    explained = true;
    text += "#[[registry]]\n";
    for (const std::string_view key : {"name", "identity"}) {
      const Option& option = *find_option("registry", key);
      if (const auto value = effective(option, target)) {
        text += "#" + std::string(key) + " = " + toml_text(option, *value) + "\n";
      }
    }
    text += "\n";
  }
  for (auto& [name, identity] : config.proxy.identities) {
    const Target target{.config = &config, .identity = &identity};
    text += sample_table("[identity." + name + "]", "identity", [&](const Option& option) {
      if (!belongs_to(option, to_string(identity.kind))) return std::string();
      return toml_text(option, fetch(option, target));
    });
  }
  text += sample_kinds();
  text.pop_back();
  return text;
}

std::string options_help() {
  std::string text;
  for (const Table& table : tables()) {
    std::string keys;
    for (const Option& option : options()) {
      if (option.table != table.name) continue;
      keys += "    " + std::string(option.key);
      if (!option.standard.empty()) keys += " = " + std::string(option.standard);
      keys += "\n        " + explanation(option);
      if (!option.kinds.empty()) keys += " [" + std::string(option.kinds) + "]";
      keys += "\n";
    }
    if (keys.empty()) continue;
    const std::string name(table.name);
    switch (table.shape) {
      case Shape::single:
        text += "  [" + name + "]\n";
        break;
      case Shape::repeated:
        text += "  [[" + name + "]]\n";
        break;
      case Shape::named:
        text += "  [" + name + ".NAME]\n";
        break;
    }
    text += keys;
  }
  return text;
}

}  // namespace staithe::daemon
