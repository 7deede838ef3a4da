#include "cache/store.h"

#include <algorithm>
#include <cassert>
#include <numeric>
#include <utility>

#include "cache/blob_writer.h"
#include "cache/eviction.h"
#include "cache/offload.h"

namespace staithe::cache {

namespace {

// Files held open for the next hit, of the 1,024 descriptors that a process has by default.
constexpr std::size_t max_kept_open = 256;
// A wall clock is set back by this much in normal operation; what comes from a later time than that
// has an age that nobody knows.
constexpr std::int64_t max_clock_correction_seconds = 300;

}  // namespace

Store::Store(asio::any_io_executor loop, Settings settings, Disk& disk, Clock& clock, Report report)
    : loop_(loop),
      settings_(std::move(settings)),
      disk_(disk),
      clock_(clock),
      report_(report),
      layout_(settings_.directory),
      tasks_(loop, report),
      index_turns_(loop),
      pin_turns_(loop),
      left_(loop),
      scrub_(*this, settings_.scrub_interval) {}

Store::~Store() { assert(growing_.empty()); }

std::int64_t Store::unix_now() const {
  return std::chrono::duration_cast<std::chrono::seconds>(clock_.wall().time_since_epoch()).count();
}

asio::awaitable<void> Store::open() {
  const auto faults = co_await offload(disk_pool_, [this] { return take_directory(); });
  for (const std::string& fault : faults) report_("cache directory", fault);
  budget_ = {.max_bytes = settings_.max_size.of(space_.total_bytes),
             .min_free_bytes = settings_.min_free.of(space_.total_bytes)};
  judge_mode();
  co_await load_index();
  co_await load_pins();
  std::vector<std::string> leftovers;
  keep_partials_found(co_await offload(disk_pool_, [&] { return sweep_partials(leftovers); }));
  for (const std::string& fault : leftovers) report_("cache directory", fault);
  co_await measure_own_directories();
  tasks_.spawn("reconcile", reconcile());
  tasks_.spawn("index", keep_index_written());
  tasks_.spawn("bounds", keep_within_bounds());
  tasks_.spawn("scrub", scrub_.run());
}

void Store::set_bounds(Size max_size, Size min_free) {
  budget_ = {.max_bytes = max_size.of(space_.total_bytes),
             .min_free_bytes = min_free.of(space_.total_bytes)};
}

asio::awaitable<void> Store::close() {
  tasks_.cancel();
  co_await tasks_.join();
  scrub_.close();
  index_retry_ = {};
  co_await offload(disk_pool_, [this] { return in_place(); });
  // Once more if writing it made something go.
  for (int round = 0; round < 2; ++round) co_await write_index();
  if (lost_ && index_) index_->leave_files();
  open_.clear();
  kept_open_.clear();
  disk_pool_.join();
  index_pool_.join();
  index_.reset();
}

// ---- blobs -------------------------------------------------------------------------------------

const Catalog::Object* Store::stored(ObjectKind kind, const Digest& digest) const {
  const Catalog::Object* object = catalog_.find(digest);
  return object && object->kind == kind && !leaving_.contains(digest) && !lost_ ? object : nullptr;
}

asio::awaitable<std::shared_ptr<Blob>> Store::find(Digest digest) {
  ++uses_;
  const auto at_hand = [&]() -> std::shared_ptr<Blob> {
    if (const auto it = growing_.find(digest); it != growing_.end()) return it->second;
    const auto it = open_.find(digest);
    if (it == open_.end()) return nullptr;
    auto blob = it->second.blob.lock();
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
      if (!in_place()) return;
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
  if (!object || object->kind != ObjectKind::blob || lost_) return std::nullopt;
  return object->size_bytes;
}

asio::awaitable<void> Store::verify(std::shared_ptr<Blob> blob, std::uint64_t size_bytes) {
  // To its readers a blob being verified is one that grows: they follow the hash.
  const Digest digest = blob->digest();
  const Pace steps{.pool = disk_pool_,
                   .between = [&](std::uint64_t done_bytes) -> asio::awaitable<bool> {
                     if (done_bytes < size_bytes) blob->grow(done_bytes);
                     co_return true;
                   }};
  std::string broken;
  try {
    if (co_await true_size(blob->file(), digest, steps) != size_bytes)
      broken = "its bytes do not have its digest any more";
  } catch (const Failure& failure) {
    broken = failure.what();
  } catch (const boost::system::system_error&) {  // We are stopping.
    blob->fail({Errc::cancelled, "the daemon is stopping"});
    throw;
  }
  // Evicted meanwhile, and perhaps stored anew, it says nothing about the file that is there now.
  const auto it = open_.find(digest);
  const bool current = it != open_.end() && it->second.blob.lock() == blob;
  if (broken.empty()) {
    if (current) catalog_.set_verified(digest, unix_now());
    blob->finish(size_bytes);
    co_return;
  }
  blob->fail({Errc::storage_failed, "the stored blob " + digest.to_string() +
                                        " is damaged and was set aside; pull again"});
  if (current) co_await set_aside(ObjectKind::blob, digest, broken);
}

void Store::touch(const Digest& digest) {
  if (!catalog_.find(digest)) return;
  ++uses_;
  catalog_.touch(digest, unix_now());
}

void Store::on_gone(std::function<void(const Digest*, bool only_tags)> tell) {
  on_gone_ = std::move(tell);
  if (!on_gone_) {
    catalog_.on_gone({});
    return;
  }
  catalog_.on_gone([this](const Digest& digest, bool only_tags) { on_gone_(&digest, only_tags); });
}

void Store::tell_gone(const Digest& digest) {
  if (on_gone_) on_gone_(&digest, false);
}

void Store::remember_open(const std::shared_ptr<Blob>& blob) {
  OpenBlob& open = open_[blob->digest()];
  if (open.kept && *open.place == blob) {
    kept_open_.splice(kept_open_.begin(), kept_open_, open.place);
    return;
  }
  if (open.kept) kept_open_.erase(open.place);
  kept_open_.push_front(blob);
  open = {.blob = blob, .kept = true, .place = kept_open_.begin()};
  if (kept_open_.size() > max_kept_open) {
    const auto it = open_.find(kept_open_.back()->digest());
    kept_open_.pop_back();
    it->second.kept = false;
    if (it->second.blob.expired()) open_.erase(it);
  }
  // What its last reader lets go stays as an entry without a blob. Looked for only when there may
  // be as many of them as there are others.
  if (open_.size() > 4 * max_kept_open && open_.size() > 2 * open_looked_through_) {
    std::erase_if(open_, [](const auto& entry) { return entry.second.blob.expired(); });
    open_looked_through_ = open_.size();
  }
}

void Store::forget_open(const Digest& digest) {
  tell_gone(digest);
  const auto it = open_.find(digest);
  if (it == open_.end()) return;
  const auto blob = it->second.blob.lock();
  if (it->second.kept) kept_open_.erase(it->second.place);
  open_.erase(it);
  if (!blob) return;
  // If someone still reads it, its space comes back only when the last of them lets go.
  if (blob.use_count() > 1)
    close_on_pool(*blob, count_unlinked(cost_bytes(blob->size_bytes().value_or(0))));
}

asio::awaitable<std::unique_ptr<BlobWriter>> Store::begin(Digest digest,
                                                          std::optional<std::uint64_t> size_bytes) {
  assert(!growing_.contains(digest));
  if (has_manifest(digest))
    throw Failure(
        Errc::storage_failed,
        digest.to_string() + " is stored as a manifest and is not stored again as a blob");
  const std::uint64_t cost = cost_bytes(size_bytes.value_or(0));
  if (!writable()) throw not_writable();
  co_await make_room(cost);
  auto reservation = std::make_unique<Reservation>(*this, cost);
  if (!co_await discard_partial(digest))
    throw Failure(Errc::storage_failed, "what an earlier transfer of " + digest.to_string() +
                                            " left in " + layout_.partial().string() +
                                            " can neither be used nor removed");
  const std::uint64_t number = next_partial_++;
  const auto partial = layout_.partial(digest, number);
  bool preallocated = false;
  File file = co_await writing_or_evicting([&] {
    File created = disk_.create(partial);
    if (size_bytes.value_or(0) == 0) return created;
    try {  // A disk that others fill meanwhile breaks no transfer.
      preallocated = disk_.preallocate(created, *size_bytes);
    } catch (const Failure&) {
      remove_quietly(disk_, partial);
      throw;
    }
    return created;
  });
  auto blob = std::make_shared<Blob>(loop_, digest, std::move(file), size_bytes);
  [[maybe_unused]] const bool alone = growing_.emplace(digest, blob).second;
  assert(alone);
  co_return std::unique_ptr<BlobWriter>(new BlobWriter(
      *this, std::move(blob), number, std::move(reservation), preallocated ? cost : 0));
}

asio::awaitable<void> Store::publish(std::filesystem::path partial, const File& file,
                                     ObjectKind kind, Digest digest) {
  while (leaving_.contains(digest)) co_await left_.wait();
  const auto directory = layout_.directory(kind, digest);
  const auto object = layout_.object(kind, digest);
  const Directory known = directories_[directory.native()];
  std::uint64_t directory_bytes = known.bytes;
  std::optional<std::uint64_t> left_bytes;  // of a file that may not stay, and does
  try {
    co_await writing([&] {
      if (!in_place())
        throw Failure(Errc::storage_failed,
                      layout_.root().string() + " was removed or replaced while it was in use");
      try {
        disk_.sync(file);
        // Made by an earlier process, the directory itself may not be on disk yet.
        if (disk_.make_directory(directory) || !known.durable)
          disk_.sync_directory(directory.parent_path());
        disk_.rename(partial, object);
        disk_.sync_directory(directory);
      } catch (const Failure&) {
        // Not trusted under any name: the kernel may have dropped its pages.
        remove_quietly(disk_, partial);
        if (!take_away(disk_, object)) left_bytes = allocated_or(object, 0);
        throw;
      }
      directory_bytes = allocated_or(directory, directory_bytes);
    });
  } catch (const Failure&) {
    if (left_bytes)
      unremoved_.push_back({.path = object, .hold = count_unlinked(*left_bytes), .object = digest});
    throw;
  }
  note_directory(directory, directory_bytes);
  directories_[directory.native()].durable = true;
  note_good_write();
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
  note_tag(repository, tag, digest);
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
          .evicted = std::accumulate(evicted_.begin(), evicted_.end(), std::uint64_t{0}),
          .evicted_for = evicted_,
          .quarantined = quarantined_,
          .pins = catalog_.pins().size(),
          .pinned_bytes = catalog_.pinned_bytes(),
          .mode = mode_,
          .mode_reason = mode_reason_};
}

}  // namespace staithe::cache
