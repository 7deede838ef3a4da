#include "daemon/edit_yaml.h"

#include <algorithm>
#include <cstddef>
#include <map>
#include <optional>
#include <utility>

#include "cache/escape.h"

namespace staithe::daemon {
namespace {

struct Line {
  std::size_t begin = 0;  // in the text
  std::size_t end = 0;    // behind the line feed
  std::size_t indent = 0;
  std::string_view text;  // without indent, comment-only lines are empty
};

std::unexpected<Error> refuse(std::size_t number, std::string why) {
  return fail(Errc::config, "line " + std::to_string(number) + ": " + std::move(why) +
                                ", a form that setup does not edit");
}

Result<std::vector<Line>> split(std::string_view text) {
  std::vector<Line> lines;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t feed = std::min(text.find('\n', at), text.size());
    Line line{.begin = at, .end = std::min(feed + 1, text.size()), .indent = 0, .text = {}};
    std::string_view content = text.substr(at, feed - at);
    if (feed < text.size() && content.ends_with('\r')) content.remove_suffix(1);
    // A carriage return alone ends a line for YAML, and not for us; the others are no YAML.
    if (std::ranges::any_of(content, [](unsigned char c) { return c < ' ' && c != '\t'; }))
      return refuse(lines.size() + 1, "a control character");
    const std::size_t first = std::min(content.find_first_not_of(' '), content.size());
    if (first < content.size() && content[first] == '\t')
      return refuse(lines.size() + 1, "a tab in the indent");
    line.indent = first;
    content.remove_prefix(first);
    if (!content.starts_with('#'))
      line.text = content.substr(0, content.find_last_not_of(" \t") + 1);
    lines.push_back(line);
    at = line.end;
  }
  return lines;
}

// "key:" or "\"key\":" and what follows the colon, without a comment.
std::optional<std::pair<std::string, std::string_view>> key_of(std::string_view line) {
  std::string key;
  std::size_t colon;
  if (line.starts_with('"') || line.starts_with('\'')) {
    const std::size_t quote = line.find(line[0], 1);
    if (quote == line.npos) return std::nullopt;
    key = line.substr(1, quote - 1);
    if (key.contains('\\')) return std::nullopt;
    colon = quote + 1;
    if (colon >= line.size() || line[colon] != ':') return std::nullopt;
  } else {
    // A colon within a plain key has something other than a space behind it: "host:5000:".
    colon = line.find(": ");
    if (colon == line.npos) {
      if (!line.ends_with(':')) return std::nullopt;
      colon = line.size() - 1;
    }
    key = line.substr(0, colon);
    constexpr std::string_view special = "-?:,[]{}#&*!|>'\"%@`<";
    if (key.empty() || special.contains(key[0]) || key.contains(' ')) return std::nullopt;
  }
  std::string_view value = line.substr(colon + 1);
  value.remove_prefix(std::min(value.find_first_not_of(" \t"), value.size()));
  if (value.starts_with('#')) value = {};
  return std::pair{std::move(key), value};
}

// The lines of one host say that it is asked through `url`.
bool has_endpoint(const std::vector<Line>& lines, std::size_t from, std::size_t to,
                  std::string_view url) {
  return std::any_of(lines.begin() + static_cast<std::ptrdiff_t>(from),
                     lines.begin() + static_cast<std::ptrdiff_t>(to), [&](const Line& line) {
                       const std::size_t at = line.text.find(url);
                       if (at == line.text.npos) return false;
                       const std::string_view after = line.text.substr(at + url.size());
                       return after.empty() || std::string_view("\"'] ,#").contains(after[0]);
                     });
}

std::string entry(const std::string& host, std::string_view url, std::size_t indent,
                  std::string_view end) {
  const std::string margin(indent, ' ');
  return margin + "\"" + host + "\":" + std::string(end) + margin +
         "  endpoint:" + std::string(end) + margin + "    - \"" + std::string(url) + "\"" +
         std::string(end);
}

}  // namespace

Result<std::string> add_mirrors(std::string_view text, const std::vector<std::string>& hosts,
                                std::string_view url) {
  const auto lines = split(text);
  if (!lines) return std::unexpected(lines.error());
  std::optional<std::size_t> mirrors;  // its line
  bool begun = false;
  for (std::size_t i = 0; i < lines->size(); ++i) {
    const Line& line = (*lines)[i];
    if (line.text.empty() || line.indent > 0) continue;
    if (line.text == "---" && !begun) {
      begun = true;
      continue;
    }
    begun = true;
    const auto key = key_of(line.text);
    if (!key) return refuse(i + 1, "not \"key:\" at the beginning of the line");
    if (key->first != "mirrors") continue;
    if (mirrors) return refuse(i + 1, "a second \"mirrors\"");
    if (!key->second.empty()) return refuse(i + 1, "a value behind \"mirrors:\"");
    mirrors = i;
  }
  const std::string_view end = text.contains("\r\n") ? "\r\n" : "\n";
  if (!mirrors) {
    std::string result(text);
    if (!result.empty() && !result.ends_with('\n')) result += end;
    result += "mirrors:" + std::string(end);
    for (const std::string& host : hosts) result += entry(host, url, 2, end);
    return result;
  }

  // Where each host's lines are.
  std::map<std::string, std::pair<std::size_t, std::size_t>, std::less<>> present;
  std::size_t indent = 0;
  std::string last;
  std::size_t i = *mirrors + 1;
  for (; i < lines->size(); ++i) {
    const Line& line = (*lines)[i];
    if (line.text.empty()) continue;
    if (line.indent == 0) break;
    if (indent == 0) indent = line.indent;
    if (line.indent < indent) return refuse(i + 1, "an indent that is less than its neighbours'");
    if (line.indent > indent) {
      if (last.empty()) return refuse(i + 1, "an indent of its own");
      continue;
    }
    const auto key = key_of(line.text);
    if (!key) return refuse(i + 1, "not a registry's name with a colon");
    if (!key->second.empty()) return refuse(i + 1, "a value behind a registry's name");
    if (!last.empty()) present[last].second = i;
    last = key->first;
    if (!present.emplace(last, std::pair{i, i}).second)
      return refuse(i + 1, "a second entry of this registry");
  }
  if (!last.empty()) present[last].second = i;

  std::string added;
  for (const std::string& host : hosts) {
    const auto found = present.find(host);
    if (found == present.end()) {
      added += entry(host, url, indent == 0 ? 2 : indent, end);
    } else if (!has_endpoint(*lines, found->second.first, found->second.second, url)) {
      return fail(Errc::config,
                  "line " + std::to_string(found->second.first + 1) + ": " + printable(host, 100) +
                      " has endpoints of its own; only you know which is to be first");
    }
  }
  if (added.empty()) return std::string(text);
  const std::size_t at = (*lines)[*mirrors].end;
  std::string result(text.substr(0, at));
  if (!result.ends_with('\n')) result += end;
  return result + added + std::string(text.substr(at));
}

}  // namespace staithe::daemon
