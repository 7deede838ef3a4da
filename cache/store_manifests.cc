// The store's manifests: in memory for as long as that has room, and on disk.
#include <utility>

#include "cache/offload.h"
#include "cache/store.h"

namespace staithe::cache {

namespace {

// Manifests in memory: a machine's images are a few hundred manifests of some KiB each.
constexpr std::uint64_t max_manifest_bytes = 32 * 1024 * 1024;

}  // namespace

asio::awaitable<ManifestPtr> Store::manifest(Digest digest) {
  ++uses_;
  if (const auto it = manifests_.find(digest); it != manifests_.end()) {
    manifest_order_.splice(manifest_order_.begin(), manifest_order_, it->second);
    catalog_.touch(digest, unix_now());
    co_return *it->second;
  }
  if (const auto it = storing_.find(digest); it != storing_.end()) co_return it->second;
  auto manifest = co_await read_manifest(digest);
  if (!manifest) co_return nullptr;
  catalog_.touch(digest, unix_now());
  remember_manifest(manifest);
  co_return manifest;
}

asio::awaitable<ManifestPtr> Store::read_manifest(Digest digest, Checked* checked) {
  const auto say = [&](Condition condition, std::string_view why = {}) {
    if (checked) *checked = {condition, std::string(why)};
  };
  say(Condition::replaced);
  if (!stored(ObjectKind::manifest, digest)) co_return nullptr;
  std::string record;
  bool opened = false;
  bool there = false;
  std::string broken;
  try {
    co_await offload(disk_pool_, [&] {
      if (!in_place()) return;
      const File file = disk_.open(layout_.object(ObjectKind::manifest, digest));
      opened = true;
      there = static_cast<bool>(file);
      if (there) record = read_record(file);
    });
  } catch (const Failure& failure) {
    broken = failure.what();
  }
  if (const auto it = storing_.find(digest); it != storing_.end()) co_return it->second;
  if (!stored(ObjectKind::manifest, digest)) co_return nullptr;  // Evicted meanwhile.
  if (!opened) {  // As for blobs: nothing is known against the file.
    say(Condition::unreadable, broken);
    report_("manifest not opened", broken);
    co_return nullptr;
  }
  if (!there) {
    say(Condition::gone);
    catalog_.drop(digest);
    co_return nullptr;
  }
  say(Condition::failing, broken);
  if (broken.empty()) {
    auto manifest = from_record(digest, record);
    if (manifest) {
      if (catalog_.find(digest)->size_bytes != record.size())
        catalog_.set_size(digest, record.size());
      catalog_.set_verified(digest, unix_now());
      say(Condition::good);
      co_return std::make_shared<const Manifest>(std::move(*manifest));
    }
    broken = manifest.error().detail;
    say(Condition::damaged, broken);
  }
  co_await set_aside(ObjectKind::manifest, digest, broken);
  co_return nullptr;
}

std::string Store::read_record(const File& file) {
  const std::uint64_t size_bytes = disk_.size(file);
  if (size_bytes > max_manifest_bytes) return {};
  std::string record(size_bytes, '\0');
  record.resize(disk_.read(file, record, 0));
  return record;
}

bool Store::has_manifest(const Digest& digest) const {
  const Catalog::Object* object = catalog_.find(digest);
  return object && object->kind == ObjectKind::manifest && !lost_;
}

void Store::put_manifest(ManifestPtr manifest) {
  const Digest digest = manifest->digest;
  remember_manifest(manifest);
  note_manifest(*manifest);
  const Catalog::Object* object = catalog_.find(digest);
  if (growing_.contains(digest) || (object && object->kind == ObjectKind::blob)) return;
  if (object && object->verified && !leaving_.contains(digest)) {
    catalog_.touch(digest, unix_now());
    return;
  }
  if (!writable()) return;
  // Held from now on, so that links have something to belong to. A start that finds no file drops
  // it again.
  const bool there = object && !leaving_.contains(digest);
  catalog_.add(digest, ObjectKind::manifest, to_record(*manifest).size(), true, unix_now());
  storing_.emplace(digest, manifest);
  if (!tasks_.spawn("store manifest", store_manifest(std::move(manifest), there))) {
    storing_.erase(digest);
    if (!there) catalog_.drop(digest);
  }
}

asio::awaitable<void> Store::store_manifest(ManifestPtr manifest, bool there) {
  const Digest digest = manifest->digest;
  const std::string record = to_record(*manifest);
  const auto partial = layout_.partial(digest, next_partial_++);
  // Until it is replaced the old file takes room beside the new one.
  const auto both = there ? count_unlinked(cost_bytes(record.size())) : nullptr;
  bool publishing = false;
  std::exception_ptr failed;
  std::string sentence;
  try {
    // What is good is not put at risk by being replaced.
    if (there && co_await offload(disk_pool_, [&] { return has_record(digest, record); })) {
      storing_.erase(digest);
      co_return;
    }
    co_await make_room(0);
    const File file = co_await writing_or_evicting([&] { return disk_.create(partial); });
    co_await writing_or_evicting([&] { disk_.write(file, record, 0); });
    publishing = true;
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
  if (there && !publishing) {  // Its file is still there; whoever reads it looks.
    catalog_.add(digest, ObjectKind::manifest, record.size(), false, unix_now());
  } else {
    catalog_.drop(digest);
    if (!reconciled_) removed_.insert(digest);
  }
  remove_later(partial, count_unlinked(cost_bytes(record.size())));
  if (sentence.empty()) std::rethrow_exception(failed);
  report_("manifest not stored", sentence);
}

bool Store::has_record(const Digest& digest, std::string_view record) {
  try {
    const File file = disk_.open(layout_.object(ObjectKind::manifest, digest));
    return file && read_record(file) == record;
  } catch (const Failure&) {
    return false;
  }
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
  tell_gone(digest);
  const auto it = manifests_.find(digest);
  if (it == manifests_.end()) return;
  manifest_bytes_ -= (*it->second)->bytes.size();
  manifest_order_.erase(it->second);
  manifests_.erase(it);
}

}  // namespace staithe::cache
