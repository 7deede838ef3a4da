// Where things stand in the cache directory, and nothing else:
//
//   lock                              held by the running daemon
//   index.db, index.db-wal, -shm      the index
//   blobs/sha256/ab/<hex>             a whole blob; its name is the digest of its bytes
//   manifests/sha256/ab/<hex>         media type, line feed, manifest
//   partial/<hex>.<n>                 being written, or kept to be gone on with; the rest is swept
//                                     at start
//   quarantine/<time>.<n>.<hex>       found damaged; kept for a look, the newest few
//
// Paths are built from parsed digests only, never from text of a request.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "cache/digest.h"
#include "cache/index.h"

namespace staithe::cache {

class Layout {
 public:
  explicit Layout(std::filesystem::path root) : root_(std::move(root)) {}

  const std::filesystem::path& root() const { return root_; }
  static constexpr std::array<std::string_view, 2> algorithm_names = {"sha256", "sha512"};
  // The root's own, down to the algorithms; each stands after the one that holds it.
  std::vector<std::filesystem::path> own_directories() const;
  std::filesystem::path lock() const { return root_ / "lock"; }
  std::filesystem::path partial() const { return root_ / "partial"; }
  std::filesystem::path quarantine() const { return root_ / "quarantine"; }
  std::filesystem::path kind(ObjectKind kind) const {
    return root_ / (kind == ObjectKind::blob ? "blobs" : "manifests");
  }
  std::filesystem::path algorithm(ObjectKind of, std::string_view name) const {
    return kind(of) / name;
  }
  // The directory of an object, two levels so that none grows beyond a few thousand entries.
  std::filesystem::path directory(ObjectKind of, const Digest& digest) const {
    return algorithm(of, digest.algorithm_name()) / digest.hex().substr(0, 2);
  }
  std::filesystem::path object(ObjectKind of, const Digest& digest) const {
    return directory(of, digest) / digest.hex();
  }
  std::filesystem::path partial(const Digest& digest, std::uint64_t number) const {
    return partial() / (digest.hex() + "." + std::to_string(number));
  }
  // The other way round; without a digest if the name is none of ours.
  struct PartialName {
    std::optional<Digest> digest;
    std::uint64_t number = 0;
  };
  static PartialName parse_partial(std::string_view name);
  // Beyond it a number is not ours, and the next one would not fit the index.
  static constexpr std::uint64_t max_partial_number = std::uint64_t{1} << 60;
  // In the order of their names the oldest comes first.
  std::filesystem::path quarantined(const Digest& digest, std::int64_t unix_seconds,
                                    std::uint64_t number) const {
    return quarantine() / (padded(unix_seconds, 12) + "." + padded(number, 6) + "." + digest.hex());
  }

 private:
  template <class Number>
  static std::string padded(Number number, std::size_t width) {
    const std::string digits = std::to_string(number);
    return std::string(width - std::min(width, digits.size()), '0') + digits;
  }

  std::filesystem::path root_;
};

}  // namespace staithe::cache
