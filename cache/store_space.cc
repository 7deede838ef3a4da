// The store's room: what is used, who has to go for what comes, and what was set aside as damaged.
#include <algorithm>
#include <iterator>
#include <limits>
#include <ranges>
#include <utility>

#include "cache/eviction.h"
#include "cache/offload.h"
#include "cache/store.h"

namespace staithe::cache {

namespace {

using namespace std::chrono_literals;

// How often the free space of the filesystem is looked at, since others fill it too.
constexpr auto bounds_interval = 10s;
// Damaged files kept for a look. They count as used, and they go before anything of use does.
constexpr std::size_t max_set_aside = 8;
// What goes at a time when the disk is full although the bounds have room: that many objects, or
// fewer if they make this much room.
constexpr std::size_t evicted_at_once = 8;
constexpr std::uint64_t evicted_bytes_at_once = 4 * 1024 * 1024;
// A batch of 64 changes touches at most some 150 pages of the index, each of 4 KiB and once more in
// its log; and each of the four threads of the pool may just make a directory.
constexpr std::uint64_t most_own_growth_bytes = 1024 * 1024;

}  // namespace

std::uint64_t Store::used_bytes() const {
  return catalog_.totals().bytes + *unlinked_bytes_ + quarantine_bytes_ + kept_bytes_ +
         written_bytes_ + index_bytes_ + directory_bytes_;
}

std::uint64_t Store::own_growth_bytes() const {
  // Where nothing is measured, nothing grows.
  return index_bytes_ + directory_bytes_ == 0 ? 0 : most_own_growth_bytes;
}

void Store::note_directory(const std::filesystem::path& directory, std::uint64_t bytes) {
  Directory& known = directories_[directory.native()];
  directory_bytes_ += bytes - std::exchange(known.bytes, bytes);
}

std::uint64_t Store::allocated_or(const std::filesystem::path& path,
                                  std::uint64_t otherwise) const {
  try {
    return disk_.allocated(path);
  } catch (const Failure&) {
    return otherwise;
  }
}

asio::awaitable<void> Store::measure_own_directories() {
  std::vector<std::pair<std::filesystem::path, std::uint64_t>> measured;
  co_await offload(disk_pool_, [&] {
    if (!in_place()) return;
    for (auto& path : layout_.own_directories()) {
      const std::uint64_t bytes = allocated_or(path, 0);
      measured.emplace_back(std::move(path), bytes);
    }
  });
  for (const auto& [path, bytes] : measured) note_directory(path, bytes);
}

asio::awaitable<void> Store::measure_space() {
  const auto space = co_await offload(disk_pool_, [this]() -> std::optional<Space> {
    if (!in_place()) return std::nullopt;
    return disk_.space(layout_.root());
  });
  if (space) space_ = *space;
  catalog_.set_allowed_bytes(allowed_bytes(budget_, used_bytes(), space_.free_bytes));
  judge_mode();
}

asio::awaitable<void> Store::make_room(std::uint64_t bytes) {
  for (;;) {
    co_await measure_space();
    if (lost_ || space_.read_only) throw not_writable();
    const std::uint64_t allowed = allowed_bytes(budget_, used_bytes(), space_.free_bytes);
    const auto no_room = [&] {
      return Failure(Errc::storage_full,
                     "no room for " + std::to_string(bytes) + " bytes in the cache directory " +
                         layout_.root().string() + ", which may hold " + std::to_string(allowed) +
                         " bytes now" + pinned_note() +
                         ": raise cache.max_size, lower cache.min_free or free the disk");
    };
    if (bytes > allowed) throw no_room();
    if (removals_ > 0) {  // Somebody makes room already; then see how much it was.
      co_await left_.wait();
      continue;
    }
    const std::uint64_t wanted =
        used_bytes() - written_bytes_ + reserved_bytes_ + own_growth_bytes() + bytes;
    if (wanted <= allowed) co_return;
    if (!quarantine_.empty() && co_await trim_quarantine(0)) continue;
    if (partial_goes_first() && co_await discard_partial(*oldest_partial())) continue;
    if (on_eviction_) on_eviction_();
    auto victims = choose_victims(
        catalog_.oldest_first([this](const Digest& digest) { return evictable(digest); }),
        wanted - allowed);
    std::uint64_t gain = 0;
    for (const Digest& digest : victims) gain += cost_bytes(catalog_.find(digest)->size_bytes);
    if (gain < wanted - allowed) {
      if (const auto partial = oldest_partial(); partial && co_await discard_partial(*partial))
        continue;
      throw no_room();
    }
    if (!co_await evict(std::move(victims), narrower_bound()))
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
    if (victims.empty() || !co_await evict(std::move(victims), narrower_bound())) co_return;
  }
}

std::vector<Store::NextVictim> Store::next_victims(std::size_t most) const {
  std::vector<NextVictim> next;
  if (most == 0) return next;
  for (const Candidate& candidate :
       catalog_.oldest_first([this](const Digest& digest) { return evictable(digest); })) {
    if (!candidate.evictable) continue;
    const Catalog::Object& object = *catalog_.find(candidate.digest);
    next.push_back({.digest = candidate.digest,
                    .kind = object.kind,
                    .bytes = candidate.bytes,
                    .last_used_unix_seconds = object.used_unix_seconds,
                    .is_protected = object.reused});
    if (next.size() == most) break;
  }
  return next;
}

asio::awaitable<void> Store::keep_headroom() {
  const std::uint64_t allowed = allowed_bytes(budget_, used_bytes(), space_.free_bytes);
  const std::uint64_t headroom = headroom_bytes(allowed);
  const std::uint64_t taken = used_bytes() - written_bytes_ + reserved_bytes_ + own_growth_bytes();
  if (taken + headroom / 2 <= allowed) co_return;
  try {
    co_await make_room(headroom);
  } catch (const Failure&) {  // Pinned, or in use: what comes has to see.
  }
}

bool Store::evictable(const Digest& digest) const {
  if (growing_.contains(digest) || storing_.contains(digest) || leaving_.contains(digest))
    return false;
  if (catalog_.pinned(digest) || !pins_known_) return false;
  const auto it = open_.find(digest);
  if (it == open_.end()) return true;
  const std::shared_ptr<Blob> blob = it->second.blob.lock();
  if (!blob) return true;
  // Whoever else has it reads it, or is about to: its space would not come back.
  return blob.use_count() == (it->second.kept ? 2 : 1);
}

Store::Leaving::Leaving(Store& store, std::vector<Digest> digests)
    : store_(store), digests_(std::move(digests)) {
  store_.leaving_.insert(digests_.begin(), digests_.end());
  for (const Digest& digest : digests_) store_.tell_gone(digest);
  ++store_.removals_;
}

Store::Leaving::~Leaving() {
  for (const Digest& digest : digests_) store_.leaving_.erase(digest);
  --store_.removals_;
  if (!store_.reconciled_) store_.removed_.insert(digests_.begin(), digests_.end());
  store_.left_.notify_all();
}

Store::Evicted Store::narrower_bound() const {
  const std::uint64_t allowed = allowed_bytes(budget_, used_bytes(), space_.free_bytes);
  return allowed < budget_.max_bytes ? Evicted::min_free : Evicted::max_size;
}

const char* to_string(Store::Evicted reason) {
  switch (reason) {
    case Store::Evicted::max_size:
      return "max_size";
    case Store::Evicted::min_free:
      return "min_free";
    case Store::Evicted::disk_full:
      return "disk_full";
  }
  return "";
}

asio::awaitable<bool> Store::evict(std::vector<Digest> victims, Evicted reason) {
  struct Victim {
    Digest digest;
    std::filesystem::path path;
    bool gone = false;
  };
  std::vector<Victim> files;
  for (const Digest& digest : victims)
    files.push_back({digest, layout_.object(catalog_.find(digest)->kind, digest)});
  // Closed before it is removed, a file gives its space back on the pool and not here.
  for (const Digest& digest : victims) forget_open(digest);
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
    ++evicted_[static_cast<std::size_t>(reason)];
    if (storing_.contains(file.digest)) continue;  // Put again meanwhile; its file comes.
    forget_manifest(file.digest);
    catalog_.drop(file.digest);
  }
  if (!sentence.empty() && !eviction_failing_) report_("eviction failed", sentence);
  eviction_failing_ = !sentence.empty();  // Once per outage.
  co_return any_gone;
}

asio::awaitable<bool> Store::evict_some() {
  if (removals_ > 0) {  // Somebody makes room already.
    co_await left_.wait();
    co_return true;
  }
  if (!quarantine_.empty() && co_await trim_quarantine(0)) co_return true;
  if (partial_goes_first()) co_return co_await discard_partial(*oldest_partial());
  auto oldest = catalog_.oldest_first([this](const Digest& digest) { return evictable(digest); }) |
                std::views::filter(&Candidate::evictable) | std::views::take(evicted_at_once);
  auto victims = choose_victims(oldest, evicted_bytes_at_once);
  if (victims.empty()) co_return false;
  co_return co_await evict(std::move(victims), Evicted::disk_full);
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
  if (lost_) return;
  asio::post(disk_pool_, [this, &disk = disk_, loop = loop_, alive = std::weak_ptr(alive_),
                          path = std::move(path), hold = std::move(hold)]() mutable {
    const bool gone = take_away(disk, path);
    asio::post(loop, [this, alive = std::move(alive), gone, path = std::move(path),
                      hold = std::move(hold)]() mutable {
      // Without a hold the name is one that another file may have by then.
      if (!gone && hold && !alive.expired())
        unremoved_.push_back({.path = std::move(path), .hold = std::move(hold)});
    });
  });
}

asio::awaitable<void> Store::remove_again() {
  if (unremoved_.empty() || lost_) co_return;
  // Stored again since, the name is a good file's. A manifest that is only about to be is in the
  // catalog, too.
  std::erase_if(unremoved_, [this](const Unremoved& one) {
    return one.object && catalog_.find(*one.object) && !storing_.contains(*one.object);
  });
  std::vector<Unremoved> again = std::exchange(unremoved_, {});
  const auto later = std::ranges::partition(again, [this](const Unremoved& one) {
    return !one.object || (!growing_.contains(*one.object) && !storing_.contains(*one.object) &&
                           !leaving_.contains(*one.object));
  });
  std::ranges::move(later, std::back_inserter(unremoved_));
  again.erase(later.begin(), later.end());
  std::vector<Digest> objects;
  for (const Unremoved& one : again)
    if (one.object) objects.push_back(*one.object);
  const Leaving leaving(*this, std::move(objects));
  co_await offload(disk_pool_, [&] {
    if (!in_place()) return;
    for (Unremoved& one : again) one.gone = take_away(disk_, one.path);
  });
  std::erase_if(again, &Unremoved::gone);
  std::ranges::move(again, std::back_inserter(unremoved_));
}

void Store::relieve_memory(std::shared_ptr<Blob> blob, std::uint64_t unread_bytes) {
  tasks_.spawn(
      "relieve memory",
      [](Store& store, std::shared_ptr<Blob> of, std::uint64_t bytes) -> asio::awaitable<void> {
        co_await offload(store.disk_pool_, [&] {
          store.disk_.begin_to_sync(of->file());
          if (bytes > 0) store.disk_.let_go(of->file(), bytes);
        });
      }(*this, std::move(blob), unread_bytes));
}

void Store::close_on_pool(Blob& blob, std::shared_ptr<void> hold) {
  blob.close_by([&pool = disk_pool_, alive = std::weak_ptr(alive_), loop = loop_,
                 hold = std::move(hold)](File file) {
    if (alive.expired()) return;
    asio::post(pool, [file = std::move(file), loop, hold]() mutable {
      {
        const File closed = std::move(file);
      }
      asio::post(loop, [hold = std::move(hold)] {});
    });
  });
}

asio::awaitable<void> Store::keep_within_bounds() {
  for (;;) {
    co_await try_writing();
    co_await remove_again();
    co_await expire_partials();
    co_await measure_own_directories();
    co_await shrink();
    co_await keep_headroom();
    co_await clock_.sleep_for(bounds_interval);
  }
}

// ---- what is damaged ---------------------------------------------------------------------------

asio::awaitable<void> Store::set_aside(ObjectKind kind, Digest digest, std::string why) {
  const Catalog::Object* object = catalog_.find(digest);
  if (!object || leaving_.contains(digest)) co_return;
  std::uint64_t size_bytes = object->size_bytes;
  if (const auto it = open_.find(digest); it != open_.end())
    if (const auto blob = it->second.blob.lock(); blob && blob->whole())
      blob->condemn({Errc::storage_failed, "the stored blob " + digest.to_string() +
                                               " is damaged and was set aside; pull again"});
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
    bool renamed = false;
    if (!in_place()) return false;
    try {
      disk_.rename(from, to);
      renamed = true;
      size_bytes = disk_.size(disk_.open(to));
    } catch (const Failure&) {
      if (!renamed) remove_quietly(disk_, from);
    }
    return renamed;
  });
  if (!kept) co_return;
  quarantine_.push_back({to, cost_bytes(size_bytes)});
  quarantine_bytes_ += quarantine_.back().bytes;
  co_await trim_quarantine(max_set_aside);
}

asio::awaitable<bool> Store::trim_quarantine(std::size_t keep) {
  struct Old {
    SetAside file;
    bool gone = false;
  };
  std::vector<Old> old;
  while (quarantine_.size() > keep) {
    old.push_back({std::move(quarantine_.front())});
    quarantine_.pop_front();
  }
  if (old.empty()) co_return true;
  const Leaving leaving(*this, {});
  co_await offload(disk_pool_, [&] {
    for (Old& one : old) {
      try {
        disk_.remove(one.file.path);
        one.gone = true;
      } catch (const Failure&) {  // Tried again when room is needed.
      }
    }
  });
  bool any_gone = false;
  for (Old& one : old | std::views::reverse) {
    if (one.gone) {
      quarantine_bytes_ -= one.file.bytes;
      any_gone = true;
    } else {
      quarantine_.push_front(std::move(one.file));
    }
  }
  co_return any_gone;
}

}  // namespace staithe::cache
