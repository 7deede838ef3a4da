// Which control group a number stands for: the kernel names the one that a socket was made in by
// the inode of its directory, people know it by its path ("/system.slice/nomad.service").
//
// For log lines and the status alone. Blocking, within bounds.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

namespace staithe::daemon {

// Where the control groups of version 2 are mounted, as systemd does it: /sys/fs/cgroup, or, beside
// those of version 1, "unified" in it.
std::filesystem::path cgroup_root();

// The path below `root`, with "/" in front ("/" is the root itself); empty if there is no such
// directory, or it is not found among the first 20,000.
std::string cgroup_path(const std::filesystem::path& root, std::uint64_t id);

}  // namespace staithe::daemon
