// Bytes of a file to a socket by sendfile(2): the kernel copies, this process does not.
//
// What is short and stands in the page cache is sent at once, on the caller's loop. All else is a
// job on a service loop (proxy/senders.h), which the caller's loop has nothing to do with until it
// has ended: the job sends as much as the socket takes, waits until it takes more, and gives others
// their turn in between. A stretch that is not in the page cache is sent by a pool thread, so that
// a slow disk stalls neither loop.
//
// Shared between the threads: the descriptors, which the caller keeps open until the job has ended
// (to end it early, shut the socket down); `SendProgress`; and the flag that stops the job.
#pragma once

#include <atomic>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/generic/stream_protocol.hpp>
#include <boost/asio/thread_pool.hpp>
#include <chrono>
#include <cstdint>

#include "proxy/pace.h"
#include "proxy/senders.h"

namespace staithe::proxy {

namespace asio = boost::asio;

using Socket = asio::generic::stream_protocol::socket;

// How far a sending has come. Written by the thread that sends, read by any.
class SendProgress {
 public:
  std::uint64_t sent_bytes() const { return sent_bytes_.load(std::memory_order_relaxed); }
  // The peer takes no more for now.
  bool held_up() const { return held_up_.load(std::memory_order_relaxed) < 0; }
  // For how long the peer has held it up until `now`, in all.
  std::chrono::nanoseconds held_up_for(SteadyTime now) const {
    const std::int64_t ns = held_up_.load(std::memory_order_relaxed);
    return std::chrono::nanoseconds(ns < 0 ? ns + count(now) : ns);
  }

  void add(std::uint64_t bytes) {
    sent_bytes_.store(sent_bytes() + bytes, std::memory_order_relaxed);
  }
  void hold_up(SteadyTime now) { held_up_.fetch_sub(count(now), std::memory_order_relaxed); }
  void go_on(SteadyTime now) { held_up_.fetch_add(count(now), std::memory_order_relaxed); }

 private:
  static std::int64_t count(SteadyTime time) {
    return std::chrono::nanoseconds(time.time_since_epoch()).count();
  }

  std::atomic<std::uint64_t> sent_bytes_ = 0;
  // Nanoseconds in all; while it is held up, less those of the clock when that began, which makes
  // it negative. One number, so that nobody ever sees a part of a change.
  std::atomic<std::int64_t> held_up_ = 0;
};

// Bytes `begin`..`end` of an open file.
struct FileStretch {
  int fd;
  std::uint64_t begin;
  std::uint64_t end;
};

// Sends the stretch to `socket`, which is non-blocking. `progress` is right whatever the outcome:
// from there another source would have to go on. Once `stop` (null: never) is true, it ends soon,
// with no more than 4 MiB sent from then on. Without `senders` the job runs on the caller's loop.
// Throws system_error when the peer is gone, Failure(storage_failed) when the file is shorter or
// unreadable.
asio::awaitable<void> send_file(Socket& socket, FileStretch stretch, const std::atomic<bool>* stop,
                                Senders* senders, asio::thread_pool& disk, SendProgress& progress);

// How far from its beginning the stretch is in the page cache, as far as samples tell: `begin` if
// it begins with a page that is not, or if the file system does not say.
std::uint64_t in_page_cache(FileStretch stretch);

}  // namespace staithe::proxy
