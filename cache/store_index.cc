// The store and its index: read at the start, written behind.
#include <algorithm>
#include <boost/asio/post.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <iterator>
#include <span>
#include <utility>

#include "cache/offload.h"
#include "cache/store.h"

namespace staithe::cache {

namespace {

using namespace std::chrono_literals;

// How much of the order of use a kill may lose; a commit of the index takes about 20 us.
constexpr auto index_interval = 1s;
// After a failure the whole index is to be written, which is seconds of work for 100,000 blobs.
constexpr auto index_retry_interval = 10s;
// Changes in one transaction: its log stays small, so the bounds hold meanwhile.
constexpr std::size_t changes_at_once = 64;
// What a row takes in a new index and in its log together: some 150 bytes in either, in pages that
// are two thirds full.
constexpr std::uint64_t rewritten_bytes = 512;
// What is looked at before the loop serves others: a millisecond or two.
constexpr std::size_t objects_at_once = 2048;

}  // namespace

asio::awaitable<void> Store::load_index() {
  std::string sentence;
  try {
    co_await offload(index_pool_, [&] {
      auto index = std::make_unique<Index>(layout_.root());
      Index::Contents contents = index->load();
      index_behind_ = contents.incomplete;
      catalog_.restore(std::move(contents));  // Nobody else has the catalog yet.
      index_ = std::move(index);
      index_bytes_ = measure_index();  // The loop waits.
    });
    if (index_behind_)
      sentence = index_->set_aside() +
                 "; it is kept as index.db.set-aside and a new one is built from the blobs";
  } catch (const Failure& failure) {
    index_behind_ = true;
    index_retry_ = clock_.now() + index_retry_interval;
    sentence = std::string(failure.what()) +
               "; it is built from the blobs and written as soon as that works";
  }
  index_failure_ = sentence;
  if (!sentence.empty()) report_("index set aside", sentence);
}

asio::awaitable<void> Store::keep_index_written() {
  for (;;) {
    co_await clock_.sleep_for(index_interval);
    // A stop waits for the batches that have been taken from the catalog: they come only once.
    co_await asio::this_coro::throw_if_cancelled(false);
    co_await write_index();
    co_await asio::this_coro::throw_if_cancelled(true);
  }
}

// What the index is to be told, gathered in steps, since for 100,000 objects it takes long.
asio::awaitable<std::vector<Change>> Store::changes_for_index() {
  std::vector<Change> changes;
  if (index_behind_) {
    // What is noted so far is among everything; what is noted meanwhile follows with the next
    // writing.
    while (catalog_.has_changes()) {
      catalog_.take_changes(objects_at_once);
      co_await asio::post(loop_, asio::use_awaitable);
    }
    const std::vector<Digest> digests = catalog_.digests();
    changes.reserve(digests.size());
    for (std::size_t i = 0; i < digests.size(); i += objects_at_once) {
      co_await asio::post(loop_, asio::use_awaitable);
      const std::span rest = std::span(digests).subspan(i);
      catalog_.add_objects(rest.first(std::min(rest.size(), objects_at_once)), changes);
    }
    catalog_.add_others(changes);
    co_return changes;
  }
  changes = catalog_.take_changes(objects_at_once);
  try {
    while (catalog_.has_changes()) {
      co_await asio::post(loop_, asio::use_awaitable);
      std::ranges::move(catalog_.take_changes(objects_at_once), std::back_inserter(changes));
    }
  } catch (...) {  // We are stopping, and what was taken is lost.
    index_behind_ = true;
    throw;
  }
  co_return changes;
}

asio::awaitable<void> Store::write_index() {
  // Two at once would end in the wrong order if the first of them fails.
  const auto turn = co_await index_turns_.take();
  if (lost_) {  // Whose index stands there now is not known.
    catalog_.forget_changes();
    index_behind_ = true;
    co_return;
  }
  if (!index_behind_ && !catalog_.has_changes()) co_return;
  if (index_behind_ && clock_.now() < index_retry_) {
    catalog_.forget_changes();
    co_return;
  }
  std::vector<Change> changes = co_await changes_for_index();
  std::string sentence;
  try {
    if (index_behind_) {
      if (own_growth_bytes() > 0) co_await make_room(changes.size() * rewritten_bytes);
      index_bytes_ = co_await offload(index_pool_, [&] {
        const std::vector<Change> taken = std::move(changes);  // freed here, not on the loop
        if (!index_) index_ = std::make_unique<Index>(layout_.root());
        index_->rewrite(taken);
        return measure_index();
      });
    } else {
      co_await apply_in_batches(std::move(changes));
    }
    index_behind_ = false;
  } catch (const Failure& failure) {
    sentence = failure.what();
  } catch (...) {  // We are stopping, and what was taken is lost.
    index_behind_ = true;
    throw;
  }
  if (sentence.empty()) co_return;
  index_retry_ = clock_.now() + index_retry_interval;
  index_failure_ = sentence;
  if (std::exchange(index_behind_, true)) co_return;  // Told already.
  report_("index not written", sentence + "; pulls go on, the files are the truth meanwhile");
}

asio::awaitable<void> Store::apply_in_batches(std::vector<Change> changes) {
  for (auto first = changes.begin(); first != changes.end();) {
    const auto left = static_cast<std::size_t>(changes.end() - first);
    const auto last = first + static_cast<std::ptrdiff_t>(std::min(left, changes_at_once));
    const std::vector<Change> batch(std::make_move_iterator(first), std::make_move_iterator(last));
    first = last;
    index_bytes_ = co_await offload(index_pool_, [&] {
      index_->apply(batch);
      return measure_index();
    });
    // What it has grown by is room that the next batch lacks.
    if (used_bytes() + own_growth_bytes() > allowed_bytes(budget_, used_bytes(), space_.free_bytes))
      co_await shrink();
  }
}

std::uint64_t Store::measure_index() const {
  std::uint64_t bytes = 0;
  for (const char* name : Index::file_names) bytes += allocated_or(layout_.root() / name, 0);
  bytes += allocated_or(layout_.pins(), 0);
  return bytes;
}

asio::awaitable<void> Store::write_index_durably() {
  index_retry_ = {};  // Somebody waits for it.
  co_await write_index();
  if (lost_) throw not_writable();
  if (index_behind_) throw Failure(Errc::storage_failed, index_failure_);
  co_await offload(index_pool_, [this] { index_->sync(); });
}

}  // namespace staithe::cache
