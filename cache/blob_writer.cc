#include <cassert>

#include "cache/offload.h"
#include "cache/store.h"

namespace staithe::cache {

namespace {

// Space asked for at a time while upstream does not say how large the blob is.
constexpr std::uint64_t reservation_step_bytes = 1024 * 1024;

}  // namespace

BlobWriter::BlobWriter(Store& store, std::shared_ptr<Blob> blob, std::filesystem::path partial,
                       std::unique_ptr<Store::Reservation> reservation)
    : store_(store),
      blob_(std::move(blob)),
      partial_(std::move(partial)),
      reservation_(std::move(reservation)),
      hasher_(blob_->digest().algorithm()) {}

BlobWriter::~BlobWriter() {
  if (!ended_)
    abandon({Errc::cancelled, "the transfer of " + blob_->digest().to_string() + " was given up"});
}

asio::awaitable<void> BlobWriter::append(std::span<const char> bytes) {
  assert(!ended_);
  if (bytes.empty()) co_return;
  const std::uint64_t end = written_ + bytes.size();
  if (blob_->size_bytes() && end > *blob_->size_bytes())
    throw Failure(Errc::upstream_nonsense,
                  "upstream sent more bytes for " + blob_->digest().to_string() + " than the " +
                      std::to_string(*blob_->size_bytes()) + " it announced");
  if (cost_bytes(end) > reservation_->bytes()) {
    const std::uint64_t more = std::max<std::uint64_t>(bytes.size(), reservation_step_bytes);
    co_await store_.make_room(cost_bytes(more));
    reservation_->grow(cost_bytes(more));
  }
  co_await store_.writing_or_evicting([&] {
    store_.disk_.write(blob_->file(), bytes, written_);
    hasher_.update(bytes);
  });
  store_.written_bytes_ += bytes.size();
  written_ = end;
  blob_->grow(written_ - 1);
}

asio::awaitable<void> BlobWriter::commit() {
  assert(!ended_);
  const Digest& digest = blob_->digest();
  if (blob_->size_bytes() && written_ != *blob_->size_bytes())
    throw Failure(Errc::upstream_nonsense, "upstream sent " + std::to_string(written_) +
                                               " of the " + std::to_string(*blob_->size_bytes()) +
                                               " bytes of " + digest.to_string());
  if (hasher_.digest() != digest)
    throw Failure(Errc::digest_invalid, "upstream sent bytes whose digest is " +
                                            hasher_.digest().to_string() + " for " +
                                            digest.to_string() + "; nothing of them is kept");
  // The bytes are right: readers need not wait for the disk to sync.
  blob_->finish(written_);
  ended_ = true;
  try {
    co_await store_.publish(partial_, blob_->file(), ObjectKind::blob, digest);
  } catch (...) {  // Cancelled, too.
    // Readers that have it open go on from memory; nobody finds it again.
    store_.forget_open(digest);
    store_.catalog_.drop(digest);
    discard();
    throw;
  }
  store_.written_bytes_ -= written_;
  store_.growing_.erase(digest);
  store_.forget_open(digest);  // Of a file that could not be opened, and is replaced.
  store_.catalog_.add(digest, ObjectKind::blob, written_, true, store_.unix_now());
  reservation_.reset();
  store_.remember_open(blob_);
}

void BlobWriter::abandon(Error error) {
  if (ended_) return;
  ended_ = true;
  blob_->fail(std::move(error));
  discard();
}

void BlobWriter::discard() {
  store_.growing_.erase(blob_->digest());
  if (!store_.reconciled_) store_.removed_.insert(blob_->digest());
  store_.written_bytes_ -= written_;
  reservation_.reset();
  // Its space comes back when it is removed and no reader has it open any more.
  auto hold = store_.count_unlinked(cost_bytes(written_));
  store_.close_on_pool(*blob_, hold);
  store_.remove_later(partial_, std::move(hold));
}

}  // namespace staithe::cache
