#include <cassert>

#include "cache/offload.h"
#include "cache/store.h"

namespace staithe::cache {

namespace {

// Space asked for at a time while upstream does not say how large the blob is.
constexpr std::uint64_t reservation_step_bytes = 1024 * 1024;
// One step of hashing what an earlier transfer has brought.
constexpr std::size_t recover_step_bytes = 1024 * 1024;

// Upstream went away, or we are stopping: what came so far is as good as before.
bool says_nothing_of_the_bytes(Errc reason) {
  return reason == Errc::unreachable || reason == Errc::upstream_failed ||
         reason == Errc::throttled || reason == Errc::cancelled;
}

}  // namespace

BlobWriter::BlobWriter(Store& store, std::shared_ptr<Blob> blob, std::uint64_t number,
                       std::unique_ptr<Store::Reservation> reservation, std::uint64_t on_disk_bytes,
                       std::vector<Catalog::Mark> marks)
    : store_(store),
      blob_(std::move(blob)),
      number_(number),
      reservation_(std::move(reservation)),
      on_disk_(on_disk_bytes),
      marks_(std::move(marks)),
      hasher_(blob_->digest().algorithm()) {
  store_.written_bytes_ += on_disk_;
}

BlobWriter::~BlobWriter() {
  if (!ended_)
    abandon({Errc::cancelled, "the transfer of " + blob_->digest().to_string() + " was given up"});
}

std::filesystem::path BlobWriter::partial() const {
  return store_.layout_.partial(blob_->digest(), number_);
}

asio::awaitable<void> BlobWriter::recover() {
  Hasher hasher(blob_->digest().algorithm());
  std::uint64_t done = 0;
  std::size_t borne_out = 0;
  std::string sentence;
  try {
    for (const Catalog::Mark& mark : marks_) {
      while (done < mark.offset_bytes) {
        const std::size_t n = co_await offload(store_.disk_pool_, [&] {
          static thread_local std::vector<char> piece(recover_step_bytes);
          const std::size_t wanted =
              std::min<std::uint64_t>(piece.size(), mark.offset_bytes - done);
          const std::size_t got =
              store_.disk_.read(blob_->file(), std::span(piece).first(wanted), done);
          hasher.update(std::span(piece).first(got));
          return got;
        });
        if (n == 0) break;
        done += n;
      }
      if (done != mark.offset_bytes || hasher.digest() != mark.prefix) {
        sentence = "its bytes are not those that were written";
        break;
      }
      ++borne_out;
      hasher_ = hasher;
      written_ = marked_ = mark.offset_bytes;
      blob_->grow(std::min(written_, *blob_->size_bytes() - 1));
    }
  } catch (const Failure& failure) {
    sentence = failure.what();
  }
  if (borne_out < marks_.size()) {
    store_.report_("partial blob damaged", blob_->digest().to_string() + ": " + sentence +
                                               "; it is fetched again from byte " +
                                               std::to_string(written_));
    store_.catalog_.cut_marks(blob_->digest(), borne_out);
  }
  marks_.clear();
}

asio::awaitable<void> BlobWriter::append(std::span<const char> bytes) {
  assert(!ended_);
  if (bytes.empty()) co_return;
  const std::uint64_t end = written_ + bytes.size();
  doubted_ = blob_->size_bytes() && end > *blob_->size_bytes();
  if (doubted_)
    throw Failure(Errc::upstream_nonsense,
                  "upstream sent more bytes for " + blob_->digest().to_string() + " than the " +
                      std::to_string(*blob_->size_bytes()) + " it announced");
  if (cost_bytes(end) > reservation_->bytes()) {
    const std::uint64_t more = std::max<std::uint64_t>(bytes.size(), reservation_step_bytes);
    co_await store_.make_room(cost_bytes(more));
    reservation_->grow(cost_bytes(more));
  }
  // Noted now and then, so that a transfer after a kill can go on from there.
  const bool marking = blob_->size_bytes() && end - marked_ >= store_.settings_.mark_every_bytes;
  std::optional<Digest> prefix;
  co_await store_.writing_or_evicting([&] {
    store_.disk_.write(blob_->file(), bytes, written_);
    hasher_.update(bytes);
    if (marking) prefix = hasher_.digest();
  });
  written_ = end;
  if (end > on_disk_) {
    store_.written_bytes_ += end - on_disk_;
    on_disk_ = end;
  }
  if (prefix) mark(*prefix);
  blob_->grow(written_ - 1);
}

void BlobWriter::mark(const Digest& prefix) {
  store_.catalog_.mark(blob_->digest(), number_, {.offset_bytes = written_, .prefix = prefix});
  marked_ = written_;
}

asio::awaitable<void> BlobWriter::commit() {
  assert(!ended_);
  const Digest& digest = blob_->digest();
  doubted_ = true;  // Until the digest has matched.
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
    co_await store_.publish(partial(), blob_->file(), ObjectKind::blob, digest);
  } catch (...) {  // Cancelled, too.
    // Readers that have it open go on from memory; nobody finds it again.
    store_.forget_open(digest);
    store_.catalog_.drop(digest);
    discard();
    throw;
  }
  leave();
  store_.catalog_.drop_partial(digest);
  store_.forget_open(digest);  // Of a file that could not be opened, and is replaced.
  store_.catalog_.add(digest, ObjectKind::blob, written_, true, store_.unix_now());
  store_.remember_open(blob_);
}

void BlobWriter::abandon(Error error) {
  if (ended_) return;
  ended_ = true;
  const bool worth_keeping = blob_->size_bytes() && !doubted_ &&
                             says_nothing_of_the_bytes(error.code) &&
                             written_ >= store_.settings_.least_kept_bytes && store_.writable();
  blob_->fail(std::move(error));
  if (worth_keeping) {
    keep();
  } else {
    discard();
  }
}

void BlobWriter::leave() {
  store_.growing_.erase(blob_->digest());
  store_.written_bytes_ -= on_disk_;
  reservation_.reset();
}

void BlobWriter::keep() {
  if (written_ > marked_) mark(hasher_.digest());
  leave();
  store_.keep_partial(blob_->digest(), {.number = number_,
                                        .bytes = cost_bytes(on_disk_),
                                        .left = store_.clock_.now(),
                                        .left_unix_seconds = store_.unix_now(),
                                        .blob = blob_});
}

void BlobWriter::discard() {
  leave();
  store_.catalog_.drop_partial(blob_->digest());
  if (!store_.reconciled_) store_.removed_.insert(blob_->digest());
  // Its space comes back when it is removed and no reader has it open any more.
  auto hold = store_.count_unlinked(cost_bytes(on_disk_));
  store_.close_on_pool(*blob_, hold);
  store_.remove_later(partial(), std::move(hold));
}

}  // namespace staithe::cache
