// Range and Content-Range: a range never leaves its body.
#include "proxy/range.h"

#include "tests/fuzz/fuzz.h"

void staithe::fuzz::one(std::string_view input) {
  for (const std::uint64_t size : {std::uint64_t{0}, std::uint64_t{1}, std::uint64_t{1000},
                                   std::uint64_t{1} << 40, UINT64_MAX}) {
    const auto range = proxy::parse_range(input, size);
    if (range && *range) check((*range)->begin < (*range)->end && (*range)->end <= size);
  }
  if (const auto part = proxy::parse_content_range(input)) {
    check(part->range.begin < part->range.end);
    check(!part->total_bytes || part->range.end <= *part->total_bytes);
  }
}
