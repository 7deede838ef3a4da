// The file system, as narrow as the store needs it, so that a test can play a disk that fails,
// fills up or forgets what was not synced.
//
// Every call blocks: use them on the disk pool. Failures throw Failure(storage_full) for no space,
// no inodes or quota, else Failure(storage_failed); the sentence names the path and the cause. No
// call follows a symbolic link in the last component of a path.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <utility>

#include "cache/error.h"

namespace staithe::cache {

// An open file; closes itself.
class File {
 public:
  File() = default;
  explicit File(int fd) : fd_(fd) {}
  File(File&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  File& operator=(File&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~File();

  int fd() const { return fd_; }
  explicit operator bool() const { return fd_ >= 0; }

 private:
  int fd_ = -1;
};

struct Space {
  std::uint64_t total_bytes = 0;
  std::uint64_t free_bytes = 0;  // to an unprivileged process
  bool read_only = false;        // mounted so, or turned so by the kernel after an error
};

class Disk {
 public:
  virtual ~Disk() = default;

  // An existing regular file for reading; a File without descriptor if there is none.
  virtual File open(const std::filesystem::path& path) = 0;
  // A new file for reading and writing, mode 0600; fails if the name exists.
  virtual File create(const std::filesystem::path& path) = 0;
  // An existing regular file for reading and writing; a File without descriptor if there is none.
  virtual File reopen(const std::filesystem::path& path) = 0;
  virtual std::uint64_t size(const File& file) = 0;
  // What a file or directory takes of the disk; 0 if there is none.
  virtual std::uint64_t allocated(const std::filesystem::path& path) = 0;
  // Has the file system set aside what the first `bytes` of the file take, without changing the
  // file's size. False if it cannot do that.
  virtual bool preallocate(const File& file, std::uint64_t bytes) = 0;

  // All of `bytes` at `offset`.
  virtual void write(const File& file, std::span<const char> bytes, std::uint64_t offset) = 0;
  // Up to `bytes.size()` bytes from `offset`; fewer only at the end of the file.
  virtual std::size_t read(const File& file, std::span<char> bytes, std::uint64_t offset) = 0;
  // The same for bytes that nobody is expected to want again soon: what of them was not in memory
  // before is not kept there, so that it does not take the place of what others read.
  virtual std::size_t read_once(const File& file, std::span<char> bytes, std::uint64_t offset) {
    return read(file, bytes, offset);
  }

  // Hints, both, so they fail silently and may do nothing. What of the file is not on the disk yet
  // begins to go there, so that less is left for sync().
  virtual void begin_to_sync(const File&) {}
  // Nobody is expected to want the first `bytes` soon: what of them is on the disk goes from
  // memory.
  virtual void let_go(const File&, std::uint64_t /*bytes*/) {}

  // Never called again for a file for which it failed: the kernel forgets the error.
  virtual void sync(const File& file) = 0;
  virtual void sync_directory(const std::filesystem::path& directory) = 0;

  virtual void rename(const std::filesystem::path& from, const std::filesystem::path& to) = 0;
  // False if there was no such file.
  virtual bool remove(const std::filesystem::path& path) = 0;
  // Creates the last component with mode 0700 if it is missing; true if it did.
  virtual bool make_directory(const std::filesystem::path& path) = 0;
  // Calls `visit(name, size_bytes)` for each regular file directly in `directory`; for none if
  // there is no such directory.
  virtual void list(const std::filesystem::path& directory,
                    const std::function<void(const std::string&, std::uint64_t)>& visit) = 0;
  virtual Space space(const std::filesystem::path& path) = 0;
};

// For a file that is of no use any more; true if it is gone. The sweep at start finds what a
// failure leaves.
bool remove_quietly(Disk& disk, const std::filesystem::path& path);
// The same, but true if there is no such file: a read-only disk refuses to remove that, too.
bool take_away(Disk& disk, const std::filesystem::path& path);

// The machine's own.
class PosixDisk final : public Disk {
 public:
  File open(const std::filesystem::path& path) override;
  File create(const std::filesystem::path& path) override;
  File reopen(const std::filesystem::path& path) override;
  std::uint64_t size(const File& file) override;
  std::uint64_t allocated(const std::filesystem::path& path) override;
  bool preallocate(const File& file, std::uint64_t bytes) override;
  void write(const File& file, std::span<const char> bytes, std::uint64_t offset) override;
  std::size_t read(const File& file, std::span<char> bytes, std::uint64_t offset) override;
  std::size_t read_once(const File& file, std::span<char> bytes, std::uint64_t offset) override;
  void begin_to_sync(const File& file) override;
  void let_go(const File& file, std::uint64_t bytes) override;
  void sync(const File& file) override;
  void sync_directory(const std::filesystem::path& directory) override;
  void rename(const std::filesystem::path& from, const std::filesystem::path& to) override;
  bool remove(const std::filesystem::path& path) override;
  bool make_directory(const std::filesystem::path& path) override;
  void list(const std::filesystem::path& directory,
            const std::function<void(const std::string&, std::uint64_t)>& visit) override;
  Space space(const std::filesystem::path& path) override;
};

}  // namespace staithe::cache
