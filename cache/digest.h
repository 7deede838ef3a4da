// Digests as the OCI image spec writes them ("sha256:<64 lower-case hex>"), and running hashes.
//
// The registered algorithms sha256 and sha512 are accepted, no others: a fixed list keeps one
// document from having two identities.
#pragma once

#include <array>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "cache/error.h"

struct evp_md_ctx_st;

namespace staithe::cache {

enum class Algorithm : std::uint8_t { sha256, sha512 };

// A value; cheap to copy and to compare.
class Digest {
 public:
  // Errc::digest_invalid with a sentence for a person if `text` is outside the grammar.
  static Result<Digest> parse(std::string_view text);
  // `bytes` is the raw hash: 32 bytes for sha256, 64 for sha512.
  Digest(Algorithm algorithm, std::span<const std::byte> bytes);

  Algorithm algorithm() const { return algorithm_; }
  std::string_view algorithm_name() const;
  std::string hex() const;
  std::string to_string() const;
  // For digests of real bytes. What a document only claims may be made to collide, thousands of it
  // at once, so such digests are collected in ordered sets.
  std::size_t hash() const;

  auto operator<=>(const Digest&) const = default;

 private:
  Digest() = default;
  Algorithm algorithm_ = Algorithm::sha256;
  std::array<std::byte, 64> bytes_{};  // sha256 leaves the second half zero
};

// A hash that grows with the bytes. Copyable: a copy goes on independently.
class Hasher {
 public:
  explicit Hasher(Algorithm algorithm);
  Hasher(const Hasher& other);
  Hasher& operator=(const Hasher& other);
  Hasher(Hasher&&) noexcept = default;
  Hasher& operator=(Hasher&&) noexcept = default;
  ~Hasher();

  void update(std::span<const char> bytes);
  // The digest of all bytes so far; the hasher may go on.
  Digest digest() const;

 private:
  struct Free {
    void operator()(evp_md_ctx_st* context) const;
  };
  Algorithm algorithm_;
  std::unique_ptr<evp_md_ctx_st, Free> context_;
};

Digest digest_of(Algorithm algorithm, std::string_view bytes);

}  // namespace staithe::cache

template <>
struct std::hash<staithe::cache::Digest> {
  std::size_t operator()(const staithe::cache::Digest& digest) const noexcept {
    return digest.hash();
  }
};
