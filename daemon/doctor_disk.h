// `staithe doctor`, the cache's disk: where it is, what it is, whether it takes a block now.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>

#include "cache/disk.h"
#include "daemon/doctor_step.h"

namespace staithe::daemon {

// What is seen of the cache's directory. `refused`: why it takes no block; empty if it does.
struct DiskFacts {
  std::filesystem::path directory;
  std::string filesystem;  // "ext4"; its number in hex where it has no name here
  cache::Space space;
  std::string refused = {};
  Errc refused_class = Errc::storage_failed;
};

// How the store fares there: of Store::Stats what matters here.
struct DiskUse {
  std::uint64_t bytes = 0;
  std::uint64_t max_bytes = 0;
  std::string mode;              // "read-write"
  std::string mode_reason = {};  // empty while it is that
};

// Writes, syncs and removes a file of 4 KiB in `directory`. Blocking: on the disk pool. Throws
// nothing.
DiskFacts examine_disk(cache::Disk& disk, const std::filesystem::path& directory);

// Pure: what to think of it. Without `use` the daemon is not there, and only the place is judged.
DoctorStep disk_step(const DiskFacts& facts, const DiskUse* use);

// Pure: the name of statfs()'s f_type.
std::string filesystem_name(std::uint64_t type);
// Empty if it cannot be told.
std::string filesystem_of(const std::filesystem::path& directory);

}  // namespace staithe::daemon
