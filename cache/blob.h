// A blob's bytes on disk, all of them or the part that may be read so far.
//
// One writer adds to it, wherever bytes come first; any number of readers send what is there and
// wait for more. Readers share no position, so a slow client delays nobody, and none of them owns
// the writer, so one that leaves stops nobody. A stored blob is one that has nothing left to grow.
//
// | phase    | readable                     | ends by                                        |
// |----------|------------------------------|------------------------------------------------|
// | growing  | all that arrived but the end | finish(): the digest matched; or fail()        |
// | whole    | everything                   | the last owner lets go                         |
// | failed   | nothing more                 | readers drop their connections                 |
//
// A whole blob fails only if its file is found damaged later, by condemn().
//
// The last byte is held back until the digest has matched, so that no client can receive a wrong
// blob that looks complete. Only a reader of a part, which has no digest, may have it as it comes.
// Lives on the loop: no member but condemned() may be called from another thread.
#pragma once

#include <atomic>
#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/steady_timer.hpp>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>

#include "cache/digest.h"
#include "cache/disk.h"
#include "cache/error.h"
#include "cache/event.h"
#include "cache/extents.h"

namespace staithe::cache {

class Blob {
 public:
  // `size_bytes` is the whole blob's size if upstream has told it.
  Blob(asio::any_io_executor loop, Digest digest, File file,
       std::optional<std::uint64_t> size_bytes);
  ~Blob();
  Blob(const Blob&) = delete;
  Blob& operator=(const Blob&) = delete;

  const Digest& digest() const { return digest_; }
  const File& file() const { return file_; }
  // Known from the start for all but the rare upstream that sends no Content-Length; known to all
  // once the blob is whole.
  std::optional<std::uint64_t> size_bytes() const { return size_bytes_; }
  bool whole() const { return whole_; }
  // How many bytes from the start may be read.
  std::uint64_t ready_bytes() const { return ready_from(0, End::held_back); }
  // What has arrived.
  const Extents& present() const { return present_; }

  enum class End { held_back, as_it_comes };
  // Up to where the bytes from `offset` on may be read now; `offset` if they may not.
  std::uint64_t ready_from(std::uint64_t offset, End end) const;
  // Waits until `least_bytes` (> 0) from `offset` on may be read, or all that there will be;
  // returns up to where. If the writer is so slow that this takes longer than 10 ms, less is
  // enough, so that a reader may ask for as much as is worth waking up for. Throws Failure with the
  // writer's error if it gave up.
  asio::awaitable<std::uint64_t> wait_past(std::uint64_t offset, End end = End::held_back,
                                           std::uint64_t least_bytes = 1);
  // Is told the first that is missing whenever somebody begins to wait for bytes, so that the
  // writer can see to them first. Called within wait_past(), so it must do little.
  void on_wait(std::function<void(std::uint64_t)> told) { on_wait_ = std::move(told); }

  // Waits until the blob is whole. Throws like wait_past().
  asio::awaitable<void> wait_whole();

  // Writer: these bytes have arrived.
  void add(Extent extent);
  // Writer: the first `bytes` have.
  void grow(std::uint64_t bytes) { add({0, bytes}); }
  // Writer: these are all the bytes, and their digest is the blob's.
  void finish(std::uint64_t size_bytes);
  // Writer: no more will come.
  void fail(Error error);
  // The file of a whole blob has turned out to be damaged: nothing of it may be read any more. Who
  // is reading it fails at the next wait_past().
  void condemn(Error error);
  const std::optional<Error>& error() const { return error_; }
  // True once it has been condemned. The one thing here that other threads may look at.
  const std::atomic<bool>& condemned() const { return condemned_; }

  // Has the file closed by this instead of here on the loop: the last close of a removed file gives
  // its space back, which takes long for a large one.
  void close_by(std::function<void(File)> close) { close_ = std::move(close); }

  // Counts its readers for as long as they hold this.
  class Reading {
   public:
    explicit Reading(Blob& blob) : blob_(blob) {
      ++blob_.readers_;
      blob_.was_read_ = true;
    }
    ~Reading() { --blob_.readers_; }
    Reading(const Reading&) = delete;
    Reading& operator=(const Reading&) = delete;

   private:
    Blob& blob_;
  };
  std::size_t readers() const { return readers_; }
  // There has been one.
  bool was_read() const { return was_read_; }

 private:
  // One that waits in wait_past().
  class Waiter;
  // By the end of what they wait for, so that each step of the writer has to do with those whose
  // bytes have come, not with all.
  using Waiters = std::multimap<std::uint64_t, Waiter*>;

  // Where the `least_bytes` end, as far as they can be had before the blob is whole.
  std::uint64_t enough(std::uint64_t offset, End end, std::uint64_t least_bytes) const;
  void wake(Waiters::iterator first, Waiters::iterator last, bool with_less);
  // Those who have waited for a while take what there is.
  void wake_in_a_while();
  void wake_all();

  Digest digest_;
  File file_;
  std::optional<std::uint64_t> size_bytes_;
  Extents present_;
  bool whole_ = false;
  std::optional<Error> error_;
  std::atomic<bool> condemned_ = false;
  std::size_t readers_ = 0;
  bool was_read_ = false;
  std::function<void(File)> close_;
  std::function<void(std::uint64_t)> on_wait_;
  asio::any_io_executor loop_;
  Waiters waiters_;
  asio::steady_timer while_;
  bool in_a_while_ = false;
  // Ends with the blob: what is queued on the loop by then does nothing.
  std::shared_ptr<Blob*> alive_;
  Event ended_;  // whole, or failed
};

}  // namespace staithe::cache
