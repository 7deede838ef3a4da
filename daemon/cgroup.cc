#include "daemon/cgroup.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include <deque>
#include <memory>

namespace staithe::daemon {

namespace {

// A node full of pods has a few thousand.
constexpr std::size_t most_directories = 20'000;

using Directory = std::unique_ptr<DIR, decltype([](DIR* directory) { ::closedir(directory); })>;

}  // namespace

std::filesystem::path cgroup_root() {
  const std::filesystem::path all = "/sys/fs/cgroup";
  struct statfs filesystem{};
  const bool is_second = ::statfs(all.c_str(), &filesystem) == 0 &&
                         filesystem.f_type == static_cast<long>(CGROUP2_SUPER_MAGIC);
  return is_second ? all : all / "unified";
}

// Breadth first: what people know by name stands near the root.
std::string cgroup_path(const std::filesystem::path& root, std::uint64_t id) {
  struct stat status{};
  if (::stat(root.c_str(), &status) != 0) return {};
  if (status.st_ino == id) return "/";
  std::deque<std::string> left{""};
  std::size_t seen = 0;
  while (!left.empty()) {
    const std::string above = std::move(left.front());
    left.pop_front();
    const Directory directory(::opendir((root.string() + above).c_str()));
    if (!directory) continue;  // it may have gone since
    while (const dirent* entry = ::readdir(directory.get())) {
      const std::string_view name = entry->d_name;
      if (entry->d_type != DT_DIR || name == "." || name == "..") continue;
      std::string path = above + "/" + std::string(name);
      // Of a directory in the file system of its parent, the entry's number is its inode's.
      if (entry->d_ino == id) return path;
      if (++seen == most_directories) return {};
      left.push_back(std::move(path));
    }
  }
  return {};
}

}  // namespace staithe::daemon
