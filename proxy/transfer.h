// One blob's way from upstream into the store, over one connection or several.
//
// It begins with one closed range. Where upstream answers ranges and one connection is not as fast
// as this machine can take the bytes, more connections fetch further segments; a reader that waits
// for a part of its own gets one for it at once. A connection that breaks goes on where it stood;
// one that brings nothing is given up as long as others do. The digest proves the join: nothing
// that a Content-Range, a length or a validator speaks against is taken into the file, and what
// they do not betray, the digest does. Lives on the loop.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "cache/blob_writer.h"
#include "cache/clock.h"
#include "cache/event.h"
#include "cache/task_group.h"
#include "proxy/segments.h"
#include "proxy/upstream_list.h"

namespace staithe::proxy {

class Transfer {
 public:
  struct Settings {
    std::string registry;  // its name
    std::string repository;
    cache::Digest digest;
    std::size_t segments = 4;  // connections at once, unless readers want more
    // Whether ranges may be asked for at all: not of an upstream whose joined bytes were wrong.
    bool ranges = true;
    SegmentSizes sizes = {};
    std::string trace = {};  // as Upstream::Ask::trace
    // Told whenever it goes on after a break.
    std::function<void()> on_resume = {};
  };

  // `upstream` and `clock` outlive it.
  Transfer(asio::any_io_executor loop, Settings settings, UpstreamList& upstream, Clock& clock);
  // run() has ended.
  ~Transfer();

  // Asks upstream for the blob, from `offset` on if it knows ranges; the blob's size, if upstream
  // tells it. Throws Failure: what upstream answered (blob_unknown, denied, ...).
  asio::awaitable<std::optional<std::uint64_t>> begin(std::uint64_t offset);
  // The size of the blob, by HEAD: upstream still shows it, and it may be gone on with.
  asio::awaitable<std::optional<std::uint64_t>> ask_size();

  // Fetches all that the writer's blob lacks. Throws Failure: what came last, when it is given up;
  // storage_* of the writer.
  asio::awaitable<void> run(cache::BlobWriter& writer);

  // More than one answer was joined.
  bool joined() const { return answers_ > 1; }
  std::size_t connections() const { return workers_; }
  // Over the last second or two; 0 = not known yet.
  std::uint64_t bytes_per_second() const;

 private:
  // An answer that brings the bytes from `begin` on, as far as `end`.
  struct Answer {
    std::unique_ptr<HttpResponse> response;
    cache::Extent extent;
    bool whole = false;  // from the start although a range was asked for
  };
  class Working;

  asio::awaitable<std::unique_ptr<HttpResponse>> send(const std::string& range);
  asio::awaitable<Error> error_of_blob(HttpResponse& response);
  // What answers for this range. Throws Failure.
  asio::awaitable<Answer> ask(cache::Extent extent);
  // Throws if it is not what other answers of the same server were.
  void check_validator(const HttpResponse& response);

  // It runs at once, as far as it can.
  void spawn_worker(std::optional<Answer> first);
  asio::awaitable<void> work(std::optional<Answer> first);
  asio::awaitable<void> hash();
  // False if it gave way to the other connections.
  asio::awaitable<bool> fetch(SegmentPlan::Handle segment, std::optional<Answer> answer);
  // One answer's worth of the segment; false as above.
  asio::awaitable<bool> fetch_some(SegmentPlan::Handle segment, std::optional<Answer> answer);
  // Reads the answer into the segment as far as both go; the last of it may still be on its way to
  // the disk.
  asio::awaitable<void> read(SegmentPlan::Handle segment, Answer answer);
  // Waits until one more piece may go to the writer: memory is bounded, and what does not come in
  // order goes there one after the other. `extent` went there before it, by this connection.
  asio::awaitable<void> wait_for_room(cache::Extent extent);
  // Waits until all of it is written.
  asio::awaitable<void> wait_written(cache::Extent extent);
  bool written(cache::Extent extent) const;
  // Lets the writer have these bytes of `piece`, and leaves a spare one in its place.
  void start_write(std::uint64_t offset, std::vector<char>& piece, std::span<const char> bytes);
  asio::awaitable<void> write(std::uint64_t offset, std::vector<char> piece,
                              std::span<const char> bytes);
  // Takes what is missing out of an answer that begins at the start.
  asio::awaitable<void> pass_over(std::unique_ptr<HttpResponse> response);
  // All there is, of a size that nobody has told.
  asio::awaitable<void> append_all(std::unique_ptr<HttpResponse> response);
  // A connection broke after it brought so much: waits before it goes on; throws if nothing has
  // come for too long.
  asio::awaitable<void> get_over(Error broken, std::uint64_t brought_bytes);
  void give_up(Error error);
  bool complete() const;
  const cache::Extents& present() const { return writer_->blob()->present(); }
  void want(std::uint64_t offset);
  // There is a connection to be had besides those at work.
  bool may_serve_readers() const;
  // Of a connection that has brought so much in this time, in which it had to wait for us for so
  // long: whether upstream is as fast as we are.
  bool note_speed(std::uint64_t bytes, std::chrono::duration<double> took,
                  std::chrono::duration<double> held_up);
  void use_more_connections();
  void note_bytes(std::size_t bytes);

  Settings settings_;
  UpstreamList& upstream_;
  Clock& clock_;
  std::shared_ptr<Upstream::Place> place_ = std::make_shared<Upstream::Place>();
  std::map<std::string, std::string> validators_;  // by the server that sent it
  std::size_t answers_ = 0;

  std::optional<Answer> first_;
  cache::BlobWriter* writer_ = nullptr;
  std::optional<SegmentPlan> plan_;  // if the size is known
  std::size_t most_workers_;         // for now
  std::size_t workers_ = 0;
  Instant no_more_before_{};  // One that was too many brought nothing.
  bool answers_ranges_;       // as far as is known
  bool hashed_ = false;
  int breaks_ = 0;  // since the last one that had brought enough
  std::optional<Error> error_;
  Event changed_;
  Event written_;                 // One more piece is.
  std::size_t writes_ = 0;        // pieces that the writer has
  std::uint64_t fast_bytes_ = 0;  // have come since a connection was slow
  std::vector<std::vector<char>> spares_;
  TaskGroup tasks_;

  // For the speed: what came in the window before, and in this one.
  Instant last_bytes_;
  Instant window_began_;
  std::uint64_t window_bytes_ = 0;
  std::uint64_t last_speed_ = 0;
};

}  // namespace staithe::proxy
