// The store's mode: what it can do at the moment, why, and how it finds back.
#include <sys/stat.h>

#include <cerrno>
#include <utility>

#include "cache/store.h"

namespace staithe::cache {

namespace {

// A single failed sync or write costs its own file. After this many in a row, without a good one
// between, writing is given up until a probe succeeds: each try costs a whole transfer.
constexpr std::size_t most_failed_writes = 3;

}  // namespace

void Store::note_failed_write(const Failure& failure) {
  ++failed_writes_;
  failed_write_ = failure.what();
  judge_mode();
}

void Store::note_good_write() {
  failed_writes_ = 0;
  judge_mode();
}

bool Store::writable() const {
  return !lost_ && !space_.read_only && failed_writes_ < most_failed_writes;
}

Failure Store::not_writable() {
  judge_mode();  // A thread of the pool may just have found the directory gone.
  return {Errc::storage_failed, mode_reason_};
}

void Store::judge_mode() {
  const std::string directory = "the cache directory " + layout_.root().string();
  Mode mode = Mode::pass_through;
  std::string reason;
  if (lost_) {
    reason = directory +
             " or the lock in it was removed or replaced while it was in use, so it is neither "
             "read nor written: put it back, or restart staithed to use what is there now";
  } else if (space_.read_only) {
    mode = Mode::read_only;
    reason = "the file system of " + directory +
             " is read-only; what is cached is served: mount it for writing";
  } else if (failed_writes_ >= most_failed_writes) {
    reason = failed_write_ + "; what is cached is served, and writing is tried every few seconds";
  } else if (used_bytes() - index_bytes_ - directory_bytes_ + space_.free_bytes <
             budget_.min_free_bytes + block_bytes) {  // Index and directories go for no blob.
    reason = "others have filled the file system of " + directory + ", which has " +
             std::to_string(space_.free_bytes) +
             " bytes free: free some of it, or lower cache.min_free";
  } else {
    mode = Mode::read_write;
  }
  mode_reason_ = std::move(reason);
  if (lost_ && on_gone_) on_gone_(nullptr, false);
  if (std::exchange(mode_, mode) == mode) return;
  report_("cache mode", std::string(to_string(mode)) + ": " +
                            (mode == Mode::read_write ? "the cache is whole again" : mode_reason_));
}

asio::awaitable<void> Store::try_writing() {
  if (lost_ || space_.read_only || failed_writes_ < most_failed_writes) co_return;
  // A block is written if the bounds have room for it without anything having to go.
  const std::uint64_t allowed = allowed_bytes(budget_, used_bytes(), space_.free_bytes);
  const bool room = used_bytes() + reserved_bytes_ - written_bytes_ + block_bytes <= allowed;
  const Reservation reservation(*this, room ? block_bytes : 0);
  try {
    co_await offload(disk_pool_, [&] {
      if (!in_place()) return;
      // Somebody may have emptied it.
      make_own_directories();
      const auto probe = layout_.partial() / "probe";
      disk_.remove(probe);
      try {
        const File file = disk_.create(probe);
        if (room) disk_.write(file, std::string(block_bytes, '\0'), 0);
        disk_.sync(file);
      } catch (const Failure&) {
        remove_quietly(disk_, probe);
        throw;
      }
      disk_.remove(probe);
    });
    for (auto& [path, directory] : directories_) directory.durable = false;
    note_good_write();
  } catch (const Failure& failure) {
    failed_write_ = failure.what();
    judge_mode();
  }
}

bool Store::in_place() {
  const auto stands = [](const std::filesystem::path& path, const Place& place) {
    struct stat status{};
    if (::lstat(path.c_str(), &status) == 0)
      return place == Place{.device = status.st_dev, .inode = status.st_ino};
    return errno != ENOENT && errno != ENOTDIR;  // A disk that fails has not moved it away.
  };
  lost_ = !(stands(layout_.root(), root_place_) && stands(layout_.lock(), lock_place_));
  return !lost_;
}

const char* to_string(Store::Mode mode) {
  switch (mode) {
    case Store::Mode::read_write:
      return "read-write";
    case Store::Mode::pass_through:
      return "pass-through";
    case Store::Mode::read_only:
      return "read-only";
  }
  return "";
}

}  // namespace staithe::cache
