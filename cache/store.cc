#include "cache/store.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cassert>
#include <cerrno>

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
// How much of the order of use a kill may lose; a commit of the index takes about 20 us.
constexpr auto index_interval = 1s;
// How often the free space of the filesystem is looked at, since others fill it too.
constexpr auto bounds_interval = 10s;
constexpr std::array<std::string_view, 2> algorithm_names = {"sha256", "sha512"};

std::string hex_byte(unsigned value) {
  static constexpr char digits[] = "0123456789abcdef";
  return {digits[value >> 4], digits[value & 15]};
}

}  // namespace

Store::Store(asio::any_io_executor loop, Settings settings, Disk& disk, Clock& clock, Report report)
    : loop_(loop),
      settings_(std::move(settings)),
      disk_(disk),
      clock_(clock),
      report_(report),
      layout_(settings_.directory),
      tasks_(loop, report) {}

Store::~Store() { assert(growing_.empty()); }

std::int64_t Store::unix_now() const {
  return std::chrono::duration_cast<std::chrono::seconds>(clock_.wall().time_since_epoch()).count();
}

// ---- start and end ----------------------------------------------------------------------------

asio::awaitable<void> Store::open() {
  co_await offload(disk_pool_, [this] { take_directory(); });
  budget_ = {.max_bytes = settings_.max_size.of(space_.total_bytes),
             .min_free_bytes = settings_.min_free.of(space_.total_bytes)};
  co_await offload(index_pool_, [this] { load_index(); });
  tasks_.spawn("reconcile", reconcile());
  tasks_.spawn("index", keep_index_written());
  tasks_.spawn("bounds", keep_within_bounds());
}

void Store::take_directory() {
  const auto& root = layout_.root();
  std::error_code error;
  if (root.has_parent_path()) std::filesystem::create_directories(root.parent_path(), error);
  disk_.make_directory(root);
  struct stat status{};
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

  lock_ = File(
      ::open(layout_.lock().c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, S_IRUSR | S_IWUSR));
  if (!lock_)
    throw Failure(Errc::storage_failed,
                  "cannot open " + layout_.lock().string() + ": " + describe_errno(errno));
  if (::flock(lock_.fd(), LOCK_EX | LOCK_NB) != 0)
    throw Failure(Errc::in_use, "the cache directory " + root.string() +
                                    " is in use by another staithed: stop that one, or give this "
                                    "one another cache.directory");

  disk_.make_directory(layout_.partial());
  disk_.make_directory(layout_.quarantine());
  for (const ObjectKind kind : {ObjectKind::blob, ObjectKind::manifest}) {
    disk_.make_directory(layout_.kind(kind));
    for (const auto name : algorithm_names) disk_.make_directory(layout_.algorithm(kind, name));
  }
  std::vector<std::string> leftovers;
  disk_.list(layout_.partial(),
             [&](const std::string& name, std::uint64_t) { leftovers.push_back(name); });
  for (const std::string& name : leftovers) disk_.remove(layout_.partial() / name);
  space_ = disk_.space(root);
}

void Store::load_index() {
  index_ = std::make_unique<Index>(layout_.root());
  Index::Contents contents = index_->load();
  const bool incomplete = contents.incomplete;
  catalog_.restore(std::move(contents));  // Nobody else has the catalog yet.
  if (incomplete) {
    report_("index set aside", index_->set_aside() +
                                   "; it is kept as index.db.set-aside and a new one is built "
                                   "from the blobs");
    index_->apply(catalog_.everything());
  }
}

asio::awaitable<void> Store::close() {
  tasks_.cancel();
  co_await tasks_.join();
  if (index_) co_await write_index();
  kept_open_.clear();
  disk_pool_.join();
  index_pool_.join();
  index_.reset();
}

asio::awaitable<void> Store::reconcile() {
  // What the index names and no file bears out goes; what stands on disk without a row comes in as
  // the least recently used. The disk is the truth.
  std::unordered_set<Digest> unseen;
  for (const Digest& digest : catalog_.digests()) unseen.insert(digest);
  std::size_t found = 0;
  for (const ObjectKind kind : {ObjectKind::blob, ObjectKind::manifest}) {
    for (const auto name : algorithm_names) {
      for (unsigned byte = 0; byte < 256; ++byte) {
        const auto directory = layout_.algorithm(kind, name) / hex_byte(byte);
        const auto files = co_await offload(disk_pool_, [&] {
          std::vector<std::pair<Digest, std::uint64_t>> whole;
          if (!std::filesystem::exists(directory)) return whole;
          disk_.list(directory, [&](const std::string& hex, std::uint64_t size_bytes) {
            if (auto digest = Digest::parse(std::string(name) + ":" + hex))
              whole.emplace_back(*digest, size_bytes);
          });
          return whole;
        });
        for (const auto& [digest, size_bytes] : files) {
          const Catalog::Object* known = catalog_.find(digest);
          if (known && (known->kind != kind || known->size_bytes != size_bytes)) {
            catalog_.drop(digest);
            known = nullptr;
          }
          if (!known && !growing_.contains(digest)) {
            catalog_.add_found(digest, kind, size_bytes);
            ++found;
          }
          unseen.erase(digest);
        }
      }
    }
  }
  std::size_t gone = 0;
  for (const Digest& digest : unseen) {
    const Catalog::Object* object = catalog_.find(digest);
    if (!object || object->verified) continue;  // Evicted, or written anew, since.
    catalog_.drop(digest);
    ++gone;
  }
  if (found > 0 || gone > 0)
    report_("reconciled", std::to_string(found) + " files were not in the index and " +
                              std::to_string(gone) + " rows had no file");
}

asio::awaitable<void> Store::keep_index_written() {
  for (;;) {
    co_await clock_.sleep_for(index_interval);
    co_await write_index();
  }
}

asio::awaitable<void> Store::write_index() {
  std::vector<Change> changes = catalog_.take_changes();
  if (changes.empty()) co_return;
  std::string sentence;
  try {
    co_await offload(index_pool_, [&] { index_->apply(changes); });
    index_failing_ = false;
  } catch (const Failure& failure) {
    sentence = failure.what();
  }
  if (!sentence.empty() && !index_failing_) {
    index_failing_ = true;  // Once per outage; the files are the truth meanwhile.
    report_("index not written", sentence + "; pulls go on, the order of use may be lost");
  }
}

// ---- room --------------------------------------------------------------------------------------

std::uint64_t Store::used_bytes() const {
  return catalog_.totals().bytes + *unlinked_bytes_ + written_bytes_;
}

asio::awaitable<void> Store::measure_space() {
  space_ = co_await offload(disk_pool_, [this] { return disk_.space(layout_.root()); });
}

asio::awaitable<void> Store::make_room(std::uint64_t bytes) {
  for (;;) {
    co_await measure_space();
    const std::uint64_t allowed = allowed_bytes(budget_, used_bytes(), space_.free_bytes);
    const std::uint64_t wanted =
        catalog_.totals().bytes + *unlinked_bytes_ + reserved_bytes_ + bytes;
    if (wanted <= allowed) co_return;
    auto victims = bytes > allowed
                       ? std::vector<Digest>()
                       : choose_victims(catalog_.oldest_first([this](const Digest& digest) {
                           const auto open = open_.find(digest);
                           if (open == open_.end()) return true;
                           const auto blob = open->second.lock();
                           return !blob || blob->readers() == 0;
                         }),
                                        wanted - allowed);
    if (victims.empty())
      throw Failure(Errc::storage_full,
                    "no room for " + std::to_string(bytes) + " bytes in the cache directory " +
                        layout_.root().string() + ", which may hold " + std::to_string(allowed) +
                        " bytes now: raise cache.max_size, lower cache.min_free or free the disk");
    co_await evict(std::move(victims));
  }
}

asio::awaitable<void> Store::evict(std::vector<Digest> victims) {
  std::vector<std::filesystem::path> paths;
  for (const Digest& digest : victims) {
    const Catalog::Object* object = catalog_.find(digest);
    if (!object) continue;
    paths.push_back(layout_.object(object->kind, digest));
    if (object->kind == ObjectKind::blob) {
      forget_open(digest);
    } else if (const auto it = manifests_.find(digest); it != manifests_.end()) {
      manifest_bytes_ -= (*it->second)->bytes.size();
      manifest_order_.erase(it->second);
      manifests_.erase(it);
    }
    catalog_.drop(digest);
    ++evicted_;
  }
  std::string sentence;
  try {
    co_await offload(disk_pool_, [&] {
      for (const auto& path : paths) disk_.remove(path);
    });
  } catch (const Failure& failure) {
    sentence = failure.what();
  }
  if (!sentence.empty()) report_("eviction failed", sentence);
}

asio::awaitable<void> Store::keep_within_bounds() {
  for (;;) {
    try {
      co_await make_room(0);
    } catch (const Failure&) {
      // Nothing more can go; the next fill is told so.
    }
    co_await clock_.sleep_for(bounds_interval);
  }
}

// ---- blobs -------------------------------------------------------------------------------------

asio::awaitable<std::shared_ptr<Blob>> Store::find(Digest digest) {
  if (const auto it = growing_.find(digest); it != growing_.end()) co_return it->second;
  const auto opened = [&]() -> std::shared_ptr<Blob> {
    const auto it = open_.find(digest);
    if (it == open_.end()) return nullptr;
    auto blob = it->second.lock();
    if (!blob || blob->error()) return nullptr;
    catalog_.touch(digest, unix_now());
    remember_open(blob);
    return blob;
  };
  if (auto blob = opened()) co_return blob;
  const Catalog::Object* object = catalog_.find(digest);
  if (!object || object->kind != ObjectKind::blob) co_return nullptr;

  File file;
  std::uint64_t size_bytes = 0;
  std::string broken;
  try {
    co_await offload(disk_pool_, [&] {
      file = disk_.open(layout_.object(ObjectKind::blob, digest));
      if (file) size_bytes = disk_.size(file);
    });
  } catch (const Failure& failure) {
    broken = failure.what();
  }
  if (auto blob = opened()) co_return blob;  // Another request was faster.
  object = catalog_.find(digest);
  if (!object) co_return nullptr;  // Evicted meanwhile.
  if (!file || size_bytes != object->size_bytes) {
    co_await set_aside(ObjectKind::blob, digest,
                       !broken.empty() ? broken
                       : !file         ? std::string("its file is gone")
                                       : std::string("its file has another size"));
    co_return nullptr;
  }
  auto blob = std::make_shared<Blob>(loop_, digest, std::move(file), size_bytes);
  const bool verified = object->verified;
  catalog_.touch(digest, unix_now());
  remember_open(blob);
  if (verified || size_bytes == 0) {
    blob->finish(size_bytes);
  } else {
    tasks_.spawn("verify", verify(blob, size_bytes));
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
  std::vector<char> piece(verify_step_bytes);
  std::uint64_t done = 0;
  std::string broken;
  try {
    while (done < size_bytes) {
      const std::size_t n = co_await offload(disk_pool_, [&] {
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
  if (broken.empty()) {
    catalog_.set_verified(digest);
    blob->finish(size_bytes);
    co_return;
  }
  blob->fail({Errc::storage_failed, "the stored blob " + digest.to_string() +
                                        " is damaged and was set aside; pull again"});
  co_await set_aside(ObjectKind::blob, digest, broken);
}

asio::awaitable<void> Store::set_aside(ObjectKind kind, Digest digest, std::string why) {
  if (!catalog_.find(digest)) co_return;
  forget_open(digest);
  catalog_.drop(digest);
  ++quarantined_;
  report_("object set aside",
          digest.to_string() + ": " + why + "; it will be fetched again from upstream");
  try {
    co_await offload(disk_pool_, [&] {
      const auto from = layout_.object(kind, digest);
      if (!disk_.open(from)) return;
      disk_.rename(from, layout_.quarantined(digest));
    });
  } catch (const Failure&) {
    // Not even that works; without its row nobody finds it, and a refill replaces it by rename.
  }
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
  if (blob.use_count() == 1) return;
  // Someone still reads it: its space comes back only when the last of them lets go.
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
  blob->keep_until_closed(
      std::make_shared<Hold>(unlinked_bytes_, cost_bytes(blob->size_bytes().value_or(0))));
}

asio::awaitable<std::unique_ptr<BlobWriter>> Store::begin(Digest digest,
                                                          std::optional<std::uint64_t> size_bytes) {
  assert(!growing_.contains(digest));
  const std::uint64_t cost = cost_bytes(size_bytes.value_or(0));
  co_await make_room(cost);
  auto reservation = std::make_unique<Reservation>(*this, cost);
  auto partial = layout_.partial(digest, next_partial_++);
  File file = co_await offload(disk_pool_, [&] { return disk_.create(partial); });
  auto blob = std::make_shared<Blob>(loop_, digest, std::move(file), size_bytes);
  growing_.emplace(digest, blob);
  co_return std::unique_ptr<BlobWriter>(
      new BlobWriter(*this, std::move(blob), std::move(partial), std::move(reservation)));
}

asio::awaitable<void> Store::publish(std::filesystem::path partial, const File& file,
                                     ObjectKind kind, Digest digest) {
  co_await offload(disk_pool_, [&] {
    disk_.sync(file);
    const auto directory = layout_.directory(kind, digest);
    if (disk_.make_directory(directory)) disk_.sync_directory(directory.parent_path());
    disk_.rename(partial, layout_.object(kind, digest));
    disk_.sync_directory(directory);
  });
}

// ---- manifests ---------------------------------------------------------------------------------

asio::awaitable<ManifestPtr> Store::manifest(Digest digest) {
  const auto in_memory = [&]() -> ManifestPtr {
    const auto it = manifests_.find(digest);
    if (it == manifests_.end()) return nullptr;
    manifest_order_.splice(manifest_order_.begin(), manifest_order_, it->second);
    catalog_.touch(digest, unix_now());
    return *it->second;
  };
  if (auto manifest = in_memory()) co_return manifest;
  const Catalog::Object* object = catalog_.find(digest);
  if (!object || object->kind != ObjectKind::manifest) co_return nullptr;

  std::string record;
  std::string broken;
  try {
    co_await offload(disk_pool_, [&] {
      const File file = disk_.open(layout_.object(ObjectKind::manifest, digest));
      if (!file) return;
      record.resize(disk_.size(file));
      record.resize(disk_.read(file, record, 0));
    });
  } catch (const Failure& failure) {
    broken = failure.what();
  }
  if (auto manifest = in_memory()) co_return manifest;
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
  remember_manifest(manifest);
  if (has_manifest(manifest->digest)) {
    catalog_.touch(manifest->digest, unix_now());
    return;
  }
  catalog_.add(manifest->digest, ObjectKind::manifest,
               manifest->media_type.size() + 1 + manifest->bytes.size(), true, unix_now());
  tasks_.spawn("store manifest", store_manifest(std::move(manifest)));
}

asio::awaitable<void> Store::store_manifest(ManifestPtr manifest) {
  const Digest digest = manifest->digest;
  std::string sentence;
  try {
    co_await make_room(0);
    const auto partial = layout_.partial(digest, next_partial_++);
    File file;
    co_await offload(disk_pool_, [&] {
      file = disk_.create(partial);
      disk_.write(file, to_record(*manifest), 0);
    });
    co_await publish(partial, file, ObjectKind::manifest, digest);
    co_return;
  } catch (const Failure& failure) {
    sentence = failure.what();
  }
  // It stays in memory for as long as that has room.
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
  if (!checked) return std::nullopt;
  return std::chrono::seconds(std::max<std::int64_t>(0, unix_now() - *checked));
}

void Store::put_tag(std::string_view repository, std::string_view tag, const Digest& digest) {
  catalog_.put_tag(repository, tag, digest, unix_now());
}

std::optional<Store::SeenTag> Store::tag(std::string_view repository, std::string_view tag) const {
  const auto seen = catalog_.tag(repository, tag);
  if (!seen) return std::nullopt;
  return SeenTag{seen->digest, std::chrono::seconds(std::max<std::int64_t>(
                                   0, unix_now() - seen->checked_unix_seconds))};
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
