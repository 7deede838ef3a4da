// Policies of eviction, run over a trace: the product's own, and others to measure it by.
#pragma once

#include <deque>
#include <limits>
#include <ranges>
#include <set>
#include <utility>
#include <vector>

#include "cache/catalog.h"
#include "tests/cache/trace.h"

namespace staithe::cache {

struct HitRatios {
  double objects = 0;
  double bytes = 0;
  double used_objects = 0;  // without the pulls of floods, which nothing can make hits
  double used_bytes = 0;
};

// The catalog as the store uses it. With a share of 0 it is a plain LRU.
class CatalogPolicy {
 public:
  explicit CatalogPolicy(const Trace& trace, Protection protection = {})
      : trace_(trace), catalog_(protection) {
    catalog_.set_allowed_bytes(trace.cache_bytes);
    digests_.reserve(trace.bytes.size());
    for (std::uint32_t i = 0; i < trace.bytes.size(); ++i) digests_.push_back(name(i));
  }
  // Whether it was there.
  bool use(const Trace::Request& request) {
    const Digest& digest = digests_[request.object];
    if (catalog_.find(digest)) {
      catalog_.touch(digest, request.unix_seconds);
      return true;
    }
    const std::uint64_t bytes = trace_.bytes[request.object];
    const std::uint64_t wanted = catalog_.totals().bytes + cost_bytes(bytes);
    if (cost_bytes(bytes) > trace_.cache_bytes) return false;
    if (wanted > trace_.cache_bytes) {
      const auto order = catalog_.oldest_first([](const Digest&) { return true; });
      for (const Digest& victim : choose_victims(order, wanted - trace_.cache_bytes))
        catalog_.drop(victim);
    }
    catalog_.add(digest, ObjectKind::blob, bytes, true, request.unix_seconds);
    if (++added_ % 1000 == 0) catalog_.take_changes();
    return false;
  }
  const Catalog& catalog() const { return catalog_; }
  const Digest& digest(std::uint32_t object) const { return digests_[object]; }

 private:
  static Digest name(std::uint32_t object) {
    // Spread over all bytes as a hash would be: the catalog's map looks at some of them only.
    SeededRandom random(object);
    std::array<std::byte, 32> bytes;
    for (std::byte& byte : bytes) byte = static_cast<std::byte>(random.next());
    return {Algorithm::sha256, bytes};
  }

  const Trace& trace_;
  Catalog catalog_;
  std::vector<Digest> digests_;
  std::uint64_t added_ = 0;
};

// S3-FIFO (Yang et al., SOSP 2023): a small queue of 10 % in which an object must be used again, a
// main queue with second chances, and the names of what left the small queue. Uses count as ours
// do, once per pull, since otherwise every blob counts as used again at once.
class S3FifoPolicy {
 public:
  explicit S3FifoPolicy(const Trace& trace) : trace_(trace), entries_(trace.bytes.size()) {}

  bool use(const Trace::Request& request) {
    Entry& entry = entries_[request.object];
    if (entry.place == Place::small || entry.place == Place::main) {
      if (protection_.is_later_pull(entry.pulled, request.unix_seconds)) {
        entry.uses = std::min(entry.uses + 1, 3);
        entry.pulled = request.unix_seconds;
      }
      return true;
    }
    const std::uint64_t bytes = trace_.bytes[request.object];
    if (bytes > trace_.cache_bytes) return false;
    while (small_bytes_ + main_bytes_ + bytes > trace_.cache_bytes) evict();
    entry.uses = 0;
    entry.pulled = request.unix_seconds;
    // A name in the queue of names that is not a ghost any more is passed over there.
    enter(request.object, entry.place == Place::ghost ? Place::main : Place::small);
    return false;
  }

 private:
  enum class Place { nowhere, small, main, ghost };
  struct Entry {
    Place place = Place::nowhere;
    int uses = 0;
    std::int64_t pulled = 0;
  };

  void enter(std::uint32_t object, Place place) {
    entries_[object].place = place;
    const bool small = place == Place::small;
    (small ? small_ : main_).push_back(object);
    (small ? small_bytes_ : main_bytes_) += trace_.bytes[object];
  }
  void evict() {
    if (!small_.empty() && (small_bytes_ > trace_.cache_bytes / 10 || main_.empty())) {
      const std::uint32_t object = take(small_, small_bytes_);
      if (entries_[object].uses > 0) {
        entries_[object].uses = 0;
        enter(object, Place::main);
      } else {
        entries_[object].place = Place::ghost;
        ghosts_.push_back(object);
        ghost_bytes_ += trace_.bytes[object];
        while (ghost_bytes_ > trace_.cache_bytes - trace_.cache_bytes / 10) {
          const std::uint32_t forgotten = take(ghosts_, ghost_bytes_);
          if (entries_[forgotten].place == Place::ghost) entries_[forgotten].place = Place::nowhere;
        }
      }
      return;
    }
    const std::uint32_t object = take(main_, main_bytes_);
    if (entries_[object].uses-- > 0) {
      enter(object, Place::main);
    } else {
      entries_[object] = {};
    }
  }
  std::uint32_t take(std::deque<std::uint32_t>& queue, std::uint64_t& bytes) {
    const std::uint32_t object = queue.front();
    queue.pop_front();
    bytes -= trace_.bytes[object];
    return object;
  }

  const Trace& trace_;
  Protection protection_;
  std::vector<Entry> entries_;
  std::deque<std::uint32_t> small_, main_, ghosts_;
  std::uint64_t small_bytes_ = 0, main_bytes_ = 0, ghost_bytes_ = 0;
};

// Knows the future: what is needed last goes, and what is needed later than all that would have to
// go for it does not come in. With sizes this is near the optimum, not exactly it.
class ForesightPolicy {
 public:
  explicit ForesightPolicy(const Trace& trace)
      : trace_(trace), next_(trace.requests.size(), never), kept_(trace.bytes.size(), absent) {
    std::vector<std::size_t> seen(trace.bytes.size(), never);
    for (std::size_t i = trace.requests.size(); i-- > 0;) {
      if (trace.requests[i].repeated) continue;
      next_[i] = std::exchange(seen[trace.requests[i].object], i);
    }
  }

  bool use(const Trace::Request& request) {
    const std::size_t at = static_cast<std::size_t>(&request - trace_.requests.data());
    std::size_t& kept = kept_[request.object];
    if (request.repeated) return kept != absent;
    const std::uint64_t bytes = trace_.bytes[request.object];
    const bool hit = kept != absent;
    if (hit) {
      by_next_.erase({kept, request.object});
      bytes_ -= bytes;
      kept = absent;
    }
    if (next_[at] == never || bytes > trace_.cache_bytes) return hit;
    std::uint64_t room = trace_.cache_bytes - bytes_;
    auto first_to_go = by_next_.end();
    while (room < bytes) {
      --first_to_go;
      if (first_to_go->first < next_[at]) return hit;
      room += trace_.bytes[first_to_go->second];
    }
    for (auto it = first_to_go; it != by_next_.end(); it = by_next_.erase(it)) {
      bytes_ -= trace_.bytes[it->second];
      kept_[it->second] = absent;
    }
    kept = next_[at];
    by_next_.insert({kept, request.object});
    bytes_ += bytes;
    return hit;
  }

 private:
  static constexpr std::size_t never = std::numeric_limits<std::size_t>::max();
  static constexpr std::size_t absent = never - 1;

  const Trace& trace_;
  std::vector<std::size_t> next_;  // where the object of a request is needed next
  std::vector<std::size_t> kept_;  // of each object: where it is needed next
  std::set<std::pair<std::size_t, std::uint32_t>> by_next_;
  std::uint64_t bytes_ = 0;
};

// Of all pulls but those of the first quarter, in which the cache fills.
template <class Policy>
HitRatios run_trace(const Trace& trace, Policy policy) {
  struct Count {
    double asked = 0, asked_bytes = 0, hit = 0, hit_bytes = 0;
    void add(double bytes, bool was_there) {
      asked += 1;
      asked_bytes += bytes;
      if (!was_there) return;
      hit += 1;
      hit_bytes += bytes;
    }
  };
  Count all, used;
  std::size_t number = 0;
  for (const Trace::Request& request : trace.requests) {
    const bool hit = policy.use(request);
    if (++number <= trace.requests.size() / 4 || request.repeated) continue;
    const auto bytes = static_cast<double>(trace.bytes[request.object]);
    all.add(bytes, hit);
    if (!request.one_time) used.add(bytes, hit);
  }
  return {.objects = all.hit / all.asked,
          .bytes = all.hit_bytes / all.asked_bytes,
          .used_objects = used.hit / used.asked,
          .used_bytes = used.hit_bytes / used.asked_bytes};
}

inline HitRatios run_catalog(const Trace& trace, Protection protection = {}) {
  return run_trace<CatalogPolicy&&>(trace, CatalogPolicy(trace, protection));
}
inline HitRatios run_lru(const Trace& trace) { return run_catalog(trace, {.percent = 0}); }
inline HitRatios run_s3_fifo(const Trace& trace) { return run_trace(trace, S3FifoPolicy(trace)); }
inline HitRatios run_foresight(const Trace& trace) {
  return run_trace(trace, ForesightPolicy(trace));
}

}  // namespace staithe::cache
