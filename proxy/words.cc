#include "proxy/words.h"

#include <algorithm>
#include <boost/json/array.hpp>

#include "cache/error.h"
#include "proxy/auth/json.h"

namespace staithe::proxy {
namespace {

namespace json = boost::json;

constexpr std::size_t max_text_in_words = 2000;
// Identifiers that people need, GUIDs among them, are shorter than this; tokens are longer.
constexpr std::size_t token_like_bytes = 40;
// So much of a secret in one piece is too much.
constexpr std::size_t telling_bytes = 8;
constexpr std::size_t max_text_searched = 1024;  // more than is shown

bool is_token_like(char c) {
  return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '-' ||
         c == '_' || c == '.' || c == '+' || c == '/' || c == '=' || c == '~' || c == '%';
}

// "sha256:" and its 64 digits: what an error is about.
bool is_digest(std::string_view text, std::size_t begin, std::size_t end) {
  const std::string_view name = text.substr(0, begin);
  return end - begin == 64 && name.ends_with("sha256:") &&
         std::ranges::all_of(text.substr(begin, 64), [](char c) {
           return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
         });
}

// Adds "; text" or "text", each part within its limit.
void append_words(std::string& words, std::string_view text, std::string_view between) {
  if (text.empty()) return;
  if (!words.empty()) words += between;
  words += text.substr(0, max_text_in_words);
}

// A text field of whatever type the server made it.
std::string_view text_or_nothing(const json::object& object, std::string_view name) {
  return auth::text_field(object, name).value_or("");
}

}  // namespace

std::string words_of(std::string_view body) {
  std::string words;
  const Result<json::value> parsed = auth::parse_json_object(body);
  if (!parsed) {
    // Plain text is for people, as that of a firewall; pages are not.
    const std::size_t start = body.find_first_not_of(" \t\r\n");
    if (start != std::string_view::npos && body[start] != '<' && body[start] != '{')
      append_words(words, body.substr(start), "");
    return words;
  }
  const json::object& object = parsed->get_object();
  if (const json::value* errors = object.if_contains("errors");
      errors && errors->is_array() && !errors->get_array().empty()) {
    if (const json::object* first = errors->get_array().front().if_object()) {
      append_words(words, text_or_nothing(*first, "code"), "");
      append_words(words, text_or_nothing(*first, "message"), ": ");
    }
    return words;
  }
  append_words(words, text_or_nothing(object, "error"), "");
  append_words(words, text_or_nothing(object, "error_description"), ": ");
  if (words.empty()) append_words(words, text_or_nothing(object, "details"), "");
  if (words.empty()) append_words(words, text_or_nothing(object, "message"), "");
  return words;
}

std::string without_secrets(std::string_view text, const std::vector<std::string_view>& sent) {
  constexpr std::string_view mark = "[hidden]";
  if (text.size() > max_text_searched) {
    text = text.substr(0, max_text_searched);
    while (!text.empty() && is_token_like(text.back())) text.remove_suffix(1);
  }
  std::vector<bool> hidden(text.size());
  const auto hide = [&](std::size_t at, std::size_t size) {
    std::fill_n(hidden.begin() + static_cast<std::ptrdiff_t>(at), size, true);
  };
  for (const std::string_view secret : sent) {
    const std::size_t size = std::min(secret.size(), telling_bytes);
    for (std::size_t at = 0; size > 0 && at + size <= text.size(); ++at) {
      if (secret.contains(text.substr(at, size))) hide(at, size);
    }
  }
  for (std::size_t at = 0; at < text.size(); ++at) {
    std::size_t end = at;
    while (end < text.size() && is_token_like(text[end])) ++end;
    if (end - at >= token_like_bytes && !is_digest(text, at, end)) hide(at, end - at);
    at = end;
  }
  std::string kept;
  for (std::size_t at = 0; at < text.size(); ++at) {
    if (!hidden[at]) {
      kept += text[at];
    } else if (at == 0 || !hidden[at - 1]) {
      kept += mark;
    }
  }
  return kept;
}

}  // namespace staithe::proxy
