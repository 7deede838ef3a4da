#include "cache/blob_writer.h"

#include <algorithm>
#include <boost/asio/this_coro.hpp>
#include <cassert>
#include <exception>
#include <utility>

#include "cache/offload.h"

namespace staithe::cache {

namespace {

// Space asked for at a time while upstream does not say how large the blob is.
constexpr std::uint64_t reservation_step_bytes = 1024 * 1024;
// What comes ahead of its turn comes in short segments, and is marked as much more often.
constexpr std::uint64_t runs_per_mark = 4;
// One step of hashing what is on disk.
constexpr std::size_t read_step_bytes = 1024 * 1024;

// Upstream went away, or we are stopping: what came so far is as good as before.
bool says_nothing_of_the_bytes(Errc reason) {
  return reason == Errc::unreachable || reason == Errc::upstream_failed ||
         reason == Errc::throttled || reason == Errc::cancelled;
}

}  // namespace

class BlobWriter::Hashing {
 public:
  explicit Hashing(BlobWriter& writer) : writer_(writer) {
    assert(!writer_.hashing_);
    writer_.hashing_ = true;
  }
  Hashing(const Hashing&) = delete;
  Hashing& operator=(const Hashing&) = delete;
  ~Hashing() {
    writer_.hashing_ = false;
    writer_.changed_.notify_all();
    writer_.hash_line();
  }

 private:
  BlobWriter& writer_;
};

BlobWriter::BlobWriter(Store& store, std::shared_ptr<Blob> blob, std::uint64_t number,
                       std::unique_ptr<Store::Reservation> reservation, std::uint64_t on_disk_bytes,
                       std::vector<Catalog::Mark> marks)
    : store_(store),
      blob_(std::move(blob)),
      number_(number),
      reservation_(std::move(reservation)),
      on_disk_(on_disk_bytes),
      marks_(std::move(marks)),
      hasher_(blob_->digest().algorithm()),
      turns_(store.loop_),
      changed_(store.loop_) {
  store_.written_bytes_ += on_disk_;
}

BlobWriter::~BlobWriter() {
  if (!ended_)
    abandon({Errc::cancelled, "the transfer of " + blob_->digest().to_string() + " was given up"});
}

std::filesystem::path BlobWriter::partial() const {
  return store_.layout_.partial(blob_->digest(), number_);
}

asio::awaitable<bool> BlobWriter::read_through(Extent extent, Hasher& hasher) {
  for (std::uint64_t at = extent.begin; at < extent.end;) {
    const std::size_t n = co_await offload(store_.disk_pool_, [&] {
      static thread_local std::vector<char> piece(read_step_bytes);
      const std::size_t wanted = std::min<std::uint64_t>(piece.size(), extent.end - at);
      const std::size_t got = store_.disk_.read(blob_->file(), std::span(piece).first(wanted), at);
      hasher.update(std::span(piece).first(got));
      return got;
    });
    if (n == 0) co_return false;
    at += n;
  }
  co_return true;
}

asio::awaitable<void> BlobWriter::recover() {
  std::ranges::sort(marks_, {}, [](const Catalog::Mark& mark) {
    return std::pair(mark.extent.begin, mark.extent.end);
  });
  std::vector<Catalog::Mark> borne_out;
  Hasher from_start(blob_->digest().algorithm());
  std::uint64_t done = 0;   // of these
  bool start_lost = false;  // Behind damage no mark from the start can be good.
  std::string damage;
  for (const Catalog::Mark& mark : marks_) {
    const Extent extent = mark.extent;
    const bool first = extent.begin == 0;
    if (blob_->present().contains(extent) || (first && start_lost)) continue;
    bool good = false;
    try {
      Hasher of_part(blob_->digest().algorithm());
      Hasher& hasher = first ? from_start : of_part;
      // What stands at the start is hashed on from mark to mark.
      good = co_await read_through({first ? done : extent.begin, extent.end}, hasher) &&
             hasher.digest() == mark.content;
      if (!good) damage = "its bytes are not those that were written";
    } catch (const Failure& failure) {
      damage = failure.what();
    }
    if (first) {
      done = extent.end;
      start_lost = !good;
    }
    if (!good) continue;
    borne_out.push_back(mark);
    blob_->add(extent);
    written_ = blob_->present().bytes();
    if (first) {
      hasher_ = from_start;
      hashed_ = marked_ = line_end_ = extent.end;
    }
  }
  store_.catalog_.keep_marks(blob_->digest(), std::move(borne_out));
  if (!damage.empty())
    store_.report_("partial blob damaged", blob_->digest().to_string() + ": " + damage + "; " +
                                               std::to_string(*blob_->size_bytes() - written_) +
                                               " of its " + std::to_string(*blob_->size_bytes()) +
                                               " bytes are fetched again");
  marks_.clear();
}

asio::awaitable<void> BlobWriter::reserve(std::uint64_t end, std::uint64_t more) {
  if (cost_bytes(end) <= reservation_->bytes()) co_return;
  more = std::max<std::uint64_t>(more, reservation_step_bytes);
  co_await store_.make_room(cost_bytes(more));
  reservation_->grow(cost_bytes(more));
}

BlobWriter::Run BlobWriter::run_at(std::uint64_t offset) {
  auto run = runs_.extract(offset);
  return run ? std::move(run.mapped()) : Run{offset, Hasher(blob_->digest().algorithm())};
}

bool BlobWriter::marks_at(std::uint64_t from, std::uint64_t end, std::uint64_t every_bytes) const {
  return blob_->size_bytes() && end - from >= every_bytes;
}

asio::awaitable<void> BlobWriter::write(std::uint64_t offset, std::span<const char> bytes) {
  assert(!ended_);
  if (bytes.empty()) co_return;
  const Extent extent{offset, offset + bytes.size()};
  if (blob_->size_bytes() && extent.end > *blob_->size_bytes()) {
    doubted_ = true;
    throw Failure(Errc::upstream_nonsense,
                  "upstream sent more bytes for " + blob_->digest().to_string() + " than the " +
                      std::to_string(*blob_->size_bytes()) + " it announced");
  }
  co_await reserve(extent.end, bytes.size());
  const bool was_throwing = co_await asio::this_coro::throw_if_cancelled();
  co_await asio::this_coro::throw_if_cancelled(false);
  std::exception_ptr failed;
  try {
    co_await (in_order(offset) ? write_in_order(extent, bytes) : write_ahead(extent, bytes));
  } catch (...) {
    failed = std::current_exception();
  }
  co_await asio::this_coro::throw_if_cancelled(was_throwing);
  if (failed) std::rethrow_exception(failed);
}

asio::awaitable<void> BlobWriter::write_in_order(Extent extent, std::span<const char> bytes) {
  line_end_ = extent.end;
  runs_.erase(extent.begin);  // The order has caught up with it.
  line_.push_back({bytes, extent.end});
  hash_line();
  std::exception_ptr failed;
  try {
    const auto turn = co_await turns_.take();
    // Behind one that could not be written, nothing is of use.
    if (write_failed_) throw Failure(Errc::storage_failed, "what came before could not be written");
    co_await store_.writing_or_evicting(
        [&] { store_.disk_.write(blob_->file(), bytes, extent.begin); });
    note_written(extent);
  } catch (...) {
    doubted_ = write_failed_ = true;  // The hash is of more than the file holds.
    failed = std::current_exception();
  }
  while (hashed_ < extent.end) co_await changed_.wait();
  if (failed) std::rethrow_exception(failed);
}

asio::awaitable<void> BlobWriter::write_ahead(Extent extent, std::span<const char> bytes) {
  std::optional<Digest> content;  // Noted now and then, so that a transfer after a kill can go on.
  Run run = run_at(extent.begin);
  const bool marking =
      marks_at(run.begin, extent.end, store_.settings_.mark_every_bytes / runs_per_mark);
  co_await store_.writing_or_evicting([&] {
    store_.disk_.write(blob_->file(), bytes, extent.begin);
    run.hasher.update(bytes);
    if (marking) content = run.hasher.digest();
  });
  if (content) {
    mark({run.begin, extent.end}, *content);
  } else {
    runs_.emplace(extent.end, std::move(run));
  }
  note_written(extent);
}

void BlobWriter::hash_line() {
  if (hashing_ || line_.empty()) return;
  hashing_ = true;
  struct Batch {
    std::vector<Piece> pieces;
    bool marking;
    std::optional<Digest> content;
  };
  auto batch = std::make_unique<Batch>(std::exchange(line_, {}));
  batch->marking = marks_at(marked_, batch->pieces.back().end, store_.settings_.mark_every_bytes);
  // The writes that hold these bytes wait for it, and so it outlives nobody.
  asio::post(store_.disk_pool_, [this, loop = store_.loop_, batch = std::move(batch)]() mutable {
    for (const Piece& piece : batch->pieces) hasher_.update(piece.bytes);
    if (batch->marking) batch->content = hasher_.digest();
    asio::post(loop, [this, batch = std::move(batch)] {
      hashed_ = batch->pieces.back().end;
      if (batch->content) to_mark_ = {hashed_, *batch->content};
      mark_what_is_written();
      hashing_ = false;
      changed_.notify_all();
      hash_line();
    });
  });
}

void BlobWriter::mark_what_is_written() {
  if (!to_mark_ || written_bytes() < to_mark_->end) return;
  mark({0, to_mark_->end}, to_mark_->content);
  to_mark_.reset();
}

void BlobWriter::note_written(Extent extent) {
  written_ += extent.end - extent.begin;
  if (written_ > on_disk_) {
    store_.written_bytes_ += written_ - on_disk_;
    on_disk_ = written_;
  }
  blob_->add(extent);
  mark_what_is_written();
  changed_.notify_all();
  if (written_ - relieved_ < store_.settings_.begin_to_sync_every_bytes) return;
  relieved_ = written_;
  // What is not hashed yet may have to be read once more.
  store_.relieve_memory(blob_, blob_->readers() == 0 ? hashed_ : 0);
}

asio::awaitable<void> BlobWriter::hash_along() {
  while (!ended_ && hashed_ < blob_->size_bytes()) {
    if (hashing_ || !line_.empty() || blob_->present().end_of(hashed_) == hashed_) {
      co_await changed_.wait();
    } else {
      co_await hash_next();
    }
  }
}

asio::awaitable<void> BlobWriter::hash_next() {
  const Hashing hashing(*this);
  const std::uint64_t there = blob_->present().end_of(hashed_);
  const std::uint64_t end = std::min<std::uint64_t>(there, hashed_ + read_step_bytes);
  line_end_ = end;
  try {
    if (!co_await read_through({hashed_, end}, hasher_))
      throw Failure(Errc::storage_failed, "the disk does not give back what was written of " +
                                              blob_->digest().to_string());
  } catch (...) {  // Cancelled between two steps, too.
    doubted_ = true;
    throw;
  }
  hashed_ = end;
  if (marks_at(marked_, end, store_.settings_.mark_every_bytes)) mark({0, end}, hasher_.digest());
}

void BlobWriter::mark(Extent extent, const Digest& content) {
  store_.catalog_.mark(blob_->digest(), number_, {.extent = extent, .content = content});
  if (extent.begin == 0) marked_ = extent.end;
}

asio::awaitable<void> BlobWriter::commit() {
  assert(!ended_ && !hashing_);
  const Digest& digest = blob_->digest();
  doubted_ = true;  // Until the digest has matched.
  const std::uint64_t total = written_bytes();
  if (blob_->size_bytes() && total != *blob_->size_bytes())
    throw Failure(Errc::upstream_nonsense, "upstream sent " + std::to_string(total) + " of the " +
                                               std::to_string(*blob_->size_bytes()) + " bytes of " +
                                               digest.to_string());
  while (hashed_ < total) co_await hash_next();
  if (hasher_.digest() != digest)
    throw Failure(Errc::digest_invalid, "upstream sent bytes whose digest is " +
                                            hasher_.digest().to_string() + " for " +
                                            digest.to_string() + "; nothing of them is kept");
  // The bytes are right: readers need not wait for the disk to sync.
  blob_->finish(total);
  ended_ = true;
  try {
    co_await store_.publish(partial(), blob_->file(), ObjectKind::blob, digest);
    // Nobody has waited for it.
    if (!blob_->was_read())
      co_await offload(store_.disk_pool_, [&] { store_.disk_.let_go(blob_->file(), total); });
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
  store_.catalog_.add(digest, ObjectKind::blob, total, true, store_.unix_now());
  store_.remember_open(blob_);
}

void BlobWriter::abandon(Error error) {
  if (ended_) return;
  ended_ = true;
  // While it is being recovered, it is what it was when it was kept before.
  const bool much = written_ >= store_.settings_.least_kept_bytes || !marks_.empty();
  const bool worth_keeping = blob_->size_bytes() && !doubted_ && much &&
                             says_nothing_of_the_bytes(error.code) && store_.writable();
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
  if (hashed_ > marked_) mark({0, hashed_}, hasher_.digest());
  for (const auto& [end, run] : runs_)
    if (end > hashed_) mark({run.begin, end}, run.hasher.digest());
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
