#include "proxy/auth/secret.h"

#include <openssl/crypto.h>

#include <cstring>
#include <utility>

#include "proxy/auth/secret_memory.h"

namespace staithe::proxy::auth {

Secret::Secret(std::string_view text) : Secret(text, {}) {}

Secret::Secret(std::string_view prefix, std::string_view text)
    : bytes_(allocate(prefix.size() + text.size())), size_bytes_(prefix.size() + text.size()) {
  if (!prefix.empty()) std::memcpy(bytes_, prefix.data(), prefix.size());
  if (!text.empty()) std::memcpy(bytes_ + prefix.size(), text.data(), text.size());
}

Secret Secret::take(std::string&& text) {
  Secret secret(text);
  wipe(text);
  return secret;
}

Secret::Secret(Secret&& other) noexcept
    : bytes_(std::exchange(other.bytes_, nullptr)),
      size_bytes_(std::exchange(other.size_bytes_, 0)) {}

Secret& Secret::operator=(Secret&& other) noexcept {
  if (this != &other) {
    release();
    bytes_ = std::exchange(other.bytes_, nullptr);
    size_bytes_ = std::exchange(other.size_bytes_, 0);
  }
  return *this;
}

Secret::~Secret() { release(); }

bool operator==(const Secret& a, const Secret& b) {
  return a.size_bytes_ == b.size_bytes_ &&
         (a.size_bytes_ == 0 || CRYPTO_memcmp(a.bytes_, b.bytes_, a.size_bytes_) == 0);
}

char* Secret::allocate(std::size_t size_bytes) {
  return size_bytes == 0 ? nullptr : SecretMemory::of_process().allocate(size_bytes);
}

void Secret::release() noexcept {
  if (!bytes_) return;
  SecretMemory::of_process().release(bytes_, size_bytes_);
  bytes_ = nullptr;
  size_bytes_ = 0;
}

void wipe(std::string& text) noexcept {
  // The capacity belongs to the string, so writing up to it allocates nothing.
  text.resize(text.capacity());
  OPENSSL_cleanse(text.data(), text.size());
  text.clear();
}

}  // namespace staithe::proxy::auth
