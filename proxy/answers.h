// Whole answers in memory, for requests that the cache answers as it did a moment ago.
//
// What a request target means depends on nothing but the target (proxy/route.h), and what a digest
// names never changes, so a hit's answer is kept as it was sent and found again by the target. It
// holds until its end, or until somebody takes back what it rests on: the object, the right to it,
// the tag, the configuration.
//
// put(), erase(), clear() and take_used() are the main loop's; find() is anybody's. A find() that
// begins after erase() or clear() has returned does not find what that took away. Never more than
// `most_bytes`, what the keeping costs included; who was not asked for lately goes first.
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "cache/clock.h"
#include "cache/digest.h"
#include "proxy/request_meter.h"

namespace staithe::proxy {

// An answer with status 200, as it leaves. Immutable but for the marks, which any thread sets.
struct Answer {
  // `head`: status line and fields, each with its line end, without the empty line and without what
  // differs from one answer to the next (Age, Connection).
  Answer(cache::Digest of, std::string_view head, std::string_view body);

  const cache::Digest digest;
  const std::string text;       // head, empty line, body
  const std::size_t head_size;  // without the empty line
  std::string_view head() const { return std::string_view(text).substr(0, head_size); }
  std::string_view body() const { return std::string_view(text).substr(head_size + 2); }

  Instant until = Instant::max();
  // Of an answer by tag: when upstream last confirmed the tag.
  std::optional<Instant> confirmed = {};
  // "Age: 5" and a line end; empty for an answer by digest.
  std::string age_field(Instant now) const;

  // As what it is counted.
  RequestMeter::Registry* registry = nullptr;
  RequestKind kind = RequestKind::manifest;

  mutable std::atomic<bool> used = false;   // since take_used() looked last
  mutable std::atomic<bool> fresh = false;  // since the hand that looks for victims came by
};
using AnswerPtr = std::shared_ptr<const Answer>;

class Answers {
 public:
  // Objects beyond this leave better from their file.
  static constexpr std::size_t most_body_bytes = 64 * 1024;
  // A few hundred images' manifests and configurations.
  static constexpr std::uint64_t default_bytes = 8 * 1024 * 1024;

  explicit Answers(std::uint64_t most_bytes = default_bytes) : most_bytes_(most_bytes) {}
  Answers(const Answers&) = delete;
  Answers& operator=(const Answers&) = delete;

  // Null if there is none, or none any more.
  AnswerPtr find(std::string_view target, Instant now) const;

  // How often something was taken back by erase() or clear().
  std::uint64_t taken_back() const { return taken_back_; }
  // In place of what there was for the target. No effect if it is too large, or if anything was
  // taken back since `as_of`, which is taken_back() from before the answer was found: it may have
  // been what this rests on.
  void put(std::string_view target, AnswerPtr answer, std::uint64_t as_of);
  // All that rests on this digest, or only what was asked for by tag.
  void erase(const cache::Digest& digest, bool by_tag_only = false);
  void clear();
  // Tells each digest of which an answer was found since the last call, once.
  void take_used(const std::function<void(const cache::Digest&)>& tell);

  std::uint64_t bytes() const { return bytes_; }
  std::size_t size() const { return order_.size(); }

 private:
  struct Entry {
    std::string target;
    AnswerPtr answer;
  };
  using Order = std::list<Entry>;
  struct Shard {
    // Guards the map, which only the main loop changes. Keys are the entries' own.
    mutable std::mutex mutex;
    std::unordered_map<std::string_view, Order::iterator> by_target;
  };

  static std::uint64_t cost(const Entry& entry);
  Shard& shard_of(std::string_view target) const;
  void remove(Order::iterator entry);
  void make_room(std::uint64_t bytes);

  const std::uint64_t most_bytes_;
  mutable std::array<Shard, 16> shards_;
  mutable std::atomic<bool> any_used_ = false;
  // The main loop's.
  Order order_;  // the hand goes from the front to the back, which is where the newest come in
  std::unordered_multimap<cache::Digest, Order::iterator> by_digest_;
  std::uint64_t bytes_ = 0;
  std::uint64_t taken_back_ = 0;
};

}  // namespace staithe::proxy
