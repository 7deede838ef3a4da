#include "proxy/trace.h"

#include <algorithm>

namespace staithe::proxy {

namespace {

// "00-" 32 digits "-" 16 digits "-" 2 digits.
constexpr std::size_t parent_at = 36;
constexpr std::size_t flags_at = 53;
constexpr std::size_t size_of_version_0 = 55;

constexpr int digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  return -1;  // Capitals are none.
}

bool is_hex(std::string_view text) {
  return std::ranges::all_of(text, [](char c) { return digit(c) >= 0; });
}

bool is_id(std::string_view text) {
  return is_hex(text) && text.find_first_not_of('0') != text.npos;
}

}  // namespace

std::optional<TraceParent> parse_traceparent(std::string_view text) {
  if (text.size() < size_of_version_0) return std::nullopt;
  const std::string_view version = text.substr(0, 2);
  if (!is_hex(version) || version == "ff") return std::nullopt;
  // What a later version appends is behind another dash.
  if (version == "00" ? text.size() != size_of_version_0
                      : text.size() > size_of_version_0 && text[size_of_version_0] != '-')
    return std::nullopt;
  if (text[2] != '-' || text[parent_at - 1] != '-' || text[flags_at - 1] != '-')
    return std::nullopt;
  const TraceParent found{.trace_id = text.substr(3, 32),
                          .parent_id = text.substr(parent_at, 16),
                          .sampled = (digit(text[flags_at + 1]) & 1) != 0};
  if (!is_id(found.trace_id) || !is_id(found.parent_id) || !is_hex(text.substr(flags_at, 2)))
    return std::nullopt;
  return found;
}

}  // namespace staithe::proxy
