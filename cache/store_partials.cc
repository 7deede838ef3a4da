// The store's partial blobs: what transfers that broke off have brought, kept so that the next one
// goes on from there, also after a restart.
//
// While a blob is written, the digest of what is there is noted now and then: a mark, of the bytes
// from the start or of a part that came before them. Only bytes that a mark vouches for are ever
// gone on from, and only after they were read and hashed again, so
// neither a kill nor a loss of power nor a bad disk gets a wrong byte into a blob. The state of the
// hash is not stored: restored without reading, it would vouch for bytes that nobody has seen
// since.
#include <algorithm>
#include <ranges>
#include <utility>

#include "cache/blob_writer.h"
#include "cache/eviction.h"
#include "cache/offload.h"
#include "cache/store.h"

namespace staithe::cache {

namespace {

using namespace std::chrono_literals;

// A partial blob that nobody has asked for again within this is room for others.
constexpr auto kept_for = 24h;

}  // namespace

std::optional<std::uint64_t> Store::resumable(const Digest& digest) const {
  if (!kept_.contains(digest) || lost_) return std::nullopt;
  return catalog_.partial(digest)->last_end();
}

asio::awaitable<std::unique_ptr<BlobWriter>> Store::resume(Digest digest,
                                                           std::uint64_t size_bytes) {
  if (!writable()) throw not_writable();
  const auto it = kept_.find(digest);
  if (it == kept_.end()) co_return co_await begin(digest, size_bytes);
  // From here on nobody else removes it; its space goes over to the writer.
  const Kept kept = it->second;
  kept_.erase(it);
  kept_bytes_ -= kept.bytes;
  auto space = count_unlinked(kept.bytes);
  const std::uint64_t cost = std::max(cost_bytes(size_bytes), kept.bytes);
  std::optional<Failure> no_room;
  try {
    co_await make_room(cost - kept.bytes);
  } catch (const Failure& failure) {
    no_room = failure;
  }
  if (no_room) {
    keep_partial(digest, kept);
    throw Failure(*no_room);
  }
  auto reservation = std::make_unique<Reservation>(*this, cost);
  space.reset();
  const auto path = layout_.partial(digest, kept.number);
  const std::uint64_t least_bytes = catalog_.partial(digest)->first_end();
  std::vector<Catalog::Mark> marks = catalog_.partial(digest)->marks;
  File file;
  bool preallocated = false;
  std::string unusable;
  try {
    co_await offload(disk_pool_, [&] {
      if (!in_place()) return;
      file = disk_.reopen(path);
      const std::uint64_t there = file ? disk_.size(file) : 0;
      if (there < least_bytes || there > size_bytes) file = File();
      if (file) preallocated = disk_.preallocate(file, size_bytes);
    });
  } catch (const Failure& failure) {
    file = File();
    unusable = failure.what();
  }
  if (!file) {
    if (!unusable.empty()) report_("partial blob not resumed", unusable);
    catalog_.drop_partial(digest);
    remove_later(path, count_unlinked(kept.bytes));
    reservation.reset();
    co_return co_await begin(digest, size_bytes);
  }
  auto blob = std::make_shared<Blob>(loop_, digest, std::move(file), size_bytes);
  growing_.emplace(digest, blob);
  co_return std::unique_ptr<BlobWriter>(
      new BlobWriter(*this, std::move(blob), kept.number, std::move(reservation),
                     preallocated ? cost : kept.bytes, std::move(marks)));
}

void Store::keep_partial(const Digest& digest, Kept kept) {
  kept_bytes_ += kept.bytes;
  kept_.insert_or_assign(digest, std::move(kept));
}

void Store::keep_partials_found(const std::vector<PartialFile>& files) {
  std::unordered_set<Digest> there;
  for (const PartialFile& file : files) {
    if (!file.digest || !file.kept) continue;
    there.insert(*file.digest);
    keep_partial(*file.digest, {.number = file.number,
                                .bytes = file.allocated_bytes,
                                .left = clock_.now(),
                                .left_unix_seconds = unix_now(),
                                .blob = {}});
  }
  std::vector<Digest> lost;
  for (const auto& [digest, partial] : catalog_.partials())
    if (!there.contains(digest)) lost.push_back(digest);
  for (const Digest& digest : lost) catalog_.drop_partial(digest);
}

std::vector<Store::PartialFile> Store::sweep_partials(std::vector<std::string>& faults) {
  std::vector<PartialFile> files;
  std::vector<std::string> leftovers;
  const auto try_to = [&](const auto& work) {
    try {
      work();
    } catch (const Failure& failure) {
      faults.emplace_back(failure.what());
    }
  };
  try_to([&] {
    disk_.list(layout_.partial(), [&](const std::string& name, std::uint64_t size_bytes) {
      PartialFile file{Layout::parse_partial(name)};
      next_partial_ = std::max(next_partial_, file.number + 1);
      const Catalog::Partial* partial = file.digest ? catalog_.partial(*file.digest) : nullptr;
      file.kept = partial && partial->number == file.number && partial->first_end() <= size_bytes &&
                  !catalog_.find(*file.digest);
      if (file.kept) {
        files.push_back(file);
      } else {
        leftovers.push_back(name);
      }
    });
  });
  for (const std::string& name : leftovers) try_to([&] { disk_.remove(layout_.partial() / name); });
  for (PartialFile& file : files)
    try_to([&] {
      file.allocated_bytes = disk_.allocated(layout_.partial(*file.digest, file.number));
    });
  return files;
}

std::optional<Digest> Store::oldest_partial() const {
  const auto oldest = std::ranges::min_element(
      kept_, {}, [](const auto& entry) { return entry.second.left_unix_seconds; });
  if (oldest == kept_.end()) return std::nullopt;
  return oldest->first;
}

bool Store::partial_goes_first() const {
  const auto partial = oldest_partial();
  if (!partial) return false;
  auto oldest = catalog_.oldest_first([this](const Digest& digest) { return evictable(digest); }) |
                std::views::filter(&Candidate::evictable) | std::views::take(1);
  const auto first = oldest.begin();
  return first == oldest.end() ||
         catalog_.find((*first).digest)->used_unix_seconds >= kept_.at(*partial).left_unix_seconds;
}

asio::awaitable<bool> Store::discard_partial(Digest digest) {
  const auto it = kept_.find(digest);
  if (it == kept_.end()) co_return true;
  const Kept kept = it->second;
  kept_.erase(it);
  kept_bytes_ -= kept.bytes;
  auto space = count_unlinked(kept.bytes);
  const Leaving leaving(*this, {});
  bool gone = true;
  co_await offload(disk_pool_, [&] {
    try {
      disk_.remove(layout_.partial(digest, kept.number));
    } catch (const Failure&) {  // Tried again when room is needed.
      gone = false;
    }
  });
  if (!gone) {
    keep_partial(digest, kept);
    co_return false;
  }
  catalog_.drop_partial(digest);
  // Readers of the transfer that broke off may still have it open.
  if (const auto blob = kept.blob.lock()) close_on_pool(*blob, std::move(space));
  co_return true;
}

asio::awaitable<void> Store::expire_partials() {
  std::vector<Digest> expired;
  for (const auto& [digest, kept] : kept_)
    if (clock_.now() - kept.left >= kept_for) expired.push_back(digest);
  for (const Digest& digest : expired) co_await discard_partial(digest);
}

}  // namespace staithe::cache
