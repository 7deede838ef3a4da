// Reads what is stored before somebody needs it, and finds what has decayed.
//
// In the background every object is read once per interval, the one verified longest ago first.
// When an object was verified stands in the index, so a restart goes on where the last process was,
// and what a first read has verified counts. An eighth of the interval lies between two looks at
// what is due; a pass takes all that was not verified for seven eighths of it, so that nothing gets
// older than the interval as long as the pace allows. That eighth is counted by the clock that
// nobody sets: a wall clock that jumps makes objects due once too early, or an eighth late, and
// never more than one pass per look.
//
// verify_all() does the same for everything, at once, and as fast as one thread can.
//
// Lives on the loop; the background reads on a thread of its own that gets the processor and the
// disk only when nobody else wants them.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <boost/asio/thread_pool.hpp>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "cache/clock.h"
#include "cache/digest.h"

namespace staithe::cache {

class Store;

enum class Condition {
  good,
  damaged,     // its bytes are others; it was set aside
  failing,     // its file could not be read to the end; it was set aside, too
  unreadable,  // its file could not be opened; nothing is known against it
  gone,        // it has no file and is a miss from now on
  replaced,    // it is being written, was evicted, or has another file by now
};

// What reading one object has shown.
struct Checked {
  Condition condition = Condition::replaced;
  std::string why;  // a sentence; empty if it is good
};

// How far a verification of many objects is.
struct Verification {
  std::size_t objects = 0;
  std::size_t total_objects = 0;
  std::uint64_t bytes = 0;
  std::uint64_t total_bytes = 0;
  std::size_t damaged = 0;
  std::size_t unreadable = 0;
  std::vector<Digest> damaged_digests;  // the first `most_named` of each
  std::vector<Digest> unreadable_digests;
  // Why it ended before all was read: the disk fails, or the directory is gone.
  std::string broken_off;

  static constexpr std::size_t most_named = 1000;
};

class Scrub {
 public:
  // At most this many steps a second, of at most a MiB each: 32 MiB/s is a fifth of what one hard
  // disk reads and a few hundredths of what one core hashes, and gets through 15 TiB in seven
  // eighths of a week. That a small object is a whole step keeps 100,000 of them from being as many
  // seeks as a disk can make.
  static constexpr int steps_per_second = 32;
  // The same while blobs are written or read: a million small objects still get their turn within
  // seven eighths of a week.
  static constexpr int steps_per_second_beside_traffic = 2;
  // How often it is seen whether something is due at all, the first time after a start, too: what
  // the machine is started for goes first.
  static constexpr std::chrono::minutes least_between_looks{1};
  // A disk that fails must not cost the whole cache: after so many objects in a row that could not
  // be read the rest waits for the next look.
  static constexpr int most_failing_in_a_row = 3;

  // `store` outlives it. An interval of 0 switches the background off.
  Scrub(Store& store, std::chrono::milliseconds interval) : store_(store), interval_(interval) {}
  Scrub(const Scrub&) = delete;
  Scrub& operator=(const Scrub&) = delete;

  // In force within a minute.
  void set_interval(std::chrono::milliseconds interval) { interval_ = interval; }

  enum class State { off, waiting, running, yielding };
  struct Figures {
    State state = State::off;
    Verification pass;  // this one, or else the last one of this process
    std::optional<Instant> began;
    std::optional<Instant> ended;  // none while it runs
    std::optional<Instant> next;   // when it is looked whether something is due; none while it runs
  };
  Figures figures() const;

  // The background; ends only by cancellation.
  asio::awaitable<void> run();
  // The background has ended: joins its thread.
  void close();

  // Awaited after each step; what it throws ends the verification.
  using Progress = std::function<asio::awaitable<void>(const Verification&)>;
  // Reads everything that is stored now, on one thread of the disk pool at a time.
  asio::awaitable<Verification> verify_all(Progress progress);

 private:
  struct Candidate {
    Digest digest;
    std::uint64_t size_bytes;
    std::int64_t verified_unix_seconds;
  };
  enum class Priority { idle, normal };

  std::chrono::nanoseconds between_looks() const;
  // Whether it is its turn in this pass.
  bool due(std::int64_t verified_unix_seconds) const;
  // What is due, or everything; the one verified longest ago first.
  asio::awaitable<std::vector<Candidate>> candidates(Priority priority);
  asio::awaitable<void> pass();
  asio::awaitable<void> verify(const std::vector<Candidate>& objects, Priority priority,
                               Verification& verification, const Progress& progress);
  asio::thread_pool& idle_pool();
  // Until the next step may be taken.
  asio::awaitable<void> pace();
  bool beside_traffic();

  Store& store_;
  std::chrono::milliseconds interval_;
  std::optional<asio::thread_pool> idle_pool_;  // once there was a pass
  State state_ = State::off;
  Verification pass_;
  std::optional<Instant> began_;
  std::optional<Instant> ended_;
  std::optional<Instant> looked_;
  Instant step_began_{};
  std::uint64_t seen_uses_ = 0;
  int verifying_all_ = 0;
};

// "off", "waiting", "running", "yielding".
const char* to_string(Scrub::State state);

}  // namespace staithe::cache
