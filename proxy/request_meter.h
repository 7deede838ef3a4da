// What was answered to clients, counted: by registry, kind and result, with how long it took.
//
// A registry is counted under the name of its [[registry]], never under what a client wrote: a
// wildcard has one series for all the names below it, so a client makes no series. What was counted
// stays for the life of the process, also for a registry that a reload takes away; one that comes
// back goes on.
//
// The main loop counts what it answers. The threads that answer from memory (proxy/front.h) have
// counters of their own, one slot each, with one writer: an addition there is a load and a store in
// a cache line that nobody else writes, no locked instruction. Readers add the slots up.
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "cache/error.h"

namespace staithe::proxy {

// A number that one thread adds to and any thread reads.
class Counter {
 public:
  void add(std::uint64_t n) {
    value_.store(value_.load(std::memory_order_relaxed) + n, std::memory_order_relaxed);
  }
  std::uint64_t value() const { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<std::uint64_t> value_ = 0;
};

enum class RequestKind { manifest, blob, tags, referrers, other };
inline constexpr std::size_t request_kinds = 5;
// Those that are answered from memory come first.
inline constexpr std::size_t kinds_in_memory = 2;
std::string_view to_string(RequestKind kind);

enum class RequestResult {
  // As proxy/outcome.h.
  hit,
  miss,
  collapsed,
  stale,
  pass,
  local,
  not_found,  // upstream has no such manifest, blob or repository
  refused,    // not a request for anything that is here: no such path, method, registry, range
  denied,     // by Host, as a web page's, or by [access]
  error,      // upstream, the credential or the disk failed; also in the middle of a body
  gone,       // the client left before the end
};
inline constexpr std::size_t request_results = 11;
std::string_view to_string(RequestResult result);
RequestResult result_of(Errc failure);

// Where the bytes of bodies came from.
enum class BytesSource { cache, shared, upstream, local };
inline constexpr std::size_t bytes_sources = 4;
std::string_view to_string(BytesSource source);
// Of an answer with this status and this value of Cache-Status.
BytesSource source_of(int status, std::string_view cache_status_field);

// A histogram of times.
class Latency {
 public:
  // The upper bounds, inclusive. A hit from memory takes some ten microseconds; a large layer over
  // a thin line, minutes.
  static constexpr std::array<std::chrono::nanoseconds, 20> bounds = [] {
    using std::chrono::microseconds;
    return std::array<std::chrono::nanoseconds, 20>{
        microseconds(100),         microseconds(250),        microseconds(500),
        microseconds(1'000),       microseconds(2'500),      microseconds(5'000),
        microseconds(10'000),      microseconds(25'000),     microseconds(50'000),
        microseconds(100'000),     microseconds(250'000),    microseconds(500'000),
        microseconds(1'000'000),   microseconds(2'500'000),  microseconds(5'000'000),
        microseconds(10'000'000),  microseconds(30'000'000), microseconds(60'000'000),
        microseconds(120'000'000), microseconds(300'000'000)};
  }();
  // Which of them counts so long a time; bounds.size() for what is longer.
  static std::size_t bucket_of(std::chrono::nanoseconds took);

  // `n` that took so long each.
  void add(std::chrono::nanoseconds took, std::uint64_t n = 1) {
    buckets_[bucket_of(took)].add(n);
    nanoseconds_.add(static_cast<std::uint64_t>(took.count()) * n);
  }

  struct Sums {
    std::array<std::uint64_t, bounds.size() + 1> buckets{};  // each for itself, not cumulative
    std::uint64_t nanoseconds = 0;
    std::uint64_t count() const;
  };
  void add_to(Sums& sums) const;

 private:
  std::array<Counter, bounds.size() + 1> buckets_;
  Counter nanoseconds_;
};

class RequestMeter {
 public:
  // No process has more threads at the front.
  static constexpr std::size_t most_threads = 16;

  // Of one registry. Lives as long as the meter.
  class Registry {
   public:
    // Answered from memory by the thread with this slot, which is the only one to call it so.
    void add_hits(std::size_t slot, RequestKind kind, std::uint64_t n) {
      hits_[slot].by_kind[static_cast<std::size_t>(kind)].add(n);
    }
    std::uint64_t count(RequestKind kind, RequestResult result) const;

   private:
    friend class RequestMeter;
    struct alignas(64) Hits {
      std::array<Counter, kinds_in_memory> by_kind;
    };
    std::array<std::array<Counter, request_results>, request_kinds> main_;
    std::array<Hits, most_threads> hits_;
  };

  // Of one thread at the front: what came with its hits.
  struct alignas(64) Thread {
    Counter requests;
    Counter body_bytes;
    std::array<Latency, kinds_in_memory> hits;
  };

  RequestMeter() = default;
  RequestMeter(const RequestMeter&) = delete;
  RequestMeter& operator=(const RequestMeter&) = delete;

  Thread& thread(std::size_t slot) { return threads_.at(slot); }

  // What follows is the main loop's.

  // The one that is called so in the configuration; made when it is first asked for.
  Registry& registry(const std::string& name) { return registries_[name]; }
  // `registry`: null for a request of none.
  void add(Registry* registry, RequestKind kind, RequestResult result,
           std::chrono::nanoseconds took);
  void add_bytes(BytesSource source, std::uint64_t bytes) {
    bytes_[static_cast<std::size_t>(source)].add(bytes);
  }

  const std::map<std::string, Registry>& registries() const { return registries_; }
  const Registry& of_no_registry() const { return none_; }
  Latency::Sums latency(RequestKind kind, RequestResult result) const;
  std::uint64_t bytes(BytesSource source) const;

  // What the front has answered, all of it hits.
  struct Front {
    std::uint64_t requests = 0;
    std::uint64_t body_bytes = 0;
  };
  Front at_front() const;

 private:
  std::map<std::string, Registry> registries_;
  Registry none_;
  std::array<std::array<Latency, request_results>, request_kinds> latency_;
  std::array<Counter, bytes_sources> bytes_;
  std::array<Thread, most_threads> threads_;
};

// Whose a request is, and what became of it.
struct RequestAccount {
  RequestMeter::Registry* registry = nullptr;  // null: of none
  RequestKind kind = RequestKind::other;
  std::optional<RequestResult> result = {};
};

}  // namespace staithe::proxy
