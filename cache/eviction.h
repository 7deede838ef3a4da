// Which objects go, and how much may stay: pure arithmetic over sizes and last uses.
//
// The order in which objects go is that of a segmented LRU. What a pull brought is on probation;
// what a later pull used again is protected. Victims come from probation, from the least recently
// used, and from the protected, in the same order, only when nothing else is left. So a flood of
// images that are pulled once (a CI, a scan) goes through probation and leaves alone what is used.
// A cache in which nothing is used again, or one so small that nothing stays until it is, is a
// plain LRU. The catalog keeps the order; Protection holds the numbers.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <vector>

#include "cache/digest.h"

namespace staithe::cache {

// Disk is given out in blocks of this size on every file system we meet (ext4, XFS); a file's cost
// is its size rounded up.
inline constexpr std::uint64_t block_bytes = 4096;

constexpr std::uint64_t cost_bytes(std::uint64_t size_bytes) {
  const std::uint64_t rest = size_bytes % block_bytes;
  if (rest == 0) return size_bytes;
  // Upstream announces sizes; none of them may wrap round to a small cost.
  constexpr std::uint64_t most = std::numeric_limits<std::uint64_t>::max();
  return size_bytes > most - block_bytes ? most : size_bytes - rest + block_bytes;
}

struct Budget {
  std::uint64_t max_bytes = 0;       // [cache] max_size
  std::uint64_t min_free_bytes = 0;  // [cache] min_free
};

// How many bytes the cache may hold, given what it holds and what the filesystem has left. Others
// fill the disk too: what they take beyond `min_free` comes out of the cache.
constexpr std::uint64_t allowed_bytes(const Budget& budget, std::uint64_t used_bytes,
                                      std::uint64_t free_bytes) {
  const std::uint64_t reachable = used_bytes + free_bytes;
  const std::uint64_t by_disk =
      reachable > budget.min_free_bytes ? reachable - budget.min_free_bytes : 0;
  return std::min(budget.max_bytes, by_disk);
}

// When a use counts, and how much may be protected. The numbers are from `./dev bench eviction`:
// hits in % of bytes, floods of 1 to 3 caches a night, a cache of 10 % of all images; LRU has 31.6.
struct Protection {
  // Of the bytes that the cache may hold. The rest is what a new object can count on, and its time
  // to be used again. 50 %: 38.0; 70 %: 39.5; 80 %, 90 %, 95 %: 39.7.
  std::uint64_t percent = 80;
  // Uses within this time of a pull's first are that pull's: it asks for a blob by HEAD and GET, in
  // ranges side by side, for twenty containers at once, for the steps of one CI job. 0: 32.8;
  // 1 min: 33.5; 10 min: 39.7; 1 h: 38.3; 6 h: 35.9, as what comes back sooner does not count.
  std::int64_t pull_seconds = 600;

  constexpr std::uint64_t protected_bytes(std::uint64_t allowed_bytes) const {
    return allowed_bytes / 100 * percent + allowed_bytes % 100 * percent / 100;
  }
  // Whether a use now is of another pull than the one that began then. A clock that was set back
  // says nothing (the catalog then takes now for the beginning, so it costs one use); one that is
  // set forward makes a pull look later, at most once.
  constexpr bool is_later_pull(std::int64_t pulled_unix_seconds,
                               std::int64_t now_unix_seconds) const {
    // The difference of any two times fits an unsigned number.
    return now_unix_seconds >= pulled_unix_seconds &&
           static_cast<std::uint64_t>(now_unix_seconds) -
                   static_cast<std::uint64_t>(pulled_unix_seconds) >=
               static_cast<std::uint64_t>(pull_seconds);
  }
};

// Room that is made ahead, in the background, so that what comes rarely waits for removals: once
// less than half of this is free (the high mark), what goes next goes until all of it is (the low
// mark). A 32nd of the cache holds the next image of most; beyond a GiB no transfer outruns the
// next look. A cache in which that is less than a layer has no marks: it makes room as it is
// needed.
constexpr std::uint64_t headroom_bytes(std::uint64_t allowed_bytes) {
  constexpr std::uint64_t least = std::uint64_t{4} << 20;
  constexpr std::uint64_t most = std::uint64_t{1} << 30;
  const std::uint64_t headroom = std::min(allowed_bytes / 32, most);
  return headroom < least ? 0 : headroom;
}

struct Candidate {
  Digest digest;
  std::uint64_t bytes;  // what removing it gives back
  bool evictable;       // false: pinned, or being written
};

// The first evictable candidates, of a range in the order in which they are to go, that together
// give back at least `excess_bytes`; all evictable ones if that is not enough.
template <class Range>
std::vector<Digest> choose_victims(Range&& oldest_first, std::uint64_t excess_bytes) {
  std::vector<Digest> victims;
  std::uint64_t gained = 0;
  for (const Candidate& candidate : oldest_first) {
    if (gained >= excess_bytes) break;
    if (!candidate.evictable) continue;
    victims.push_back(candidate.digest);
    gained += candidate.bytes;
  }
  return victims;
}

}  // namespace staithe::cache
