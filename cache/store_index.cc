// The store and its index: read at the start, written behind.
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
    co_await write_index();
  }
}

asio::awaitable<void> Store::write_index() {
  // Two at once would end in the wrong order if the first of them fails.
  const auto turn = co_await index_turns_.take();
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
    co_await offload(index_pool_, [&] {
      if (!index_) index_ = std::make_unique<Index>(layout_.root());
      if (index_behind_) {
        index_->rewrite(changes);
      } else {
        index_->apply(changes);
      }
    });
    index_behind_ = false;
  } catch (const Failure& failure) {
    sentence = failure.what();
  }
  if (sentence.empty()) co_return;
  index_retry_ = clock_.now() + index_retry_interval;
  index_failure_ = sentence;
  if (std::exchange(index_behind_, true)) co_return;  // Told already.
  report_("index not written", sentence + "; pulls go on, the files are the truth meanwhile");
}

asio::awaitable<void> Store::write_index_durably() {
  index_retry_ = {};  // Somebody waits for it.
  co_await write_index();
  if (lost_) throw not_writable();
  if (index_behind_) throw Failure(Errc::storage_failed, index_failure_);
  co_await offload(index_pool_, [this] { index_->sync(); });
}

}  // namespace staithe::cache
