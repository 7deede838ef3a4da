// `staithe doctor`, the cache's disk: where it is, what it is, whether it takes a block now.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>

#include "cache/disk.h"
#include "cache/store.h"
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

// Writes, syncs and removes a file of 4 KiB in `directory`. Blocking: on the disk pool. Throws
// nothing.
DiskFacts examine_disk(cache::Disk& disk, const std::filesystem::path& directory);

// Pure: what to think of it. Without `stats` the daemon is not there, and only the place is judged.
DoctorStep disk_step(const DiskFacts& facts, const cache::Store::Stats* stats);

// Pure: the name of statfs()'s f_type.
std::string filesystem_name(std::uint64_t type);
// Empty if it cannot be told.
std::string filesystem_of(const std::filesystem::path& directory);

}  // namespace staithe::daemon
