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
  // How much of a transfer a kill may cost: after each so many bytes their digest is noted. A note
  // is a row of some 200 bytes, so a blob of 10 GiB has 640 of them, 125 KiB.
  std::uint64_t mark_every_bytes = std::uint64_t{16} << 20;
  // A transfer that broke off before that begins anew: a request to ask costs as much.
  std::uint64_t least_kept_bytes = std::uint64_t{1} << 20;
  // After each so many bytes of a blob the disk is told to begin with them, so that the sync at its
  // end has no more than about this to wait for; the kernel by itself waits until a tenth of the
  // memory is not on the disk.
  std::uint64_t begin_to_sync_every_bytes = std::uint64_t{32} << 20;
  // Each object is read and verified once in it; 0: never in the background.
  std::chrono::milliseconds scrub_interval = std::chrono::days(7);
};

}  // namespace staithe::cache
