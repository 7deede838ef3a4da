// Files of this machine or of a tree below a root, changed so that a crash leaves the old or the
// new one. Blocking; every failure is a Failure(Errc::storage_failed) that names path and cause.
#pragma once

#include <sys/types.h>

#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "daemon/setup.h"

namespace staithe::daemon {

struct FileOwner {
  mode_t mode = 0644;
  uid_t uid = 0;
  gid_t gid = 0;
  bool operator==(const FileOwner&) const = default;
};

struct FileState {
  std::string content;
  FileOwner owner;
};

// All paths are absolute, as the machine sees them.
class SetupDisk {
 public:
  // `root`: what stands for "/". `before_step` is called before each call that changes something,
  // with its name; a test throws from it what a crash would be.
  explicit SetupDisk(std::filesystem::path root,
                     std::function<void(std::string_view step)> before_step = {});

  // None if there is no such file; a Failure for what is not a regular file of at most
  // most_client_file_bytes, or stands outside the root.
  std::optional<FileState> read(const std::filesystem::path& path) const;
  // Replaces or creates: a new file beside it, synced, renamed. Extended attributes of a file that
  // is replaced (SELinux labels) go over to the new one.
  void write(const std::filesystem::path& path, std::string_view content,
             const FileOwner& owner) const;
  void remove(const std::filesystem::path& path) const;
  // What an interrupted write() has left beside the file.
  void remove_leftover(const std::filesystem::path& path) const;
  bool has_directory(const std::filesystem::path& path) const;
  // Only the last part; nothing if it is there.
  void make_directory(const std::filesystem::path& path, mode_t mode) const;
  // False if it has something in it. True if it is gone, also if it was before.
  bool remove_directory(const std::filesystem::path& path) const;
  std::vector<std::string> list(const std::filesystem::path& directory) const;

  // Where a path is for us.
  std::filesystem::path at(const std::filesystem::path& path) const;
  const std::filesystem::path& root() const { return root_; }

 private:
  void step(std::string_view name) const {
    if (before_step_) before_step_(name);
  }
  void sync_directory(const std::filesystem::path& path) const;

  std::filesystem::path root_;
  std::function<void(std::string_view)> before_step_;
};

// The machine as the planners see it: through the disk, and by running programs.
class RootMachine final : public Machine {
 public:
  // `search_path`: $PATH, for the running machine only; the usual directories are searched too.
  RootMachine(const SetupDisk& disk, std::string_view search_path);

  Result<std::optional<std::string>> read(const std::filesystem::path& path) const override;
  std::vector<std::string> list(const std::filesystem::path& directory) const override;
  std::filesystem::path find(std::string_view program) const override;
  std::optional<std::string> run(std::string_view program,
                                 const std::vector<std::string>& arguments,
                                 std::string_view input) const override;
  bool is_running() const override;

 private:
  const SetupDisk& disk_;
  std::string search_path_;
};

}  // namespace staithe::daemon
