// Writes one blob: its bytes in order by append(), or wherever they come first by write(), then
// commit(). Destroying it before that gives up, and fails the readers.
//
// Bytes that come in order are hashed on their way to the disk; what came ahead of them is read
// back and hashed by hash_along() once the order has reached it. So the digest is of what the file
// holds, in the order of the blob, however many connections brought it. Lives on the loop.
#pragma once

#include <map>
#include <memory>
#include <span>
#include <vector>

#include "cache/store.h"

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

  // Writes the bytes and lets readers have them. Calls may overlap, their bytes must not, nor be
  // there already. Throws Failure: storage_*, or upstream_nonsense if the blob has no such bytes.
  asio::awaitable<void> write(std::uint64_t offset, std::span<const char> bytes);
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
  // Nobody else uses the hasher of the whole meanwhile.
  class Hashing;

  // `on_disk_bytes` of the reservation are taken already. `marks` are those of an earlier transfer.
  BlobWriter(Store& store, std::shared_ptr<Blob> blob, std::uint64_t number,
             std::unique_ptr<Store::Reservation> reservation, std::uint64_t on_disk_bytes,
             std::vector<Catalog::Mark> marks = {});
  std::filesystem::path partial() const;
  asio::awaitable<void> reserve(std::uint64_t end, std::uint64_t more);
  Run run_at(std::uint64_t offset);
  // Reads and hashes these bytes. False if they are not all there.
  asio::awaitable<bool> read_through(Extent extent, Hasher& hasher);
  asio::awaitable<void> hash_next();
  void note_written(std::uint64_t bytes);
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
  std::vector<Catalog::Mark> marks_;  // to be borne out by recover()
  Hasher hasher_;                     // of the first `hashed_` bytes
  std::uint64_t hashed_ = 0;
  std::uint64_t marked_ = 0;  // where the last mark from the start ends
  bool hashing_ = false;
  std::map<std::uint64_t, Run> runs_;  // by their end
  Event changed_;                      // more is written, or the hasher is free
  bool doubted_ = false;               // nothing of it is to be gone on with
  bool ended_ = false;
};

}  // namespace staithe::cache
