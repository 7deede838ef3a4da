#include "proxy/listing_link.h"

#include <algorithm>

namespace staithe::proxy {

namespace {

// The parameter `name` of a query, with its name, as it stands there.
std::string_view parameter(std::string_view query, std::string_view name) {
  while (!query.empty()) {
    const std::size_t end = query.find('&');
    const std::string_view pair = query.substr(0, end);
    if (pair.starts_with(name) && pair.substr(name.size()).starts_with('=')) return pair;
    if (end == std::string_view::npos) break;
    query.remove_prefix(end + 1);
  }
  return {};
}

// It may stand between < and >.
bool fits_in_link(std::string_view text) {
  return std::ranges::none_of(
      text, [](char c) { return c <= ' ' || c >= '\x7f' || c == '<' || c == '>' || c == '"'; });
}

}  // namespace

std::string rewrite_link(std::string_view link, std::string_view request_target) {
  const std::size_t open = link.find('<');
  const std::size_t close = link.find('>');
  if (open == std::string_view::npos || close == std::string_view::npos || close < open ||
      link.find("rel=\"next\"", close) == std::string_view::npos)
    return {};
  const std::string_view target = link.substr(open + 1, close - open - 1);
  const std::size_t question = target.find('?');
  if (question == std::string_view::npos) return {};
  const std::string_view next = target.substr(question + 1);
  const std::size_t own_question = request_target.find('?');
  const std::string_view own_path = request_target.substr(0, own_question);
  if (!fits_in_link(own_path)) return {};
  std::string result = "<";
  result += own_path;
  char separator = '?';
  const auto append = [&](std::string_view pair) {
    if (pair.empty() || !fits_in_link(pair)) return;
    result += separator;
    result += pair;
    separator = '&';
  };
  append(parameter(next, "last"));
  append(parameter(next, "n"));
  if (separator == '?') return {};
  if (own_question != std::string_view::npos)
    append(parameter(request_target.substr(own_question + 1), "ns"));
  return result + ">; rel=\"next\"";
}

}  // namespace staithe::proxy
