#include "proxy/segments.h"

#include <algorithm>

namespace staithe::proxy {

namespace {

// Readers that wait at once for parts that nobody fetches; more than these find them in order.
constexpr std::size_t most_wanted = 64;

}  // namespace

cache::Extents SegmentPlan::taken(const cache::Extents& present) const {
  cache::Extents all = present;
  for (const cache::Extent& extent : came_.all()) all.add(extent);
  for (const Segment& segment : segments_) all.add(segment.range);
  return all;
}

std::uint64_t SegmentPlan::unclaimed_bytes(const cache::Extents& present) const {
  return size_bytes_ - taken(present).bytes();
}

void SegmentPlan::release(Handle segment) {
  came_.add({segment->range.begin, segment->at});
  segments_.erase(segment);
}

std::optional<SegmentPlan::Handle> SegmentPlan::next(const cache::Extents& present,
                                                     std::uint64_t alone_bytes) {
  const cache::Extents all = taken(present);
  cache::Extent gap{size_bytes_, size_bytes_};
  const std::uint64_t share = (size_bytes_ - all.bytes()) / (2 * connections_);
  std::uint64_t length =
      std::clamp(std::max(share, alone_bytes), sizes_.least_bytes, sizes_.most_bytes);
  while (!wanted_.empty() && gap.begin == size_bytes_) {
    const std::uint64_t offset = wanted_.front();
    wanted_.pop_front();
    if (all.end_of(offset) != offset) continue;
    gap = all.gap_from(offset, size_bytes_);
    // Readers of parts come in crowds, and the next one may wait for what lies just behind.
    length = sizes_.least_bytes;
  }
  if (gap.begin == size_bytes_) gap = all.gap_from(0, size_bytes_);
  if (gap.begin == size_bytes_) return std::nullopt;
  // A rest too small for a request of its own is taken along.
  if (gap.end - gap.begin > length + sizes_.least_bytes / 2) gap.end = gap.begin + length;
  return claim(gap);
}

bool SegmentPlan::want(std::uint64_t offset, const cache::Extents& present, bool may_cut) {
  if (offset >= size_bytes_ || present.end_of(offset) > offset || came_.end_of(offset) > offset)
    return false;
  for (Segment& segment : segments_) {
    if (offset < segment.range.begin || offset >= segment.range.end) continue;
    if (!may_cut || offset <= segment.at + sizes_.near_bytes) return false;
    segment.range.end = offset;
    break;
  }
  if (std::ranges::find(wanted_, offset) != wanted_.end()) return true;
  if (wanted_.size() == most_wanted) return false;
  wanted_.push_back(offset);
  return true;
}

}  // namespace staithe::proxy
