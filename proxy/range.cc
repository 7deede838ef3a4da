#include "proxy/range.h"

#include <algorithm>
#include <charconv>

namespace staithe::proxy {

namespace {

std::optional<std::uint64_t> number(std::string_view text) {
  std::uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || text.empty()) return std::nullopt;
  return value;
}

std::string_view trim(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t')) text.remove_suffix(1);
  return text;
}

}  // namespace

Result<std::optional<ByteRange>> parse_range(std::string_view header, std::uint64_t size_bytes) {
  constexpr std::optional<ByteRange> whole;
  header = trim(header);
  if (!header.starts_with("bytes=")) return whole;
  const std::string_view text = trim(header.substr(6));
  const std::size_t dash = text.find('-');
  if (dash == std::string_view::npos || text.find(',') != std::string_view::npos) return whole;
  const std::string_view first = text.substr(0, dash);
  const std::string_view last = text.substr(dash + 1);
  const auto unsatisfiable = [&] {
    return fail(Errc::range_not_satisfiable,
                "the range begins behind the end of the blob, which has " +
                    std::to_string(size_bytes) + " bytes");
  };
  if (first.empty()) {  // The last N bytes.
    const auto length = number(last);
    if (!length) return whole;
    if (*length == 0 || size_bytes == 0) return unsatisfiable();
    return ByteRange{size_bytes - std::min(*length, size_bytes), size_bytes};
  }
  const auto begin = number(first);
  if (!begin) return whole;
  std::uint64_t end = size_bytes;
  if (!last.empty()) {
    const auto inclusive = number(last);
    if (!inclusive) return whole;
    if (*inclusive < *begin) return unsatisfiable();  // As the conformance suite has it: 416.
    if (*inclusive < size_bytes) end = *inclusive + 1;
  }
  if (*begin >= size_bytes) return unsatisfiable();
  return ByteRange{*begin, end};
}

AskedRange asked_range(std::string_view header) {
  constexpr std::uint64_t any_size = UINT64_MAX;
  const auto range = parse_range(header, any_size);
  if (!range || !*range) return {};
  if ((*range)->end < any_size) return {.first = (*range)->begin, .to_the_end = false};
  const bool suffix = trim(trim(header).substr(6)).starts_with('-');
  return suffix ? AskedRange{.first = 0, .to_the_end = false}
                : AskedRange{.first = (*range)->begin, .to_the_end = true};
}

std::optional<ContentRange> parse_content_range(std::string_view header) {
  header = trim(header);
  if (!header.starts_with("bytes ")) return std::nullopt;
  header = trim(header.substr(6));
  const std::size_t dash = header.find('-');
  const std::size_t slash = header.find('/');
  if (dash == std::string_view::npos || slash == std::string_view::npos || dash > slash)
    return std::nullopt;
  const auto first = number(header.substr(0, dash));
  const auto last = number(header.substr(dash + 1, slash - dash - 1));
  if (!first || !last || *last < *first || *last == UINT64_MAX) return std::nullopt;
  ContentRange parsed{.range = {*first, *last + 1}, .total_bytes = std::nullopt};
  if (header.substr(slash + 1) != "*") {
    parsed.total_bytes = number(header.substr(slash + 1));
    if (!parsed.total_bytes || *parsed.total_bytes < parsed.range.end) return std::nullopt;
  }
  return parsed;
}

}  // namespace staithe::proxy
