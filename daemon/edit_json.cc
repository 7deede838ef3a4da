#include "daemon/edit_json.h"

#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>
#include <boost/json/value.hpp>
#include <cstddef>
#include <optional>
#include <utility>

#include "cache/escape.h"

namespace staithe::daemon {
namespace {

namespace json = boost::json;

constexpr std::string_view space = " \t\r\n";

std::size_t skip_space(std::string_view text, std::size_t at) {
  return std::min(text.find_first_not_of(space, at), text.size());
}

// The end of the string that begins at `at`, behind its quote.
std::size_t skip_string(std::string_view text, std::size_t at) {
  for (++at; at < text.size() && text[at] != '"'; ++at)
    if (text[at] == '\\') ++at;
  return std::min(at + 1, text.size());
}

// The end of the value that begins at `at`; the text is known to be JSON.
std::size_t skip_value(std::string_view text, std::size_t at) {
  int depth = 0;
  while (at < text.size()) {
    const char c = text[at];
    if (c == '"') {
      at = skip_string(text, at);
      if (depth == 0) return at;
      continue;
    }
    if (c == '{' || c == '[') ++depth;
    if (c == '}' || c == ']') {
      if (depth == 0) return at;  // behind a bare word
      if (--depth == 0) return at + 1;
    }
    if (depth == 0 && (c == ',' || space.contains(c))) return at;
    ++at;
  }
  return at;
}

// Where the value of the root's member `key` begins; none if it has no such member.
std::optional<std::size_t> value_of(std::string_view text, std::size_t root, std::string_view key) {
  std::size_t at = skip_space(text, root + 1);
  while (at < text.size() && text[at] == '"') {
    const std::size_t end = skip_string(text, at);
    const bool is_it = text.substr(at + 1, end - at - 2) == key;
    at = skip_space(text, end);  // the colon
    at = skip_space(text, at + 1);
    if (is_it) return at;
    at = skip_space(text, skip_value(text, at));
    if (at < text.size() && text[at] == ',') at = skip_space(text, at + 1);
  }
  return std::nullopt;
}

std::string in_front(std::string_view text, std::size_t opened, const std::string& item) {
  // The same space before the item as before the one that was first.
  const std::size_t next = skip_space(text, opened + 1);
  const std::string before(text.substr(opened + 1, next - opened - 1));
  const bool is_empty = text[next] == ']' || text[next] == '}';
  std::string result(text.substr(0, opened + 1));
  if (is_empty) return result + item + std::string(text.substr(next));
  return result + before + item + "," + (before.empty() ? " " : before) +
         std::string(text.substr(next));
}

}  // namespace

Result<std::string> put_first_in_list(std::string_view text, std::string_view key,
                                      std::string_view item) {
  boost::system::error_code error;
  json::value old = json::parse(text, error);
  if (error) return fail(Errc::config, "it is not JSON: " + printable(error.message(), 200));
  if (!old.is_object()) return fail(Errc::config, "it is not one JSON object");
  json::value wanted = old;
  json::value& list = wanted.get_object()[key];
  if (list.is_null()) list = json::array{};
  if (!list.is_array())
    return fail(Errc::config, "its \"" + printable(key, 80) + "\" is not a list");
  json::array& items = list.get_array();
  const auto without_slash = [](std::string_view url) {
    return url.ends_with('/') ? url.substr(0, url.size() - 1) : url;
  };
  for (const json::value& present : items) {
    if (present.is_string() && without_slash(present.get_string()) == without_slash(item))
      return std::string(text);
  }
  items.insert(items.begin(), json::value(item));

  const std::string quoted = json::serialize(json::value(item));
  const std::size_t root = skip_space(text, 0);
  std::string result;
  if (const auto at = value_of(text, root, key); at && text[*at] == '[') {
    result = in_front(text, *at, quoted);
  } else {
    const std::string member = json::serialize(json::value(key)) + ": [" + quoted + "]";
    const std::size_t next = skip_space(text, root + 1);
    result = text[next] == '}' ? std::string(text.substr(0, root)) + "{\n  " + member + "\n" +
                                     std::string(text.substr(next))
                               : in_front(text, root, member);
  }
  const json::value proof = json::parse(result, error);
  if (error || proof != wanted) return fail(Errc::config, "it has a form that setup does not edit");
  return result;
}

}  // namespace staithe::daemon
