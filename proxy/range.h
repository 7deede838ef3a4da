// Byte ranges of one representation (RFC 9110 section 14): pure arithmetic.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include "cache/error.h"

namespace staithe::proxy {

// Bytes begin..end of a body, `end` excluded; never empty.
struct ByteRange {
  std::uint64_t begin;
  std::uint64_t end;
  bool operator==(const ByteRange&) const = default;
};

// What a Range header asks of a body of `size_bytes`. nullopt: send the whole body, because the
// header is absent (empty), not in bytes, malformed or names several ranges, all of which RFC 9110
// lets a server ignore. Errc::range_not_satisfiable if it begins behind the end.
Result<std::optional<ByteRange>> parse_range(std::string_view header, std::uint64_t size_bytes);

// What a Range header says while the size is not known yet.
struct AskedRange {
  std::uint64_t first = 0;  // the first byte; 0 where only the size would tell
  bool to_the_end = true;   // the whole body or "N-": what it brings completes the body
};
AskedRange asked_range(std::string_view header);

// A Content-Range header of a 206: "bytes 0-9/100" or "bytes 0-9/*".
struct ContentRange {
  ByteRange range;
  std::optional<std::uint64_t> total_bytes;
};
std::optional<ContentRange> parse_content_range(std::string_view header);

}  // namespace staithe::proxy
