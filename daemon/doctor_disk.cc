#include "daemon/doctor_disk.h"

#include <sys/vfs.h>

#include <array>
#include <cstdio>
#include <string>

#include "cache/escape.h"
#include "daemon/terminal.h"

namespace staithe::daemon {
namespace {

constexpr std::size_t block_bytes = 4096;
// Less holds hardly an image.
constexpr std::uint64_t least_useful_bytes = std::uint64_t{1} << 30;

struct Filesystem {
  std::uint64_t type;
  std::string_view name;
};
// Of linux/magic.h and the file systems' own sources.
constexpr std::array filesystems = {
    Filesystem{0xef53, "ext4"},      Filesystem{0x58465342, "xfs"},
    Filesystem{0x9123683e, "btrfs"}, Filesystem{0x2fc12fc1, "zfs"},
    Filesystem{0xf2f52010, "f2fs"},  Filesystem{0x01021994, "tmpfs"},
    Filesystem{0x858458f6, "ramfs"}, Filesystem{0x794c7630, "overlay"},
    Filesystem{0x6969, "nfs"},       Filesystem{0xff534d42, "cifs"},
    Filesystem{0xfe534d42, "smb"},   Filesystem{0x65735546, "fuse"},
    Filesystem{0x00c36400, "ceph"},  Filesystem{0xca451a4e, "bcachefs"},
    Filesystem{0x01021997, "9p"},
};

// Why a cache there is not what its operator wants; empty if it may be.
std::string_view doubt(std::string_view name) {
  if (name == "tmpfs" || name == "ramfs")
    return "it is memory: the cache is gone after a restart, and takes what programs need";
  if (name == "overlay")
    return "it is the writable layer of a container: the cache goes with the container";
  if (name == "nfs" || name == "cifs" || name == "smb" || name == "9p" || name == "ceph")
    return "it is on the network: hits are as slow and as often away as that is";
  return {};
}

std::string bytes(std::uint64_t number) { return show_bytes(static_cast<double>(number)); }

std::string mend_of_refusal(const DiskFacts& facts) {
  const std::string where = printable(facts.directory.native(), 200);
  if (facts.space.read_only)
    return "mount it for writing (mount -o remount,rw, after a look at dmesg: the kernel makes a "
           "broken file system read-only), or set cache.directory to another place";
  if (facts.refused_class == Errc::storage_full)
    return "make room on that file system (df -h " + where + "; df -i " + where +
           "), or lower cache.max_size and raise cache.min_free";
  return "the directory must belong to the user that staithed runs as: ls -ld " + where +
         "; see dmesg for errors of the disk";
}

}  // namespace

std::string filesystem_name(std::uint64_t type) {
  for (const Filesystem& one : filesystems)
    if (one.type == type) return std::string(one.name);
  char text[32];
  std::snprintf(text, sizeof text, "0x%llx", static_cast<unsigned long long>(type));
  return text;
}

std::string filesystem_of(const std::filesystem::path& directory) {
  struct statfs found{};
  if (::statfs(directory.c_str(), &found) != 0) return {};
  return filesystem_name(static_cast<std::uint32_t>(found.f_type));
}

DiskFacts examine_disk(cache::Disk& disk, const std::filesystem::path& directory) {
  DiskFacts facts{.directory = directory, .filesystem = filesystem_of(directory), .space = {}};
  const std::filesystem::path probe = directory / ".doctor";
  bool made = false;
  try {
    facts.space = disk.space(directory);
    disk.remove(probe);  // Of a diagnosis that was killed.
    const cache::File file = disk.create(probe);
    made = true;
    const std::string block(block_bytes, '\xa5');
    disk.write(file, block, 0);
    disk.sync(file);
  } catch (const Failure& failure) {
    facts.refused = failure.error().detail;
    facts.refused_class = failure.code();
  }
  if (made) cache::remove_quietly(disk, probe);
  return facts;
}

DoctorStep disk_step(const DiskFacts& facts, const DiskUse* use) {
  DoctorStep step{
      .step = "disk", .subject = printable(facts.directory.native(), 200), .finding = {}};
  std::string place = facts.filesystem.empty() ? std::string() : facts.filesystem + ", ";
  place += bytes(facts.space.free_bytes) + " of " + bytes(facts.space.total_bytes) + " free";
  if (!facts.refused.empty()) {
    step.state = StepState::failed;
    step.finding = place + ": " + facts.refused;
    step.mend = mend_of_refusal(facts);
    step.error_class = to_string(facts.refused_class);
    return step;
  }
  step.finding = place;
  if (facts.space.read_only) {
    step.state = StepState::failed;
    step.finding += ": it is mounted read-only";
    step.mend = mend_of_refusal(facts);
    step.error_class = to_string(Errc::storage_failed);
    return step;
  }
  if (use) {
    step.tried = "a file of 4 KiB written, synced and removed";
    step.finding += "; the cache has " + bytes(use->bytes) + " and may have " +
                    bytes(use->max_bytes) + ", " + use->mode;
    if (!use->mode_reason.empty()) {
      step.state = StepState::failed;
      step.finding += ": " + use->mode_reason;
      step.mend = mend_of_refusal(facts);
      step.error_class = to_string(Errc::storage_failed);
      return step;
    }
    if (use->max_bytes < least_useful_bytes) {
      step.state = StepState::warning;
      step.finding += ": that is less than most images have";
      step.mend = "raise cache.max_size, lower cache.min_free, or make room on that file system";
      return step;
    }
  }
  if (const std::string_view why = doubt(facts.filesystem); !why.empty()) {
    step.state = StepState::warning;
    step.finding += "; " + std::string(why);
    step.mend = "set cache.directory to a local disk";
  }
  return step;
}

}  // namespace staithe::daemon
