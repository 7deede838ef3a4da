// The store and its index: read at the start, written behind.
#include <algorithm>
#include <iterator>
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
  if (!sentence.empty()) report_("index set aside", sentence);
}

asio::awaitable<void> Store::keep_index_written() {
  for (;;) {
    co_await clock_.sleep_for(index_interval);
    co_await write_index();
  }
}

asio::awaitable<void> Store::write_index() {
  std::vector<Change> changes = catalog_.take_changes();
  if (lost_) {  // Whose index stands there now is not known.
    index_behind_ = true;
    co_return;
  }
  if (!index_behind_ && changes.empty()) co_return;
  if (index_behind_) {
    if (clock_.now() < index_retry_) co_return;
    changes = catalog_.everything();
  }
  std::string sentence;
  try {
    if (index_behind_) {
      co_await make_room(changes.size() * rewritten_bytes);
      index_bytes_ = co_await offload(index_pool_, [&] {
        if (!index_) index_ = std::make_unique<Index>(layout_.root());
        index_->rewrite(changes);
        return measure_index();
      });
    } else {
      co_await apply_in_batches(std::move(changes));
    }
    index_behind_ = false;
  } catch (const Failure& failure) {
    sentence = failure.what();
  }
  if (sentence.empty()) co_return;
  index_retry_ = clock_.now() + index_retry_interval;
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
  return bytes;
}

}  // namespace staithe::cache
