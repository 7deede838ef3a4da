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

}  // namespace staithe::cache
