// Range and Content-Range: a range never leaves its body, and is the one that a second reader of
// the same grammar finds.
#include "proxy/range.h"

#include <optional>
#include <string>

#include "tests/fuzz/fuzz.h"

namespace staithe::fuzz {

namespace {

// Digits alone, and no more than fit; written apart from the reader under test.
std::optional<std::uint64_t> read_number(std::string_view digits) {
  if (digits.empty()) return std::nullopt;
  unsigned __int128 value = 0;
  for (const char c : digits) {
    if (c < '0' || c > '9') return std::nullopt;
    value = value * 10 + static_cast<unsigned>(c - '0');
    if (value > UINT64_MAX) return std::nullopt;
  }
  return static_cast<std::uint64_t>(value);
}

// What RFC 9110 section 14.2 says of one range; nullopt: the whole, and why does not matter.
std::optional<proxy::ByteRange> expected(std::string_view header, std::uint64_t size) {
  const std::size_t begin = header.find_first_not_of(" \t");
  if (begin == std::string_view::npos) return std::nullopt;
  header = header.substr(begin, header.find_last_not_of(" \t") + 1 - begin);
  if (!header.starts_with("bytes=") || header.contains(',')) return std::nullopt;
  header.remove_prefix(6);
  header.remove_prefix(std::min(header.find_first_not_of(" \t"), header.size()));
  const std::size_t dash = header.find('-');
  if (dash == std::string_view::npos) return std::nullopt;
  const auto first = read_number(header.substr(0, dash));
  const auto last = read_number(header.substr(dash + 1));
  if (dash == 0) {
    if (!last || *last == 0 || size == 0) return std::nullopt;
    return proxy::ByteRange{*last >= size ? 0 : size - *last, size};
  }
  if (!first || *first >= size) return std::nullopt;
  if (dash + 1 == header.size()) return proxy::ByteRange{*first, size};
  if (!last || *last < *first) return std::nullopt;
  return proxy::ByteRange{*first, *last >= size ? size : *last + 1};
}

}  // namespace

void one(std::string_view input) {
  const proxy::AskedRange asked = proxy::asked_range(input);
  for (const std::uint64_t size : {std::uint64_t{0}, std::uint64_t{1}, std::uint64_t{1000},
                                   std::uint64_t{1} << 40, UINT64_MAX}) {
    const auto range = proxy::parse_range(input, size);
    const auto wanted = expected(input, size);
    if (!range) {
      check(range.error().code == Errc::range_not_satisfiable && !wanted);
      continue;
    }
    check(*range == wanted);
    if (!*range) continue;
    check((*range)->begin < (*range)->end && (*range)->end <= size);
    // What was foreseen before the size was known.
    check(asked.first == (*range)->begin || (asked.first == 0 && !asked.to_the_end));
    if (asked.to_the_end) check((*range)->end == size);
  }
  const auto part = proxy::parse_content_range(input);
  if (!part) return;
  check(part->range.begin < part->range.end);
  check(!part->total_bytes || part->range.end <= *part->total_bytes);
  const std::string plain = "bytes " + std::to_string(part->range.begin) + "-" +
                            std::to_string(part->range.end - 1) + "/" +
                            (part->total_bytes ? std::to_string(*part->total_bytes) : "*");
  const auto again = proxy::parse_content_range(plain);
  check(again && again->range == part->range && again->total_bytes == part->total_bytes);
}

}  // namespace staithe::fuzz
