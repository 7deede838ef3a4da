// The order of eviction as its rules say it (cache/eviction.h), without regard to speed.
#pragma once

#include <algorithm>
#include <cstdint>
#include <list>
#include <map>
#include <vector>

#include "cache/digest.h"
#include "cache/eviction.h"

namespace staithe::cache {

class EvictionModel {
 public:
  struct Place {
    Digest digest;
    bool is_protected;
    bool operator==(const Place&) const = default;
  };

  explicit EvictionModel(std::uint64_t most_protected_bytes)
      : most_protected_bytes_(most_protected_bytes) {}

  void add(const Digest& digest, std::uint64_t size_bytes, std::int64_t now) {
    pulls_[digest] = {cost_bytes(size_bytes), now};
    probation_.push_back(digest);
  }
  // Without a row; nobody knows when it was pulled.
  void add_found(const Digest& digest, std::uint64_t size_bytes) {
    pulls_[digest] = {cost_bytes(size_bytes), 0};
    probation_.push_front(digest);
  }
  void touch(const Digest& digest, std::int64_t now) {
    Pull& pull = pulls_.at(digest);
    const bool later = now >= pull.began + 600;
    if (later || now < pull.began) pull.began = now;
    const bool was_protected = std::erase(protected_, digest) > 0;
    std::erase(probation_, digest);
    if (!was_protected && !(later && pull.bytes < most_protected_bytes_)) {
      probation_.push_back(digest);
      return;
    }
    protected_.push_back(digest);
    if (was_protected) return;
    while (protected_bytes() > most_protected_bytes_) {
      probation_.push_back(protected_.front());
      protected_.pop_front();
    }
  }
  void drop(const Digest& digest) {
    std::erase(probation_, digest);
    std::erase(protected_, digest);
    pulls_.erase(digest);
  }

  std::uint64_t protected_bytes() const {
    std::uint64_t bytes = 0;
    for (const Digest& digest : protected_) bytes += pulls_.at(digest).bytes;
    return bytes;
  }
  // All, from the one that goes first.
  std::vector<Place> order() const {
    std::vector<Place> all;
    for (const Digest& digest : probation_) all.push_back({digest, false});
    for (const Digest& digest : protected_) all.push_back({digest, true});
    return all;
  }

 private:
  struct Pull {
    std::uint64_t bytes;
    std::int64_t began;
  };
  std::uint64_t most_protected_bytes_;
  std::map<Digest, Pull> pulls_;  // the last one of each object
  std::list<Digest> probation_;   // least recently used first
  std::list<Digest> protected_;
};

}  // namespace staithe::cache
