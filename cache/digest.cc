#include "cache/digest.h"

#include <openssl/evp.h>

#include <cassert>
#include <cstring>
#include <new>

namespace staithe::cache {

namespace {

constexpr std::size_t size_of(Algorithm algorithm) {
  return algorithm == Algorithm::sha256 ? 32 : 64;
}

// The value of each hex digit, or 255. Upper case is outside the spec's grammar for the registered
// algorithms.
constexpr std::array<std::uint8_t, 256> hex_values = [] {
  std::array<std::uint8_t, 256> values{};
  values.fill(255);
  for (std::size_t i = 0; i < 10; ++i) values['0' + i] = static_cast<std::uint8_t>(i);
  for (std::size_t i = 0; i < 6; ++i) values['a' + i] = static_cast<std::uint8_t>(10 + i);
  return values;
}();

const EVP_MD* method(Algorithm algorithm) {
  return algorithm == Algorithm::sha256 ? EVP_sha256() : EVP_sha512();
}

}  // namespace

Result<Digest> Digest::parse(std::string_view text) {
  const std::size_t colon = text.find(':');
  if (colon == std::string_view::npos)
    return fail(Errc::digest_invalid,
                "a digest is written <algorithm>:<hex>, for instance sha256: and 64 hex digits");
  const std::string_view name = text.substr(0, colon);
  const std::string_view hex = text.substr(colon + 1);
  Digest digest;
  if (name == "sha256") {
    digest.algorithm_ = Algorithm::sha256;
  } else if (name == "sha512") {
    digest.algorithm_ = Algorithm::sha512;
  } else {
    return fail(Errc::digest_invalid, "the digest's algorithm is not sha256 or sha512");
  }
  const std::size_t size = size_of(digest.algorithm_);
  if (hex.size() != 2 * size)
    return fail(Errc::digest_invalid, "a " + std::string(name) + " digest has " +
                                          std::to_string(2 * size) + " hex digits, not " +
                                          std::to_string(hex.size()));
  unsigned worst = 0;
  for (std::size_t i = 0; i < size; ++i) {
    const unsigned high = hex_values[static_cast<unsigned char>(hex[2 * i])];
    const unsigned low = hex_values[static_cast<unsigned char>(hex[2 * i + 1])];
    worst |= high | low;
    digest.bytes_[i] = static_cast<std::byte>(high << 4 | low);
  }
  if (worst > 15) return fail(Errc::digest_invalid, "a digest has only the hex digits 0-9 and a-f");
  return digest;
}

Digest::Digest(Algorithm algorithm, std::span<const std::byte> bytes) : algorithm_(algorithm) {
  assert(bytes.size() == size_of(algorithm));
  std::memcpy(bytes_.data(), bytes.data(), bytes.size());
}

std::string_view Digest::algorithm_name() const {
  return algorithm_ == Algorithm::sha256 ? "sha256" : "sha512";
}

std::string Digest::hex() const {
  static constexpr char digits[] = "0123456789abcdef";
  std::string text;
  text.reserve(2 * size_of(algorithm_));
  for (std::size_t i = 0; i < size_of(algorithm_); ++i) {
    const auto value = std::to_integer<unsigned>(bytes_[i]);
    text += digits[value >> 4];
    text += digits[value & 15];
  }
  return text;
}

std::string Digest::to_string() const { return std::string(algorithm_name()) + ":" + hex(); }

std::size_t Digest::hash() const {
  std::size_t value;  // The bytes are already a hash; any eight of them do.
  std::memcpy(&value, bytes_.data(), sizeof value);
  return value;
}

void Hasher::Free::operator()(evp_md_ctx_st* context) const { EVP_MD_CTX_free(context); }

Hasher::Hasher(Algorithm algorithm) : algorithm_(algorithm), context_(EVP_MD_CTX_new()) {
  if (!context_ || EVP_DigestInit_ex(context_.get(), method(algorithm), nullptr) != 1)
    throw std::bad_alloc();  // The only way these can fail for a built-in algorithm.
}

Hasher::Hasher(const Hasher& other) : algorithm_(other.algorithm_), context_(EVP_MD_CTX_new()) {
  if (!context_ || EVP_MD_CTX_copy_ex(context_.get(), other.context_.get()) != 1)
    throw std::bad_alloc();
}

Hasher& Hasher::operator=(const Hasher& other) {
  if (this != &other) *this = Hasher(other);
  return *this;
}

Hasher::~Hasher() = default;

void Hasher::update(std::span<const char> bytes) {
  [[maybe_unused]] const int done = EVP_DigestUpdate(context_.get(), bytes.data(), bytes.size());
  assert(done == 1);
}

Digest Hasher::digest() const {
  const Hasher copy(*this);
  std::array<std::byte, EVP_MAX_MD_SIZE> bytes{};
  unsigned size = 0;
  [[maybe_unused]] const int done = EVP_DigestFinal_ex(
      copy.context_.get(), reinterpret_cast<unsigned char*>(bytes.data()), &size);
  assert(done == 1 && size == size_of(algorithm_));
  return Digest(algorithm_, std::span(bytes).first(size));
}

Digest digest_of(Algorithm algorithm, std::string_view bytes) {
  Hasher hasher(algorithm);
  hasher.update(bytes);
  return hasher.digest();
}

}  // namespace staithe::cache
