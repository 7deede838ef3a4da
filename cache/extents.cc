#include "cache/extents.h"

#include <algorithm>

namespace staithe::cache {

namespace {

// The first extent that ends behind `offset`.
auto first_behind(const std::vector<Extent>& extents, std::uint64_t offset) {
  return std::ranges::upper_bound(extents, offset, {}, &Extent::end);
}

}  // namespace

void Extents::add(Extent extent) {
  if (extent.begin >= extent.end) return;
  // Those that overlap or touch it.
  const auto first = std::ranges::lower_bound(extents_, extent.begin, {}, &Extent::end);
  auto last = first;
  std::uint64_t joined = 0;
  for (; last != extents_.end() && last->begin <= extent.end; ++last) {
    joined += last->end - last->begin;
    extent.begin = std::min(extent.begin, last->begin);
    extent.end = std::max(extent.end, last->end);
  }
  bytes_ += extent.end - extent.begin - joined;
  if (first == last) {
    extents_.insert(first, extent);
  } else {
    *first = extent;
    extents_.erase(first + 1, last);
  }
}

std::uint64_t Extents::end_of(std::uint64_t offset) const {
  const auto extent = first_behind(extents_, offset);
  return extent != extents_.end() && extent->begin <= offset ? extent->end : offset;
}

Extent Extents::gap_from(std::uint64_t offset, std::uint64_t size_bytes) const {
  const std::uint64_t begin = end_of(offset);
  if (begin >= size_bytes) return {size_bytes, size_bytes};
  const auto next = first_behind(extents_, begin);
  return {begin, next == extents_.end() ? size_bytes : std::min(next->begin, size_bytes)};
}

bool Extents::contains(Extent extent) const {
  return extent.begin >= extent.end || end_of(extent.begin) >= extent.end;
}

}  // namespace staithe::cache
