// The store's start: the directory is made its own, and what the index says is compared with what
// stands on disk.
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <boost/asio/post.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <cerrno>
#include <utility>

#include "cache/eviction.h"
#include "cache/offload.h"
#include "cache/store.h"

namespace staithe::cache {

namespace {

// Of the 256 directories of one kind, how many are listed in one step of a start.
constexpr unsigned listed_at_once = 16;
// How many objects are looked at before the loop serves others.
constexpr std::size_t objects_at_once = 2048;

std::string hex_byte(unsigned value) {
  static constexpr char digits[] = "0123456789abcdef";
  return {digits[value >> 4], digits[value & 15]};
}

}  // namespace

std::vector<std::string> Store::take_directory() {
  struct stat status{};
  // No link is followed but the one that systemd makes, as root, for a DynamicUser= with a
  // CacheDirectory= (systemd.exec: the directory itself is below /var/cache/private).
  if (::lstat(layout_.root().c_str(), &status) == 0 && S_ISLNK(status.st_mode) &&
      status.st_uid == 0 && ::geteuid() != 0) {
    std::error_code dangling;
    const auto target = std::filesystem::canonical(layout_.root(), dangling);
    if (!dangling) layout_ = Layout(target);
  }
  const auto& root = layout_.root();
  std::error_code error;
  if (root.has_parent_path()) std::filesystem::create_directories(root.parent_path(), error);
  const bool created = disk_.make_directory(root);
  if (::lstat(root.c_str(), &status) != 0)
    throw Failure(Errc::storage_failed, "cannot look at the cache directory " + root.string() +
                                            ": " + describe_errno(errno));
  if (!S_ISDIR(status.st_mode))
    throw Failure(Errc::storage_failed, "the cache directory " + root.string() +
                                            " is not a directory: name another in cache.directory");
  if (status.st_uid != ::geteuid())
    throw Failure(Errc::storage_failed,
                  "the cache directory " + root.string() + " belongs to uid " +
                      std::to_string(status.st_uid) + ", not to this daemon's uid " +
                      std::to_string(::geteuid()) + ": give it to the daemon or name another");
  if ((status.st_mode & (S_IWGRP | S_IWOTH)) != 0)
    throw Failure(Errc::storage_failed, "others may write to the cache directory " + root.string() +
                                            ": run chmod 0700 " + root.string());

  // Opened for reading, since a disk that has turned read-only can still be served from.
  lock_ = File(::open(layout_.lock().c_str(),
                      O_RDONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, S_IRUSR | S_IWUSR));
  if (!lock_)
    throw Failure(Errc::storage_failed,
                  "cannot open " + layout_.lock().string() + ": " + describe_errno(errno));
  const bool locked = ::flock(lock_.fd(), LOCK_EX | LOCK_NB) == 0;
  if (!locked && errno != EWOULDBLOCK)
    throw Failure(Errc::storage_failed,
                  "cannot lock " + layout_.lock().string() + ": " + describe_errno(errno));
  if (!locked)
    throw Failure(Errc::in_use, "the cache directory " + root.string() +
                                    " is in use by another staithed: stop that one, or give this "
                                    "one another cache.directory");
  root_place_ = {.device = status.st_dev, .inode = status.st_ino};
  if (::fstat(lock_.fd(), &status) == 0)
    lock_place_ = {.device = status.st_dev, .inode = status.st_ino};

  std::vector<std::string> faults;
  const auto try_to = [&](const auto& work) {
    try {
      work();
    } catch (const Failure& failure) {
      faults.emplace_back(failure.what());
    }
  };
  for (const auto& directory : layout_.own_directories())
    try_to([&] { make_own_directory(directory); });
  // What is stored in them is lost with a directory that power loss takes back.
  if (created) try_to([&] { disk_.sync_directory(root.parent_path()); });
  try_to([&] { disk_.sync_directory(root); });
  for (const ObjectKind kind : {ObjectKind::blob, ObjectKind::manifest})
    try_to([&] { disk_.sync_directory(layout_.kind(kind)); });

  try_to([&] {
    disk_.list(layout_.quarantine(), [&](const std::string& name, std::uint64_t size_bytes) {
      quarantine_.push_back({layout_.quarantine() / name, cost_bytes(size_bytes)});
      quarantine_bytes_ += cost_bytes(size_bytes);
    });
  });
  std::ranges::sort(quarantine_, {}, &SetAside::path);
  space_ = disk_.space(root);
  return faults;
}

void Store::make_own_directories() {
  for (const auto& directory : layout_.own_directories()) make_own_directory(directory);
}

void Store::make_own_directory(const std::filesystem::path& path) {
  if (disk_.make_directory(path)) return;
  struct stat status{};
  if (::lstat(path.c_str(), &status) == 0 && S_ISDIR(status.st_mode)) return;
  disk_.remove(path);  // A file or a link in its place.
  disk_.make_directory(path);
}

asio::awaitable<void> Store::reconcile() {
  // What the index names and no file bears out goes; what stands on disk without a row comes in as
  // the least recently used. The disk is the truth.
  struct Found {
    ObjectKind kind;
    Digest digest;
    std::uint64_t size_bytes;
  };
  const std::vector<Digest> held = catalog_.digests();
  std::unordered_set<Digest> unseen;
  unseen.reserve(held.size());  // A table that grows stops everybody while it does.
  for (const Digest& digest : held) {
    unseen.insert(digest);
    // With 100,000 of them others would wait for long.
    if (unseen.size() % objects_at_once == 0) co_await asio::post(loop_, asio::use_awaitable);
  }
  std::vector<Found> of_other_kind;
  std::vector<Found> of_other_size;
  std::size_t found = 0;
  std::string sentence;
  for (const ObjectKind kind : {ObjectKind::blob, ObjectKind::manifest}) {
    for (const auto name : Layout::algorithm_names) {
      for (unsigned first = 0; first < 256; first += listed_at_once) {
        removed_.clear();
        std::vector<Found> files;
        std::vector<std::pair<std::filesystem::path, std::uint64_t>> listed;
        co_await offload(disk_pool_, [&] {
          for (unsigned byte = first; byte < first + listed_at_once; ++byte) {
            const std::string prefix = hex_byte(byte);
            const auto directory = layout_.algorithm(kind, name) / prefix;
            if (const std::uint64_t bytes = allocated_or(directory, 0); bytes > 0)
              listed.emplace_back(directory, bytes);
            try {
              disk_.list(directory, [&](const std::string& hex, std::uint64_t size_bytes) {
                const auto digest = Digest::parse(std::string(name) + ":" + hex);
                if (digest && hex.starts_with(prefix)) files.push_back({kind, *digest, size_bytes});
              });
            } catch (const Failure& failure) {
              sentence = failure.what();
            }
          }
        });
        for (const auto& [directory, bytes] : listed) note_directory(directory, bytes);
        std::size_t looked_at = 0;
        for (const Found& file : files) {
          if (++looked_at % objects_at_once == 0) co_await asio::post(loop_, asio::use_awaitable);
          const Digest& digest = file.digest;
          const Catalog::Object* known = catalog_.find(digest);
          if (!known || known->kind == kind) unseen.erase(digest);
          // The list may be older than what happens to these at this moment.
          if (growing_.contains(digest) || storing_.contains(digest) || leaving_.contains(digest) ||
              removed_.contains(digest))
            continue;
          if (!known) {
            catalog_.add_found(digest, kind, file.size_bytes);
            ++found;
          } else if (known->kind != kind) {
            of_other_kind.push_back(file);
          } else if (known->size_bytes != file.size_bytes) {
            of_other_size.push_back(file);
          }
        }
      }
    }
  }
  for (const Found& file : of_other_kind) {
    const Digest& digest = file.digest;
    const Catalog::Object* known = catalog_.find(digest);
    if (!known || known->kind == file.kind || growing_.contains(digest) ||
        storing_.contains(digest) || leaving_.contains(digest))
      continue;
    if (unseen.erase(digest) > 0 && !known->verified) {
      forget_open(digest);
      catalog_.drop(digest);
      catalog_.add_found(digest, file.kind, file.size_bytes);
      ++found;
    } else {  // A file of each kind: deleted files may return after power loss.
      remove_later(layout_.object(file.kind, digest), nullptr);
    }
  }
  // Damaged, or the index is older than the file: its bytes decide.
  for (const Found& file : of_other_size) {
    const Pace steps{.pool = disk_pool_};
    co_await check(file.digest, steps);
  }
  // What could not be listed may be there.
  if (!sentence.empty()) unseen.clear();
  std::size_t gone = 0;
  for (const Digest& digest : unseen) {
    const Catalog::Object* object = catalog_.find(digest);
    // Evicted, or written anew, since.
    if (!object || object->verified || leaving_.contains(digest)) continue;
    forget_open(digest);
    catalog_.drop(digest);
    ++gone;
  }
  removed_.clear();
  reconciled_ = true;
  if (!sentence.empty()) report_("not reconciled", sentence);
  if (found > 0 || gone > 0)
    report_("reconciled", std::to_string(found) + " files were not in the index and " +
                              std::to_string(gone) + " rows had no file");
  co_await follow_all_pins();
  co_await shrink();
}

}  // namespace staithe::cache
