// Which objects go, and how much may stay: pure arithmetic over sizes and last uses.
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

struct Candidate {
  Digest digest;
  std::uint64_t bytes;  // what removing it gives back
  bool evictable;       // false: pinned, or being written
};

// The least recently used evictable candidates, of a range ordered from the least recently used,
// that together give back at least `excess_bytes`; all evictable ones if that is not enough.
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
