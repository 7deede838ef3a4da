#include "cache/blob.h"

#include <algorithm>
#include <cassert>

namespace staithe::cache {

Blob::Blob(asio::any_io_executor loop, Digest digest, File file,
           std::optional<std::uint64_t> size_bytes)
    : digest_(digest), file_(std::move(file)), size_bytes_(size_bytes), changed_(std::move(loop)) {}

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

asio::awaitable<std::uint64_t> Blob::wait_past(std::uint64_t offset, End end) {
  std::uint64_t ready = ready_from(offset, end);
  if (ready == offset && !whole_ && !error_ && on_wait_) on_wait_(offset);
  for (; ready == offset && !whole_ && !error_; ready = ready_from(offset, end))
    co_await changed_.wait();
  if (ready == offset && error_) throw Failure(*error_);
  co_return ready;
}

asio::awaitable<void> Blob::wait_whole() {
  while (!whole_ && !error_) co_await changed_.wait();
  if (error_) throw Failure(*error_);
}

void Blob::add(Extent extent) {
  assert(!whole_ && !error_);
  assert(!size_bytes_ || extent.end <= *size_bytes_);
  const std::uint64_t before = present_.bytes();
  present_.add(extent);
  if (present_.bytes() != before) changed_.notify_all();
}

void Blob::finish(std::uint64_t size_bytes) {
  assert(!whole_ && !error_);
  assert(!size_bytes_ || size_bytes == *size_bytes_);
  size_bytes_ = size_bytes;
  present_.add({0, size_bytes});
  whole_ = true;
  changed_.notify_all();
}

void Blob::fail(Error error) {
  assert(!whole_ && !error_);
  error_ = std::move(error);
  changed_.notify_all();
}

void Blob::condemn(Error error) {
  assert(whole_);
  whole_ = false;
  present_ = {};
  condemned_ = true;
  fail(std::move(error));
}

}  // namespace staithe::cache
