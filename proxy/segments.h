// Which range of a blob the next connection asks for: the plan of one transfer, without its I/O.
//
// A segment is a closed range that one connection is fetching. They are given out from the front,
// so that a reader from the start streams at once, each about half of an equal share of what is
// left, so that all connections end at about the same time whatever their speeds. Bytes that a
// reader waits for go first: where they lie behind a segment that will not be there soon, that one
// is cut short before them. No byte is in two segments. Pure; not thread safe.
#pragma once

#include <cstdint>
#include <deque>
#include <list>
#include <optional>

#include "cache/extents.h"

namespace staithe::proxy {

struct SegmentSizes {
  // The first range: many layers whole, and enough of a large one to see how fast it comes.
  std::uint64_t first_bytes = 4 * 1024 * 1024;
  // A request costs a round trip and, for some registries, is counted: less than this is not worth
  // one more. At 40 MB/s it takes 100 ms, five times a round trip of 20 ms.
  std::uint64_t least_bytes = 4 * 1024 * 1024;
  // So that a cut costs little and the order of the front is kept.
  std::uint64_t most_bytes = 64 * 1024 * 1024;
  // A reader waits for bytes this near instead of having them asked for on another connection: what
  // is in flight on a connection that is cut short is lost, and it is about this much.
  std::uint64_t near_bytes = 2 * 1024 * 1024;
};

class SegmentPlan {
 public:
  struct Segment {
    cache::Extent range;
    std::uint64_t at;  // up to where it has come
  };
  using Handle = std::list<Segment>::iterator;

  // `size_bytes` of the whole blob; `connections` at once, if no reader wants more.
  SegmentPlan(std::uint64_t size_bytes, std::size_t connections, SegmentSizes sizes = {})
      : size_bytes_(size_bytes), connections_(connections), sizes_(sizes) {}

  // The next segment of what is neither there nor given out; nullopt if that is nothing. With
  // `alone_bytes`, whoever asks is the only connection and fast enough alone: it gets all that is
  // left, up to so much, since nobody else would take a share.
  std::optional<Handle> next(const cache::Extents& present, std::uint64_t alone_bytes = 0);
  // This, which is neither there nor given out, is being fetched already.
  Handle claim(cache::Extent extent) {
    return segments_.insert(segments_.end(), Segment{.range = extent, .at = extent.begin});
  }
  // Bytes up to `at` have come.
  void advance(Handle segment, std::uint64_t at) { segment->at = at; }
  // Nobody fetches it any more; what of it has not come is given out again.
  void release(Handle segment);

  // A reader waits for the byte at `offset`, which is not there. True if it should be asked for
  // now, by whoever calls next() first. `may_cut`: there is a connection to be had for it, so that
  // a segment under way may be cut short before it; otherwise that one gets there sooner.
  bool want(std::uint64_t offset, const cache::Extents& present, bool may_cut = true);
  bool wanted() const { return !wanted_.empty(); }

  // How much is neither there nor given out.
  std::uint64_t unclaimed_bytes(const cache::Extents& present) const;
  std::size_t active() const { return segments_.size(); }
  std::uint64_t size_bytes() const { return size_bytes_; }

 private:
  // What is there, has come and is on its way there, or is being fetched.
  cache::Extents taken(const cache::Extents& present) const;

  std::uint64_t size_bytes_;
  std::size_t connections_;
  SegmentSizes sizes_;
  std::list<Segment> segments_;
  cache::Extents came_;               // in segments that are released
  std::deque<std::uint64_t> wanted_;  // in the order in which readers came
};

}  // namespace staithe::proxy
