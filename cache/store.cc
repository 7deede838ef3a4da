#include "cache/store.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cassert>
#include <cerrno>
#include <limits>
#include <utility>

#include "cache/eviction.h"
#include "cache/offload.h"

namespace staithe::cache {

namespace {

using namespace std::chrono_literals;

// Manifests in memory: a machine's images are a few hundred manifests of some KiB each.
constexpr std::uint64_t max_manifest_bytes = 32 * 1024 * 1024;
// Files held open for the next hit, of the 1,024 descriptors that a process has by default.
constexpr std::size_t max_kept_open = 256;
// One step of hashing a stored blob.
constexpr std::size_t verify_step_bytes = 1024 * 1024;
// Of the 256 directories of one kind, how many are listed in one step of a start.
constexpr unsigned listed_at_once = 16;
// Damaged files kept for a look. They count as used, and they go before anything of use does.
constexpr std::size_t max_set_aside = 8;
// How much of the order of use a kill may lose; a commit of the index takes about 20 us.
constexpr auto index_interval = 1s;
// After a failure the whole index is to be written, which is seconds of work for 100,000 blobs.
constexpr auto index_retry_interval = 10s;
// How often the free space of the filesystem is looked at, since others fill it too.
constexpr auto bounds_interval = 10s;
// A wall clock is set back by this much in normal operation; what comes from a later time than that
// has an age that nobody knows.
constexpr std::int64_t max_clock_correction_seconds = 300;
constexpr std::array<std::string_view, 2> algorithm_names = {"sha256", "sha512"};

std::string hex_byte(unsigned value) {
  static constexpr char digits[] = "0123456789abcdef";
  return {digits[value >> 4], digits[value & 15]};
}

// For a file that is of no use any more: the sweep at start finds what a failure leaves.
void remove_quietly(Disk& disk, const std::filesystem::path& path) {
  try {
    disk.remove(path);
  } catch (const Failure&) {
  }
}

}  // namespace

Store::Store(asio::any_io_executor loop, Settings settings, Disk& disk, Clock& clock, Report report)
    : loop_(loop),
      settings_(std::move(settings)),
      disk_(disk),
      clock_(clock),
      report_(report),
      layout_(settings_.directory),
      tasks_(loop, report),
      left_(loop) {}

Store::~Store() { assert(growing_.empty()); }

std::int64_t Store::unix_now() const {
  return std::chrono::duration_cast<std::chrono::seconds>(clock_.wall().time_since_epoch()).count();
}

// ---- start and end ----------------------------------------------------------------------------

asio::awaitable<void> Store::open() {
  const auto faults = co_await offload(disk_pool_, [this] { return take_directory(); });
  for (const std::string& fault : faults) report_("cache directory", fault);
  budget_ = {.max_bytes = settings_.max_size.of(space_.total_bytes),
             .min_free_bytes = settings_.min_free.of(space_.total_bytes)};
  co_await load_index();
  tasks_.spawn("reconcile", reconcile());
  tasks_.spawn("index", keep_index_written());
  tasks_.spawn("bounds", keep_within_bounds());
}

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
  if (::flock(lock_.fd(), LOCK_EX | LOCK_NB) != 0)
    throw Failure(Errc::in_use, "the cache directory " + root.string() +
                                    " is in use by another staithed: stop that one, or give this "
                                    "one another cache.directory");

  std::vector<std::string> faults;
  const auto try_to = [&](const auto& work) {
    try {
      work();
    } catch (const Failure& failure) {
      faults.emplace_back(failure.what());
    }
  };
  std::vector<std::filesystem::path> directories = {layout_.partial(), layout_.quarantine()};
  for (const ObjectKind kind : {ObjectKind::blob, ObjectKind::manifest}) {
    directories.push_back(layout_.kind(kind));
    for (const auto name : algorithm_names) directories.push_back(layout_.algorithm(kind, name));
  }
  for (const auto& directory : directories) try_to([&] { make_own_directory(directory); });
  // What is stored in them is lost with a directory that power loss takes back.
  if (created) try_to([&] { disk_.sync_directory(root.parent_path()); });
  try_to([&] { disk_.sync_directory(root); });
  for (const ObjectKind kind : {ObjectKind::blob, ObjectKind::manifest})
    try_to([&] { disk_.sync_directory(layout_.kind(kind)); });

  std::vector<std::string> leftovers;
  try_to([&] {
    disk_.list(layout_.partial(),
               [&](const std::string& name, std::uint64_t) { leftovers.push_back(name); });
  });
  for (const std::string& name : leftovers) try_to([&] { disk_.remove(layout_.partial() / name); });
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

void Store::make_own_directory(const std::filesystem::path& path) {
  if (disk_.make_directory(path)) return;
  struct stat status{};
  if (::lstat(path.c_str(), &status) == 0 && S_ISDIR(status.st_mode)) return;
  disk_.remove(path);  // A file or a link in its place.
  disk_.make_directory(path);
}

asio::awaitable<void> Store::load_index() {
  std::string sentence;
  try {
    co_await offload(index_pool_, [&] {
      auto index = std::make_unique<Index>(layout_.root());
      Index::Contents contents = index->load();
      index_behind_ = contents.incomplete;
      catalog_.restore(std::move(contents));  // Nobody else has the catalog yet.
      index_ = std::move(index);
    });
    if (index_behind_)
      sentence = index_->set_aside() +
                 "; it is kept as index.db.set-aside and a new one is built from the blobs";
  } catch (const Failure& failure) {
    index_behind_ = true;
    index_retry_ = clock_.now() + index_retry_interval;
    sentence = std::string(failure.what()) +
               "; it is built from the blobs and written as soon as that works";
  }
  if (!sentence.empty()) report_("index set aside", sentence);
}

void Store::set_bounds(Size max_size, Size min_free) {
  budget_ = {.max_bytes = max_size.of(space_.total_bytes),
             .min_free_bytes = min_free.of(space_.total_bytes)};
}

asio::awaitable<void> Store::close() {
  tasks_.cancel();
  co_await tasks_.join();
  index_retry_ = {};
  co_await write_index();
  kept_open_.clear();
  disk_pool_.join();
  index_pool_.join();
  index_.reset();
}

asio::awaitable<void> Store::reconcile() {
  // What the index names and no file bears out goes; what stands on disk without a row comes in as
  // the least recently used. The disk is the truth.
  struct Found {
    ObjectKind kind;
    Digest digest;
    std::uint64_t size_bytes;
  };
  std::unordered_set<Digest> unseen;
  for (const Digest& digest : catalog_.digests()) unseen.insert(digest);
  std::vector<Found> of_other_kind;
  std::size_t found = 0;
  std::string sentence;
  for (const ObjectKind kind : {ObjectKind::blob, ObjectKind::manifest}) {
    for (const auto name : algorithm_names) {
      for (unsigned first = 0; first < 256; first += listed_at_once) {
        removed_.clear();
        std::vector<Found> files;
        co_await offload(disk_pool_, [&] {
          for (unsigned byte = first; byte < first + listed_at_once; ++byte) {
            const std::string prefix = hex_byte(byte);
            try {
              disk_.list(layout_.algorithm(kind, name) / prefix,
                         [&](const std::string& hex, std::uint64_t size_bytes) {
                           const auto digest = Digest::parse(std::string(name) + ":" + hex);
                           if (digest && hex.starts_with(prefix))
                             files.push_back({kind, *digest, size_bytes});
                         });
            } catch (const Failure& failure) {
              sentence = failure.what();
            }
          }
        });
        for (const Found& file : files) {
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
            co_await set_aside(kind, digest, "its file has another size than was stored");
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
  co_await shrink();
}

asio::awaitable<void> Store::keep_index_written() {
  for (;;) {
    co_await clock_.sleep_for(index_interval);
    co_await write_index();
  }
}

asio::awaitable<void> Store::write_index() {
  std::vector<Change> changes = catalog_.take_changes();
  if (!index_behind_ && changes.empty()) co_return;
  if (index_behind_) {
    if (clock_.now() < index_retry_) co_return;
    changes = catalog_.everything();
  }
  std::string sentence;
  try {
    co_await offload(index_pool_, [&] {
      if (!index_) index_ = std::make_unique<Index>(layout_.root());
      if (index_behind_) {
        index_->rewrite(changes);
      } else {
        index_->apply(changes);
      }
    });
    index_behind_ = false;
  } catch (const Failure& failure) {
    sentence = failure.what();
  }
  if (sentence.empty()) co_return;
  index_retry_ = clock_.now() + index_retry_interval;
  if (std::exchange(index_behind_, true)) co_return;  // Told already.
  report_("index not written", sentence + "; pulls go on, the files are the truth meanwhile");
}

// ---- room --------------------------------------------------------------------------------------

std::uint64_t Store::used_bytes() const {
  return catalog_.totals().bytes + *unlinked_bytes_ + quarantine_bytes_ + written_bytes_;
}

asio::awaitable<void> Store::measure_space() {
  space_ = co_await offload(disk_pool_, [this] { return disk_.space(layout_.root()); });
}

asio::awaitable<void> Store::make_room(std::uint64_t bytes) {
  for (;;) {
    co_await measure_space();
    const std::uint64_t allowed = allowed_bytes(budget_, used_bytes(), space_.free_bytes);
    const auto no_room = [&] {
      return Failure(Errc::storage_full,
                     "no room for " + std::to_string(bytes) + " bytes in the cache directory " +
                         layout_.root().string() + ", which may hold " + std::to_string(allowed) +
                         " bytes now: raise cache.max_size, lower cache.min_free or free the disk");
    };
    if (bytes > allowed) throw no_room();
    if (!leaving_.empty()) {  // Somebody makes room already; then see how much it was.
      co_await left_.wait();
      continue;
    }
    const std::uint64_t wanted =
        catalog_.totals().bytes + *unlinked_bytes_ + quarantine_bytes_ + reserved_bytes_ + bytes;
    if (wanted <= allowed) co_return;
    if (!quarantine_.empty()) {
      co_await trim_quarantine(0);
      continue;
    }
    auto victims = choose_victims(
        catalog_.oldest_first([this](const Digest& digest) { return evictable(digest); }),
        wanted - allowed);
    std::uint64_t gain = 0;
    for (const Digest& digest : victims) gain += cost_bytes(catalog_.find(digest)->size_bytes);
    if (gain < wanted - allowed) throw no_room();
    if (!co_await evict(std::move(victims)))
      throw Failure(Errc::storage_failed,
                    "nothing can be removed from the cache directory " + layout_.root().string());
  }
}

asio::awaitable<void> Store::shrink() {
  for (;;) {
    try {
      co_await make_room(0);
      co_return;
    } catch (const Failure& failure) {
      if (failure.code() != Errc::storage_full) co_return;
    }
    // The rest is held by readers and writers, or the disk is filled by others: what can go goes.
    auto victims = choose_victims(
        catalog_.oldest_first([this](const Digest& digest) { return evictable(digest); }),
        std::numeric_limits<std::uint64_t>::max());
    if (victims.empty() || !co_await evict(std::move(victims))) co_return;
  }
}

bool Store::evictable(const Digest& digest) const {
  if (growing_.contains(digest) || storing_.contains(digest) || leaving_.contains(digest))
    return false;
  const auto it = open_.find(digest);
  if (it == open_.end()) return true;
  const std::shared_ptr<Blob> blob = it->second.lock();
  if (!blob) return true;
  // Whoever else has it reads it, or is about to: its space would not come back.
  const bool kept = std::ranges::find(kept_open_, blob) != kept_open_.end();
  return blob.use_count() == (kept ? 2 : 1);
}

Store::Leaving::Leaving(Store& store, std::vector<Digest> digests)
    : store_(store), digests_(std::move(digests)) {
  store_.leaving_.insert(digests_.begin(), digests_.end());
}

Store::Leaving::~Leaving() {
  for (const Digest& digest : digests_) store_.leaving_.erase(digest);
  if (!store_.reconciled_) store_.removed_.insert(digests_.begin(), digests_.end());
  store_.left_.notify_all();
}

asio::awaitable<bool> Store::evict(std::vector<Digest> victims) {
  struct Victim {
    Digest digest;
    std::filesystem::path path;
    bool gone = false;
  };
  std::vector<Victim> files;
  for (const Digest& digest : victims)
    files.push_back({digest, layout_.object(catalog_.find(digest)->kind, digest)});
  const Leaving leaving(*this, std::move(victims));
  std::string sentence;
  co_await offload(disk_pool_, [&] {
    for (Victim& file : files) {
      try {
        disk_.remove(file.path);
        file.gone = true;
      } catch (const Failure& failure) {
        sentence = failure.what();
      }
    }
  });
  bool any_gone = false;
  for (const Victim& file : files) {
    if (!file.gone) continue;
    any_gone = true;
    ++evicted_;
    if (storing_.contains(file.digest)) continue;  // Put again meanwhile; its file comes.
    forget_open(file.digest);
    forget_manifest(file.digest);
    catalog_.drop(file.digest);
  }
  if (!sentence.empty() && !eviction_failing_) report_("eviction failed", sentence);
  eviction_failing_ = !sentence.empty();  // Once per outage.
  co_return any_gone;
}

std::shared_ptr<void> Store::count_unlinked(std::uint64_t bytes) {
  struct Hold {
    Hold(std::shared_ptr<std::uint64_t> total_bytes, std::uint64_t size)
        : total(std::move(total_bytes)), bytes(size) {
      *total += bytes;
    }
    Hold(const Hold&) = delete;
    Hold& operator=(const Hold&) = delete;
    ~Hold() { *total -= bytes; }
    std::shared_ptr<std::uint64_t> total;
    std::uint64_t bytes;
  };
  return std::make_shared<Hold>(unlinked_bytes_, bytes);
}

void Store::remove_later(std::filesystem::path path, std::shared_ptr<void> hold) {
  // On the pool, since removing a large file takes milliseconds; the hold is the loop's.
  asio::post(disk_pool_, [&disk = disk_, loop = loop_, path = std::move(path),
                          hold = std::move(hold)]() mutable {
    remove_quietly(disk, path);
    asio::post(loop, [hold = std::move(hold)] {});
  });
}

asio::awaitable<void> Store::keep_within_bounds() {
  for (;;) {
    co_await shrink();
    co_await clock_.sleep_for(bounds_interval);
  }
}

// ---- blobs -------------------------------------------------------------------------------------

const Catalog::Object* Store::stored(ObjectKind kind, const Digest& digest) const {
  const Catalog::Object* object = catalog_.find(digest);
  return object && object->kind == kind && !leaving_.contains(digest) ? object : nullptr;
}

asio::awaitable<std::shared_ptr<Blob>> Store::find(Digest digest) {
  const auto at_hand = [&]() -> std::shared_ptr<Blob> {
    if (const auto it = growing_.find(digest); it != growing_.end()) return it->second;
    const auto it = open_.find(digest);
    if (it == open_.end()) return nullptr;
    auto blob = it->second.lock();
    if (!blob || blob->error()) return nullptr;
    catalog_.touch(digest, unix_now());
    remember_open(blob);
    return blob;
  };
  if (auto blob = at_hand()) co_return blob;
  if (!stored(ObjectKind::blob, digest)) co_return nullptr;

  File file;
  std::uint64_t size_bytes = 0;
  std::string unopened;
  try {
    co_await offload(disk_pool_, [&] {
      file = disk_.open(layout_.object(ObjectKind::blob, digest));
      if (file) size_bytes = disk_.size(file);
    });
  } catch (const Failure& failure) {
    unopened = failure.what();
  }
  if (auto blob = at_hand()) co_return blob;  // Another request was faster.
  const Catalog::Object* object = stored(ObjectKind::blob, digest);
  if (!object) co_return nullptr;  // Evicted meanwhile.
  if (!unopened.empty()) {
    // Out of descriptors, perhaps: nothing is known against the file. A refill replaces it.
    report_("blob not opened", unopened);
    co_return nullptr;
  }
  if (!file) {  // Killed between an eviction and the index, or removed by hand.
    catalog_.drop(digest);
    co_return nullptr;
  }
  const bool empty_blob = digest == Hasher(digest.algorithm()).digest();
  if (size_bytes != object->size_bytes || (size_bytes == 0 && !empty_blob)) {
    co_await set_aside(ObjectKind::blob, digest, "its file has another size than was stored");
    co_return nullptr;
  }
  auto blob = std::make_shared<Blob>(loop_, digest, std::move(file), size_bytes);
  const bool verified = object->verified || empty_blob;
  catalog_.touch(digest, unix_now());
  remember_open(blob);
  if (verified) {
    blob->finish(size_bytes);
  } else if (!tasks_.spawn("verify", verify(blob, size_bytes))) {
    blob->fail({Errc::cancelled, "the daemon is stopping"});
  }
  co_return blob;
}

std::optional<std::uint64_t> Store::size_of_blob(const Digest& digest) const {
  if (const auto it = growing_.find(digest); it != growing_.end()) return it->second->size_bytes();
  const Catalog::Object* object = catalog_.find(digest);
  if (!object || object->kind != ObjectKind::blob) return std::nullopt;
  return object->size_bytes;
}

asio::awaitable<void> Store::verify(std::shared_ptr<Blob> blob, std::uint64_t size_bytes) {
  // To its readers a blob being verified is one that grows: they follow the hash.
  const Digest digest = blob->digest();
  Hasher hasher(digest.algorithm());
  std::uint64_t done = 0;
  std::string broken;
  try {
    while (done < size_bytes) {
      const std::size_t n = co_await offload(disk_pool_, [&] {
        // One buffer per thread of the pool, however many blobs are verified at once.
        static thread_local std::vector<char> piece(verify_step_bytes);
        const std::size_t got = disk_.read(blob->file(), piece, done);
        hasher.update(std::span(piece).first(got));
        return got;
      });
      if (n == 0) break;
      done += n;
      if (done < size_bytes) blob->grow(done);
    }
    if (done != size_bytes || hasher.digest() != digest)
      broken = "its bytes do not have its digest any more";
  } catch (const Failure& failure) {
    broken = failure.what();
  } catch (const boost::system::system_error&) {  // We are stopping.
    blob->fail({Errc::cancelled, "the daemon is stopping"});
    throw;
  }
  // Evicted meanwhile, and perhaps stored anew, it says nothing about the file that is there now.
  const auto it = open_.find(digest);
  const bool current = it != open_.end() && it->second.lock() == blob;
  if (broken.empty()) {
    if (current) catalog_.set_verified(digest);
    blob->finish(size_bytes);
    co_return;
  }
  blob->fail({Errc::storage_failed, "the stored blob " + digest.to_string() +
                                        " is damaged and was set aside; pull again"});
  if (current) co_await set_aside(ObjectKind::blob, digest, broken);
}

asio::awaitable<void> Store::set_aside(ObjectKind kind, Digest digest, std::string why) {
  const Catalog::Object* object = catalog_.find(digest);
  if (!object || leaving_.contains(digest)) co_return;
  std::uint64_t size_bytes = object->size_bytes;
  forget_open(digest);
  catalog_.drop(digest);
  ++quarantined_;
  report_("object set aside",
          digest.to_string() + ": " + why + "; it will be fetched again from upstream");
  if (growing_.contains(digest)) co_return;  // The file is about to be replaced.
  const Leaving leaving(*this, {digest});
  std::filesystem::path to;
  do {
    to = layout_.quarantined(digest, unix_now(), next_partial_++);
  } while (std::ranges::find(quarantine_, to, &SetAside::path) != quarantine_.end());
  const bool kept = co_await offload(disk_pool_, [&] {
    const auto from = layout_.object(kind, digest);
    try {
      disk_.rename(from, to);
      size_bytes = disk_.size(disk_.open(to));
      return true;
    } catch (const Failure&) {
      remove_quietly(disk_, from);
      return false;
    }
  });
  if (!kept) co_return;
  quarantine_.push_back({to, cost_bytes(size_bytes)});
  quarantine_bytes_ += quarantine_.back().bytes;
  co_await trim_quarantine(max_set_aside);
}

asio::awaitable<void> Store::trim_quarantine(std::size_t keep) {
  std::vector<std::filesystem::path> paths;
  while (quarantine_.size() > keep) {
    paths.push_back(std::move(quarantine_.front().path));
    quarantine_bytes_ -= quarantine_.front().bytes;
    quarantine_.pop_front();
  }
  if (paths.empty()) co_return;
  co_await offload(disk_pool_, [&] {
    for (const auto& path : paths) remove_quietly(disk_, path);
  });
}

void Store::remember_open(const std::shared_ptr<Blob>& blob) {
  open_[blob->digest()] = blob;
  if (!kept_open_.empty() && kept_open_.front() == blob) return;
  std::erase(kept_open_, blob);
  kept_open_.push_front(blob);
  if (kept_open_.size() > max_kept_open) {
    const Digest oldest = kept_open_.back()->digest();
    kept_open_.pop_back();
    if (const auto it = open_.find(oldest); it != open_.end() && it->second.expired())
      open_.erase(it);
  }
  if (open_.size() > 4 * max_kept_open)
    std::erase_if(open_, [](const auto& entry) { return entry.second.expired(); });
}

void Store::forget_open(const Digest& digest) {
  const auto it = open_.find(digest);
  if (it == open_.end()) return;
  const auto blob = it->second.lock();
  open_.erase(it);
  if (!blob) return;
  std::erase(kept_open_, blob);
  // If someone still reads it, its space comes back only when the last of them lets go.
  blob->keep_until_closed(count_unlinked(cost_bytes(blob->size_bytes().value_or(0))));
}

asio::awaitable<std::unique_ptr<BlobWriter>> Store::begin(Digest digest,
                                                          std::optional<std::uint64_t> size_bytes) {
  assert(!growing_.contains(digest));
  if (has_manifest(digest))
    throw Failure(
        Errc::storage_failed,
        digest.to_string() + " is stored as a manifest and is not stored again as a blob");
  const std::uint64_t cost = cost_bytes(size_bytes.value_or(0));
  co_await make_room(cost);
  auto reservation = std::make_unique<Reservation>(*this, cost);
  auto partial = layout_.partial(digest, next_partial_++);
  File file = co_await offload(disk_pool_, [&] { return disk_.create(partial); });
  auto blob = std::make_shared<Blob>(loop_, digest, std::move(file), size_bytes);
  [[maybe_unused]] const bool alone = growing_.emplace(digest, blob).second;
  assert(alone);
  co_return std::unique_ptr<BlobWriter>(
      new BlobWriter(*this, std::move(blob), std::move(partial), std::move(reservation)));
}

asio::awaitable<void> Store::publish(std::filesystem::path partial, const File& file,
                                     ObjectKind kind, Digest digest) {
  while (leaving_.contains(digest)) co_await left_.wait();
  const auto directory = layout_.directory(kind, digest);
  const auto object = layout_.object(kind, digest);
  const bool durable = durable_directories_.contains(directory.native());
  co_await offload(disk_pool_, [&] {
    try {
      disk_.sync(file);
      // Made by an earlier process, the directory itself may not be on disk yet.
      if (disk_.make_directory(directory) || !durable)
        disk_.sync_directory(directory.parent_path());
      disk_.rename(partial, object);
      disk_.sync_directory(directory);
    } catch (const Failure&) {
      // Not trusted under any name: the kernel may have dropped its pages.
      remove_quietly(disk_, partial);
      remove_quietly(disk_, object);
      throw;
    }
  });
  durable_directories_.insert(directory.native());
}

// ---- manifests ---------------------------------------------------------------------------------

asio::awaitable<ManifestPtr> Store::manifest(Digest digest) {
  const auto in_memory = [&]() -> ManifestPtr {
    if (const auto it = manifests_.find(digest); it != manifests_.end()) {
      manifest_order_.splice(manifest_order_.begin(), manifest_order_, it->second);
      catalog_.touch(digest, unix_now());
      return *it->second;
    }
    const auto it = storing_.find(digest);
    return it == storing_.end() ? nullptr : it->second;
  };
  if (auto manifest = in_memory()) co_return manifest;
  const Catalog::Object* object = stored(ObjectKind::manifest, digest);
  if (!object) co_return nullptr;
  const std::uint64_t size_bytes = object->size_bytes;

  std::string record;
  bool opened = false;
  bool there = false;
  std::string broken;
  try {
    co_await offload(disk_pool_, [&] {
      const File file = disk_.open(layout_.object(ObjectKind::manifest, digest));
      opened = true;
      there = static_cast<bool>(file);
      if (!there || disk_.size(file) != size_bytes || size_bytes > max_manifest_bytes) return;
      record.resize(size_bytes);
      record.resize(disk_.read(file, record, 0));
    });
  } catch (const Failure& failure) {
    broken = failure.what();
  }
  if (auto manifest = in_memory()) co_return manifest;
  if (!stored(ObjectKind::manifest, digest)) co_return nullptr;  // Evicted meanwhile.
  if (!opened) {  // As for blobs: nothing is known against the file.
    report_("manifest not opened", broken);
    co_return nullptr;
  }
  if (!there) {
    catalog_.drop(digest);
    co_return nullptr;
  }
  if (broken.empty()) {
    auto manifest = from_record(digest, record);
    if (manifest) {
      auto shared = std::make_shared<const Manifest>(std::move(*manifest));
      catalog_.touch(digest, unix_now());
      catalog_.set_verified(digest);
      remember_manifest(shared);
      co_return shared;
    }
    broken = manifest.error().detail;
  }
  co_await set_aside(ObjectKind::manifest, digest, broken);
  co_return nullptr;
}

bool Store::has_manifest(const Digest& digest) const {
  const Catalog::Object* object = catalog_.find(digest);
  return object && object->kind == ObjectKind::manifest;
}

void Store::put_manifest(ManifestPtr manifest) {
  const Digest digest = manifest->digest;
  remember_manifest(manifest);
  const Catalog::Object* object = catalog_.find(digest);
  if (growing_.contains(digest) || (object && object->kind == ObjectKind::blob)) return;
  if (object && object->verified && !leaving_.contains(digest)) {
    catalog_.touch(digest, unix_now());
    return;
  }
  // Held from now on, so that links have something to belong to. A start that finds no file drops
  // it again.
  catalog_.add(digest, ObjectKind::manifest,
               manifest->media_type.size() + 1 + manifest->bytes.size(), true, unix_now());
  storing_.emplace(digest, manifest);
  if (!tasks_.spawn("store manifest", store_manifest(std::move(manifest)))) {
    storing_.erase(digest);
    catalog_.drop(digest);
  }
}

asio::awaitable<void> Store::store_manifest(ManifestPtr manifest) {
  const Digest digest = manifest->digest;
  const auto partial = layout_.partial(digest, next_partial_++);
  std::exception_ptr failed;
  std::string sentence;
  try {
    co_await make_room(0);
    const File file = co_await offload(disk_pool_, [&] {
      File created = disk_.create(partial);
      disk_.write(created, to_record(*manifest), 0);
      return created;
    });
    co_await publish(partial, file, ObjectKind::manifest, digest);
  } catch (const Failure& failure) {
    failed = std::current_exception();
    sentence = failure.what();
  } catch (...) {  // We are stopping.
    failed = std::current_exception();
  }
  storing_.erase(digest);
  if (!failed) co_return;
  // It stays in memory for as long as that has room.
  catalog_.drop(digest);
  if (!reconciled_) removed_.insert(digest);
  remove_later(partial, nullptr);
  if (sentence.empty()) std::rethrow_exception(failed);
  report_("manifest not stored", sentence);
}

void Store::remember_manifest(ManifestPtr manifest) {
  if (manifests_.contains(manifest->digest)) return;
  manifest_bytes_ += manifest->bytes.size();
  manifest_order_.push_front(std::move(manifest));
  manifests_.emplace(manifest_order_.front()->digest, manifest_order_.begin());
  while (manifest_bytes_ > max_manifest_bytes && manifest_order_.size() > 1) {
    const ManifestPtr& oldest = manifest_order_.back();
    manifest_bytes_ -= oldest->bytes.size();
    manifests_.erase(oldest->digest);
    manifest_order_.pop_back();
  }
}

void Store::forget_manifest(const Digest& digest) {
  const auto it = manifests_.find(digest);
  if (it == manifests_.end()) return;
  manifest_bytes_ -= (*it->second)->bytes.size();
  manifest_order_.erase(it->second);
  manifests_.erase(it);
}

// ---- links, tags, figures ----------------------------------------------------------------------

void Store::link(std::string_view repository, const Digest& digest) {
  catalog_.link(repository, digest, unix_now());
}

void Store::unlink(std::string_view repository, const Digest& digest) {
  catalog_.unlink(repository, digest);
}

std::optional<std::chrono::seconds> Store::link_age(std::string_view repository,
                                                    const Digest& digest) const {
  const auto checked = catalog_.linked(repository, digest);
  return checked ? age_of(*checked) : std::nullopt;
}

std::optional<std::chrono::seconds> Store::age_of(std::int64_t checked_unix_seconds) const {
  const std::int64_t age = unix_now() - checked_unix_seconds;
  if (age < -max_clock_correction_seconds) return std::nullopt;
  return std::chrono::seconds(std::max<std::int64_t>(0, age));
}

void Store::put_tag(std::string_view repository, std::string_view tag, const Digest& digest) {
  catalog_.put_tag(repository, tag, digest, unix_now());
}

std::optional<Store::SeenTag> Store::tag(std::string_view repository, std::string_view tag) const {
  const auto seen = catalog_.tag(repository, tag);
  const auto age = seen ? age_of(seen->checked_unix_seconds) : std::nullopt;
  if (!age) return std::nullopt;
  return SeenTag{seen->digest, *age};
}

void Store::drop_tag(std::string_view repository, std::string_view tag) {
  catalog_.drop_tag(repository, tag);
}

Store::Stats Store::stats() const {
  const auto& totals = catalog_.totals();
  return {.bytes = used_bytes(),
          .max_bytes = allowed_bytes(budget_, used_bytes(), space_.free_bytes),
          .free_bytes = space_.free_bytes,
          .blobs = totals.blobs,
          .manifests = totals.manifests,
          .evicted = evicted_,
          .quarantined = quarantined_};
}

}  // namespace staithe::cache
