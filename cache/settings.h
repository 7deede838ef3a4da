// What the cache is told at start ([cache] of the configuration): checked values.
#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>

namespace staithe::cache {

// A bound given as bytes, or as a share of the filesystem that holds the cache.
struct Size {
  std::uint64_t bytes = 0;
  double share = 0;  // 0..1; used if greater than 0

  std::uint64_t of(std::uint64_t filesystem_bytes) const {
    return share > 0 ? static_cast<std::uint64_t>(share * static_cast<double>(filesystem_bytes))
                     : bytes;
  }
};

struct Settings {
  std::filesystem::path directory;
  Size max_size{.share = 0.80};
  Size min_free{.share = 0.05};
  // Each object is read and verified once in it; 0: never in the background.
  std::chrono::milliseconds scrub_interval = std::chrono::days(7);
};

}  // namespace staithe::cache
