#include "daemon/edit_toml.h"

#include <toml++/toml.h>

#include <algorithm>
#include <cstddef>
#include <optional>
#include <utility>

#include "cache/escape.h"

namespace staithe::daemon {
namespace {

std::unexpected<Error> refuse(std::string why) { return fail(Errc::config, std::move(why)); }

std::unexpected<Error> not_edited() {
  return refuse("it has a form that setup does not edit (inline tables or dotted keys)");
}

Result<toml::table> parse(std::string_view text) {
  try {
    return toml::parse(text);
  } catch (const toml::parse_error& error) {
    return refuse("line " + std::to_string(error.source().begin.line) +
                  " is not TOML: " + printable(error.description(), 200));
  }
}

// The table at `path`; null if there is none.
toml::node* find(toml::table& root, const TomlPath& path) {
  toml::node* node = &root;
  for (const std::string& key : path) {
    toml::table* table = node->as_table();
    node = table ? table->get(key) : nullptr;
    if (!node) return nullptr;
  }
  return node;
}

// The table at `path`, made where it is missing; null if something else stands in its place.
toml::table* make(toml::table& root, const TomlPath& path) {
  toml::table* table = &root;
  for (const std::string& key : path) {
    toml::node& node = table->insert(key, toml::table{}).first->second;
    table = node.as_table();
    if (!table) return nullptr;
  }
  return table;
}

std::string_view line_end(std::string_view text) { return text.contains("\r\n") ? "\r\n" : "\n"; }

// Where line `line`, counted from 1, begins.
std::size_t line_offset(std::string_view text, std::size_t line) {
  std::size_t at = 0;
  for (; line > 1; --line) {
    const std::size_t end = text.find('\n', at);
    if (end == text.npos) return text.size();
    at = end + 1;
  }
  return at;
}

std::string_view line_at(std::string_view text, std::size_t offset) {
  return text.substr(offset, std::min(text.find('\n', offset), text.size()) - offset);
}

// A position as tomlplusplus counts, in characters, as an offset in bytes.
std::size_t offset_of(std::string_view text, const toml::source_position& position) {
  std::size_t at = line_offset(text, position.line);
  for (toml::source_index column = 1; column < position.column && at < text.size(); ++column) {
    ++at;
    while (at < text.size() && (static_cast<unsigned char>(text[at]) & 0xc0) == 0x80) ++at;
  }
  return at;
}

bool is_header(std::string_view line) {
  line.remove_prefix(std::min(line.find_first_not_of(" \t"), line.size()));
  return line.starts_with('[') && !line.starts_with("[[");
}

std::string with_last_line_ended(std::string_view text) {
  std::string result(text);
  if (!result.empty() && !result.ends_with('\n')) result += line_end(text);
  return result;
}

std::string indent_of(std::string_view line) {
  return std::string(line.substr(0, std::min(line.find_first_not_of(" \t"), line.size())));
}

// What has to come out, checked; the candidates are tried in their order.
Result<std::string> first_that_is(const toml::table& wanted,
                                  const std::vector<std::string>& texts) {
  for (const std::string& text : texts) {
    const auto parsed = parse(text);
    if (parsed && *parsed == wanted) return text;
  }
  return not_edited();
}

}  // namespace

std::string toml_quoted(std::string_view text) {
  std::string result = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') result += '\\';
    result += c;
  }
  return result + "\"";
}

std::string toml_header(const TomlPath& path) {
  std::string result;
  for (const std::string& key : path) {
    const bool bare = !key.empty() && std::ranges::all_of(key, [](char c) {
      return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
             c == '_' || c == '-';
    });
    result += (result.empty() ? "" : ".") + (bare ? key : toml_quoted(key));
  }
  return "[" + result + "]";
}

Result<std::string> set_toml_key(std::string_view text, const TomlPath& table, std::string_view key,
                                 std::string_view value) {
  auto old = parse(text);
  if (!old) return std::unexpected(old.error());
  auto assignment = parse("value = " + std::string(value));
  if (!assignment) return std::unexpected(assignment.error());
  const toml::node& new_value = *assignment->get("value");

  toml::table wanted = *old;
  toml::table* target = make(wanted, table);
  if (!target) return not_edited();
  target->insert_or_assign(key, new_value);
  if (wanted == *old) return std::string(text);

  const std::string end(line_end(text));
  std::vector<std::string> candidates;
  toml::node* node = find(*old, table);
  if (node && node->as_table() && node->as_table()->get(key)) {
    const toml::source_region& region = node->as_table()->get(key)->source();
    const std::size_t from = offset_of(text, region.begin);
    const std::size_t to = std::max(offset_of(text, region.end), from);
    candidates.push_back(std::string(text.substr(0, from)) + std::string(value) +
                         std::string(text.substr(to)));
  } else if (table.empty()) {
    candidates.push_back(std::string(key) + " = " + std::string(value) + end + std::string(text));
  } else {
    if (node && node->is_table() && node->source().begin.line > 0) {
      const std::size_t from = line_offset(text, node->source().begin.line);
      const std::string_view header = line_at(text, from);
      if (is_header(header)) {
        std::string head = with_last_line_ended(text.substr(0, from + header.size() + 1));
        candidates.push_back(
            head + indent_of(header) + "  " + std::string(key) + " = " + std::string(value) + end +
            std::string(text.substr(std::min(from + header.size() + 1, text.size()))));
      }
    }
    candidates.push_back(with_last_line_ended(text) + (text.empty() ? "" : end) +
                         toml_header(table) + end + "  " + std::string(key) + " = " +
                         std::string(value) + end);
  }
  return first_that_is(wanted, candidates);
}

Result<std::string> insert_first_table(std::string_view text, const TomlPath& table,
                                       const std::string& name, std::string_view body) {
  auto old = parse(text);
  if (!old) return std::unexpected(old.error());
  auto content = parse(body);
  if (!content) return std::unexpected(content.error());
  toml::table wanted = *old;
  toml::table* parent = make(wanted, table);
  if (!parent || parent->contains(name)) return not_edited();
  parent->insert_or_assign(name, *content);

  TomlPath path = table;
  path.push_back(name);
  const std::string end(line_end(text));
  std::string block = toml_header(path) + end;
  for (std::string_view rest = body; !rest.empty();) {
    const std::string_view line = line_at(rest, 0);
    block += "  " + std::string(line) + end;
    rest.remove_prefix(std::min(line.size() + 1, rest.size()));
  }

  // Before the first of its future neighbours, and before the comment that stands right above it.
  std::size_t first_line = 0;
  if (const toml::node* node = find(*old, table); node && node->as_table()) {
    for (const auto& [key, child] : *node->as_table()) {
      const std::size_t line = child.source().begin.line;
      if (line > 0 && (first_line == 0 || line < first_line)) first_line = line;
    }
  }
  std::size_t at = text.size();
  if (first_line > 0) {
    while (first_line > 1 && line_at(text, line_offset(text, first_line - 1)).starts_with('#'))
      --first_line;
    at = line_offset(text, first_line);
  }
  std::string result;
  if (at == text.size()) {
    result = with_last_line_ended(text) + (text.empty() ? "" : end) + block;
  } else {
    result = std::string(text.substr(0, at)) + block + end + std::string(text.substr(at));
  }
  auto proved = first_that_is(wanted, {result});
  if (!proved) return proved;
  // Equal values in another order are not equal here.
  auto parsed = parse(*proved);
  const toml::table& neighbours = *find(*parsed, table)->as_table();
  const std::size_t own_line = neighbours.get(name)->source().begin.line;
  for (const auto& [key, child] : neighbours)
    if (child.source().begin.line < own_line) return not_edited();
  return proved;
}

Result<std::string> append_toml(std::string_view text, std::string_view block) {
  auto old = parse(text);
  if (!old) return std::unexpected(old.error());
  const std::string end(line_end(text));
  std::string result = with_last_line_ended(text) + (text.empty() ? "" : end);
  for (std::string_view rest = block; !rest.empty();) {
    const std::string_view line = line_at(rest, 0);
    result += std::string(line) + end;
    rest.remove_prefix(std::min(line.size() + 1, rest.size()));
  }
  auto parsed = parse(result);
  if (!parsed) return not_edited();
  // What was there is there as it was; arrays of tables may have grown.
  for (const auto& [key, value] : *old) {
    const toml::node* now = parsed->get(key.str());
    if (!now) return not_edited();
    if (const toml::array* before = value.as_array(); before && value.is_array_of_tables()) {
      const toml::array* after = now->as_array();
      if (!after || after->size() < before->size()) return not_edited();
      for (std::size_t i = 0; i < before->size(); ++i)
        if (*(*before)[i].as_table() != *(*after)[i].as_table()) return not_edited();
      continue;
    }
    toml::table one;
    toml::table other;
    one.insert_or_assign("value", value);
    other.insert_or_assign("value", *now);
    if (one != other) return not_edited();
  }
  return result;
}

}  // namespace staithe::daemon
