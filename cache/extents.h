// Which bytes of a blob are there: extents that neither overlap nor touch, in rising order.
//
// A transfer over several connections brings few of them, so they are a sorted vector. Not thread
// safe.
#pragma once

#include <cstdint>
#include <vector>

namespace staithe::cache {

// Bytes from `begin` up to, not including, `end`.
struct Extent {
  std::uint64_t begin = 0;
  std::uint64_t end = 0;

  bool operator==(const Extent&) const = default;
};

class Extents {
 public:
  // Joins what overlaps or touches; an empty extent adds nothing.
  void add(Extent extent);

  // Up to where the bytes from `offset` on are there; `offset` itself if it is missing.
  std::uint64_t end_of(std::uint64_t offset) const;
  // The first extent that is missing from `offset` on, within the first `size_bytes`; empty, at
  // `size_bytes`, if none is.
  Extent gap_from(std::uint64_t offset, std::uint64_t size_bytes) const;
  bool contains(Extent extent) const;

  std::uint64_t bytes() const { return bytes_; }  // all together
  const std::vector<Extent>& all() const { return extents_; }

 private:
  std::vector<Extent> extents_;
  std::uint64_t bytes_ = 0;
};

}  // namespace staithe::cache
