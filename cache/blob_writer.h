// Writes one blob: its bytes in order by append(), or wherever they come first by write(), then
// commit(). Destroying it before that gives up, and fails the readers.
//
// Bytes that come in order are hashed while they are written, on another thread, so that the way
// of a blob takes as long as the slower of the two; what came ahead of them is read back and hashed
// by hash_along() once the order has reached it. So the digest is of what upstream sent or the file
// holds, in the order of the blob, however many connections brought it; and a write that fails ends
// the transfer. Lives on the loop.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "cache/store.h"
#include "cache/turns.h"

namespace staithe::cache {

class BlobWriter {
 public:
  ~BlobWriter();
  BlobWriter(const BlobWriter&) = delete;
  BlobWriter& operator=(const BlobWriter&) = delete;

  const std::shared_ptr<Blob>& blob() const { return blob_; }
  // From the start, without a gap: where append() goes on.
  std::uint64_t written_bytes() const { return blob_->present().end_of(0); }

  // For a writer that resumes: reads and hashes what is there, and lets readers have it, as far as
  // the marks bear it out; the blob's present() says what is left to fetch. Does nothing otherwise.
  // Throws nothing: a disk that does not give bytes back costs their transfer.
  asio::awaitable<void> recover();

  // Writes the bytes, lets readers have them, and returns when they are hashed too if they came in
  // order. Calls may overlap, their bytes must not, nor be there already. Once it has begun, it
  // ends when it is done with the bytes, cancelled or not. Throws Failure: storage_*, or
  // upstream_nonsense if the blob has no such bytes.
  asio::awaitable<void> write(std::uint64_t offset, std::span<const char> bytes);
  // Bytes from here on come in order: behind all that is hashed or about to be, so that they need
  // not wait until what was given before them is written.
  bool in_order(std::uint64_t offset) const { return offset == line_end_; }
  // The same at written_bytes().
  asio::awaitable<void> append(std::span<const char> bytes) {
    return write(written_bytes(), bytes);
  }

  // Hashes what came ahead of its turn, until all of the blob is hashed: runs beside the writes of
  // a blob whose size is known. Throws Failure(storage_failed) if the disk does not give it back.
  asio::awaitable<void> hash_along();

  // No more bytes; write() and hash_along() have ended. If they are the blob, readers get the end
  // at once, and the file is made durable and stored. Throws Failure: digest_invalid or
  // upstream_nonsense (too short) if the bytes are wrong; storage_* if they are right, and the
  // readers have them, but they could not be stored.
  asio::awaitable<void> commit();

  // Gives up for this reason, which the readers get; write() and hash_along() have ended. What was
  // written is kept for the next one if the reason does not speak against it.
  void abandon(Error error);

 private:
  friend class Store;
  // Bytes that came in order, but ahead of their turn; ends where it stands in the map.
  struct Run {
    std::uint64_t begin;
    Hasher hasher;
  };
  // Bytes in order that wait for the hasher; write() holds them until they are hashed.
  struct Piece {
    std::span<const char> bytes;
    std::uint64_t end;
  };
  // Of the first bytes, to be noted once all of them are written.
  struct Hashed {
    std::uint64_t end;
    Digest content;
  };
  // Nobody else uses the hasher of the whole meanwhile.
  class Hashing;

  // `on_disk_bytes` of the reservation are taken already. `marks` are those of an earlier transfer.
  BlobWriter(Store& store, std::shared_ptr<Blob> blob, std::uint64_t number,
             std::unique_ptr<Store::Reservation> reservation, std::uint64_t on_disk_bytes,
             std::vector<Catalog::Mark> marks = {});
  std::filesystem::path partial() const;
  asio::awaitable<void> reserve(std::uint64_t end, std::uint64_t more);
  // Both return with the bytes let go of.
  asio::awaitable<void> write_in_order(Extent extent, std::span<const char> bytes);
  asio::awaitable<void> write_ahead(Extent extent, std::span<const char> bytes);
  // Hashes what waits in line, unless somebody hashes already.
  void hash_line();
  void mark_what_is_written();
  Run run_at(std::uint64_t offset);
  // Reads and hashes these bytes. False if they are not all there.
  asio::awaitable<bool> read_through(Extent extent, Hasher& hasher);
  asio::awaitable<void> hash_next();
  void note_written(Extent extent);
  bool marks_at(std::uint64_t from, std::uint64_t end, std::uint64_t every_bytes) const;
  void mark(Extent extent, const Digest& content);
  void leave();
  void keep();
  void discard();

  Store& store_;
  std::shared_ptr<Blob> blob_;
  std::uint64_t number_;  // of its file
  std::unique_ptr<Store::Reservation> reservation_;
  std::uint64_t on_disk_ = 0;         // bytes that the file takes
  std::uint64_t written_ = 0;         // of them by this writer, or found by it
  std::uint64_t relieved_ = 0;        // of these, when the disk was told last to begin with them
  std::vector<Catalog::Mark> marks_;  // to be borne out by recover()
  Hasher hasher_;                     // of the first `hashed_` bytes
  std::uint64_t hashed_ = 0;
  std::vector<Piece> line_;        // what comes next for the hasher, without a gap
  std::uint64_t line_end_ = 0;     // where the line ends, or what is being hashed, or is hashed
  Turns turns_;                    // to write what came in order: two at once wait for each other
  std::optional<Hashed> to_mark_;  // not all written yet
  std::uint64_t marked_ = 0;       // where the last mark from the start ends
  bool hashing_ = false;
  std::map<std::uint64_t, Run> runs_;  // by their end
  Event changed_;                      // more is written, or the hasher is free
  bool doubted_ = false;               // nothing of it is to be gone on with
  bool write_failed_ = false;          // of what came in order
  bool ended_ = false;
};

}  // namespace staithe::cache
