#include "cache/blob.h"

#include <algorithm>
#include <cassert>
#include <utility>

namespace staithe::cache {

namespace {

// Far above what a wake-up costs, far below what anybody notices.
constexpr auto a_while = std::chrono::milliseconds(10);

}  // namespace

// Stands among the others for as long as it lives, or until it is woken.
class Blob::Waiter {
 public:
  Waiter(Blob& blob, std::uint64_t offset, End end, std::uint64_t enough)
      : blob_(blob), offset_(offset), end_(end), woken_(blob.loop_) {
    place_ = blob_.waiters_.emplace(enough, this);
  }
  ~Waiter() {
    if (place_) blob_.waiters_.erase(*place_);
  }
  Waiter(const Waiter&) = delete;
  Waiter& operator=(const Waiter&) = delete;

  asio::awaitable<void> wait() { return woken_.wait(); }
  // Bytes that it waits for may be read: all of them, or, `with_less`, some.
  bool served(bool with_less) const {
    const std::uint64_t ready = blob_.ready_from(offset_, end_);
    return with_less ? ready > offset_ : ready >= (*place_)->first;
  }
  // It takes what there is.
  void wake() {
    place_.reset();
    woken_.notify_all();
  }
  bool woken() const { return !place_; }

 private:
  Blob& blob_;
  std::uint64_t offset_;
  End end_;
  Event woken_;
  std::optional<Waiters::iterator> place_;
};

Blob::Blob(asio::any_io_executor loop, Digest digest, File file,
           std::optional<std::uint64_t> size_bytes)
    : digest_(digest),
      file_(std::move(file)),
      size_bytes_(size_bytes),
      loop_(loop),
      while_(loop),
      ended_(loop) {}

Blob::~Blob() {
  if (close_) close_(std::move(file_));
}

std::uint64_t Blob::ready_from(std::uint64_t offset, End end) const {
  const std::uint64_t there = present_.end_of(offset);
  if (whole_ || end == End::as_it_comes || there == offset) return there;
  // Of a blob whose size nobody has told, the last byte that came may be its end.
  const std::uint64_t held = size_bytes_.value_or(present_.all().back().end) - 1;
  return std::max(offset, std::min(there, held));
}

std::uint64_t Blob::enough(std::uint64_t offset, End end, std::uint64_t least_bytes) const {
  if (!size_bytes_) return offset + least_bytes;
  const std::uint64_t before_end = *size_bytes_ - (end == End::held_back ? 1 : 0);
  return std::max(offset + 1, std::min(offset + least_bytes, before_end));
}

asio::awaitable<std::uint64_t> Blob::wait_past(std::uint64_t offset, End end,
                                               std::uint64_t least_bytes) {
  assert(least_bytes > 0);
  std::uint64_t least = enough(offset, end, least_bytes);
  std::uint64_t ready = ready_from(offset, end);
  if (ready < least && !whole_ && !error_ && on_wait_) on_wait_(ready);
  for (; ready < least && !whole_ && !error_; ready = ready_from(offset, end)) {
    Waiter waiter(*this, offset, end, least);
    co_await waiter.wait();
    if (waiter.woken()) least = offset + 1;
  }
  if (ready <= offset && error_) throw Failure(*error_);
  co_return ready;
}

void Blob::wake(Waiters::iterator first, Waiters::iterator last, bool with_less) {
  while (first != last) {
    const auto it = first++;
    if (!it->second->served(with_less)) continue;
    it->second->wake();
    waiters_.erase(it);
  }
}

void Blob::wake_in_a_while() {
  if (in_a_while_ || waiters_.empty()) return;
  in_a_while_ = true;
  if (!alive_) alive_ = std::make_shared<Blob*>(this);
  while_.expires_after(a_while);
  while_.async_wait([blob = std::weak_ptr(alive_)](const boost::system::error_code&) {
    const auto alive = blob.lock();
    if (!alive) return;
    (*alive)->in_a_while_ = false;
    (*alive)->wake((*alive)->waiters_.begin(), (*alive)->waiters_.end(), true);
  });
}

void Blob::wake_all() {
  for (const auto& [enough, waiter] : std::exchange(waiters_, {})) waiter->wake();
  ended_.notify_all();
}

asio::awaitable<void> Blob::wait_whole() {
  while (!whole_ && !error_) co_await ended_.wait();
  if (error_) throw Failure(*error_);
}

void Blob::add(Extent extent) {
  assert(!whole_ && !error_);
  assert(!size_bytes_ || extent.end <= *size_bytes_);
  const std::uint64_t before = present_.bytes();
  present_.add(extent);
  if (present_.bytes() == before) return;
  // What comes behind a blob's last byte says that it is not the last, where nobody has told.
  const auto first = size_bytes_ ? waiters_.lower_bound(extent.begin) : waiters_.begin();
  wake(first, waiters_.upper_bound(present_.end_of(extent.begin)), false);
  wake_in_a_while();
}

void Blob::finish(std::uint64_t size_bytes) {
  assert(!whole_ && !error_);
  assert(!size_bytes_ || size_bytes == *size_bytes_);
  size_bytes_ = size_bytes;
  present_.add({0, size_bytes});
  whole_ = true;
  wake_all();
}

void Blob::fail(Error error) {
  assert(!whole_ && !error_);
  error_ = std::move(error);
  wake_all();
}

void Blob::condemn(Error error) {
  assert(whole_);
  whole_ = false;
  present_ = {};
  condemned_ = true;
  fail(std::move(error));
}

}  // namespace staithe::cache
