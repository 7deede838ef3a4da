#include "cache/blob.h"

#include <cassert>

namespace staithe::cache {

Blob::Blob(asio::any_io_executor loop, Digest digest, File file,
           std::optional<std::uint64_t> size_bytes)
    : digest_(digest), file_(std::move(file)), size_bytes_(size_bytes), changed_(std::move(loop)) {}

Blob::~Blob() {
  if (close_) close_(std::move(file_));
}

asio::awaitable<std::uint64_t> Blob::wait_past(std::uint64_t offset) {
  while (ready_bytes_ <= offset && !whole_ && !error_) co_await changed_.wait();
  if (ready_bytes_ <= offset && error_) throw Failure(*error_);
  co_return ready_bytes_;
}

asio::awaitable<void> Blob::wait_whole() {
  while (!whole_ && !error_) co_await changed_.wait();
  if (error_) throw Failure(*error_);
}

void Blob::grow(std::uint64_t ready_bytes) {
  assert(!whole_ && !error_);
  assert(ready_bytes >= ready_bytes_);
  assert(!size_bytes_ || ready_bytes < *size_bytes_);
  if (ready_bytes == ready_bytes_) return;
  ready_bytes_ = ready_bytes;
  changed_.notify_all();
}

void Blob::finish(std::uint64_t size_bytes) {
  assert(!whole_ && !error_);
  assert(!size_bytes_ || size_bytes == *size_bytes_);
  size_bytes_ = size_bytes;
  ready_bytes_ = size_bytes;
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
  ready_bytes_ = 0;
  fail(std::move(error));
}

}  // namespace staithe::cache
