// The store's purges: what an operator wants gone.
//
// A purge removes files in batches, then syncs their directories, then writes the index, and then
// answers. What could not be removed stays stored and is told. Who reads a blob meanwhile reads on,
// since its file has only lost its name.
#include <algorithm>
#include <array>
#include <boost/asio/experimental/awaitable_operators.hpp>
#include <ranges>
#include <set>
#include <span>
#include <utility>

#include "cache/eviction.h"
#include "cache/offload.h"
#include "cache/store.h"
#include "cache/store_known.h"

namespace staithe::cache {

namespace {

// Removed between two looks at the loop, and not to be found meanwhile.
constexpr std::size_t removed_at_once = 128;
constexpr std::size_t synced_at_once = 16;
// Looked at before others get the loop; some milliseconds.
constexpr std::size_t seen_at_once = 5'000;
// Of the same kind; the rest is counted.
constexpr std::size_t most_faults = 4;

}  // namespace

// An object that is to go, unless it was used after `begun`.
struct Store::Doomed {
  Digest digest;
  ObjectKind kind;
  std::int64_t begun;
};

void Store::must_be_removable() {
  if (lost_ || space_.read_only) throw not_writable();
}

asio::awaitable<Purged> Store::purge_image(std::string repository, std::string reference) {
  const Catalog::PinName name{std::move(repository), std::move(reference)};
  const std::string& where = name.repository;
  const bool by_tag = name.reference.find(':') == std::string::npos;
  const std::string shown = where + (by_tag ? ":" : "@") + name.reference;
  const auto root = root_of(name);
  if (!root || (!by_tag && !catalog_.linked(where, *root)))
    throw Failure(Errc::not_found,
                  shown + " is not in the cache: staithe ls shows the images that are");
  if (catalog_.pins().contains(name))
    throw Failure(Errc::in_use, shown + " is pinned: take the pin away with staithe unpin " +
                                    shown + ", then purge it");
  co_await measure_space();
  must_be_removable();

  const std::int64_t begun = catalog_.last_order();
  Known known;
  const Image image = co_await this->image(*root, known);
  const auto parts = co_await reach({*root}, known);
  // Roots of what others need. A part that this repository has shown as a part, to who pulled the
  // image, is no image of its own.
  std::vector<Digest> others;
  std::vector<Digest> others_here;
  for (const TagRow& tag : catalog_.tags()) {
    if (tag.repository == where && tag.tag == name.reference) continue;
    (tag.repository == where ? others_here : others).push_back(tag.digest);
  }
  std::size_t seen = 0;
  for (const Digest& digest : catalog_.digests()) {
    if (++seen % seen_at_once == 0) co_await breathe();
    if (!has_manifest(digest)) continue;
    for (const std::string& linked : catalog_.repositories_of(digest)) {
      if (linked != where) {
        others.push_back(digest);
      } else if (!parts.contains(digest)) {
        others_here.push_back(digest);
      }
    }
  }
  const auto needed_here = co_await reach(std::move(others_here), known);
  const auto needed = co_await reach(std::move(others), known);
  std::set<Digest> pinned_here;
  for (const auto& [pin, needs] : catalog_.pins())
    if (pin.repository == where) pinned_here.insert(needs.begin(), needs.end());

  if (catalog_.pins().contains(name))
    throw Failure(Errc::in_use, shown + " was pinned at this moment, and stays");
  Purged purged;
  if (by_tag && catalog_.tag(where, name.reference)) {
    catalog_.drop_tag(where, name.reference);
    ++purged.tags;
  }
  // What is being fetched is no object yet.
  for (const Image::Part& part : image.parts)
    if (const auto it = growing_.find(part.digest);
        it != growing_.end() && !catalog_.find(part.digest))
      purged.in_use.add(it->second->size_bytes().value_or(0));
  std::vector<Doomed> doomed;
  for (const Digest& digest : parts) {
    const Catalog::Object* object = catalog_.find(digest);
    if (!object) continue;
    if (needed_here.contains(digest) || needed.contains(digest)) {
      purged.shared.add(object->size_bytes);
    } else if (catalog_.pinned(digest)) {
      purged.pinned.add(object->size_bytes);
    } else {
      doomed.push_back({digest, object->kind, begun});
    }
    // The right to it through this repository goes with the image.
    if (!needed_here.contains(digest) && !pinned_here.contains(digest))
      catalog_.unlink(where, digest);
  }
  if (!catalog_.find(*root)) forget_manifest(*root);
  co_await purge_objects(std::move(doomed), purged);
  co_await end_purge(purged);
  co_return purged;
}

asio::awaitable<Purged> Store::purge_all() {
  co_await measure_space();
  must_be_removable();
  const std::int64_t begun = catalog_.last_order();
  Purged purged;
  for (const TagRow& tag : catalog_.tags()) {
    if (catalog_.pins().contains({tag.repository, tag.tag})) continue;
    catalog_.drop_tag(tag.repository, tag.tag);
    ++purged.tags;
  }
  // Of what is shared with a pinned image the right to it stays in the pinned repositories only.
  std::set<std::pair<Digest, std::string>> rights;
  for (const auto& [pin, needs] : catalog_.pins())
    for (const Digest& digest : needs) rights.emplace(digest, pin.repository);
  std::vector<Doomed> doomed;
  std::size_t seen = 0;
  for (const Digest& digest : catalog_.digests()) {
    if (++seen % seen_at_once == 0) co_await breathe();
    const Catalog::Object* object = catalog_.find(digest);
    if (!object) continue;
    if (!catalog_.pinned(digest)) {
      doomed.push_back({digest, object->kind, begun});
      continue;
    }
    purged.pinned.add(object->size_bytes);
    for (const std::string& repository : catalog_.repositories_of(digest))
      if (!rights.contains({digest, repository})) catalog_.unlink(repository, digest);
  }
  for (const auto& [digest, blob] : growing_)
    if (!catalog_.find(digest)) purged.in_use.add(blob->size_bytes().value_or(0));
  co_await purge_objects(std::move(doomed), purged);
  // Those that could not be stored.
  std::vector<Digest> remembered;
  for (const ManifestPtr& manifest : manifest_order_)
    if (!catalog_.find(manifest->digest)) remembered.push_back(manifest->digest);
  for (const Digest& digest : remembered) forget_manifest(digest);
  co_await trim_quarantine(0);
  while (const auto partial = oldest_partial())
    if (!co_await discard_partial(*partial)) break;
  co_await end_purge(purged);
  co_return purged;
}

asio::awaitable<Purged> Store::purge_unused(std::chrono::seconds age) {
  co_await measure_space();
  must_be_removable();
  const std::int64_t begun = catalog_.last_order();
  const std::int64_t unused_since = unix_now() - age.count();
  const auto unused = [&](const Catalog::Object& object) {
    return object.used_unix_seconds > 0 && object.used_unix_seconds <= unused_since;
  };
  // Clients that have a layer ask only for the manifest: an image is used as a whole.
  std::vector<Digest> roots;
  std::size_t seen = 0;
  for (const Digest& digest : catalog_.digests()) {
    if (has_manifest(digest) && !unused(*catalog_.find(digest))) roots.push_back(digest);
    if (++seen % seen_at_once == 0) co_await breathe();
  }
  Known known;
  const auto needed = co_await reach(std::move(roots), known);
  Purged purged;
  std::vector<Doomed> doomed;
  for (const Digest& digest : catalog_.digests()) {
    if (++seen % seen_at_once == 0) co_await breathe();
    const Catalog::Object* object = catalog_.find(digest);
    if (!object || !unused(*object)) continue;
    if (catalog_.pinned(digest)) {
      purged.pinned.add(object->size_bytes);
    } else if (needed.contains(digest)) {
      purged.shared.add(object->size_bytes);
    } else {
      doomed.push_back({digest, object->kind, begun});
    }
  }
  std::unordered_set<Digest> manifests;
  for (const Doomed& one : doomed)
    if (one.kind == ObjectKind::manifest) manifests.insert(one.digest);
  co_await purge_objects(std::move(doomed), purged);
  for (const TagRow& tag : catalog_.tags()) {
    if (!manifests.contains(tag.digest) || catalog_.find(tag.digest)) continue;
    if (catalog_.pins().contains({tag.repository, tag.tag})) continue;
    catalog_.drop_tag(tag.repository, tag.tag);
    ++purged.tags;
  }
  co_await end_purge(purged);
  co_return purged;
}

asio::awaitable<void> Store::purge_objects(std::vector<Doomed> doomed, Purged& purged) {
  using namespace asio::experimental::awaitable_operators;
  struct Removal {
    Doomed object;
    std::uint64_t size_bytes;
    bool gone = false;
  };
  // By directory, which is kinder to the disk.
  co_await offload(disk_pool_, [&] {
    std::ranges::sort(doomed, {},
                      [](const Doomed& one) { return std::pair(one.kind, one.digest); });
  });
  std::set<std::filesystem::path> directories;
  std::size_t unremoved = 0;
  std::size_t unsynced = 0;
  const auto tell = [&](std::size_t& count, std::string sentence) {
    if (++count <= most_faults) purged.faults.push_back(std::move(sentence));
  };
  for (std::size_t next = 0; next < doomed.size();) {
    std::vector<Removal> removals;
    std::vector<Digest> leaving;
    for (; next < doomed.size() && removals.size() < removed_at_once; ++next) {
      const Doomed& one = doomed[next];
      const Catalog::Object* object = catalog_.find(one.digest);
      if (!object || leaving_.contains(one.digest)) continue;  // Evicted.
      if (catalog_.pinned(one.digest)) {
        purged.pinned.add(object->size_bytes);
      } else if (growing_.contains(one.digest) || storing_.contains(one.digest) ||
                 object->kind != one.kind || object->used_order > one.begun) {
        purged.in_use.add(object->size_bytes);
      } else {
        removals.push_back({one, object->size_bytes});
        leaving.push_back(one.digest);
      }
    }
    if (removals.empty()) continue;
    for (const Removal& removal : removals) forget_open(removal.object.digest);
    const Leaving under_way(*this, std::move(leaving));
    // Where the file system discards blocks as they are freed, a removal is a wait for the device,
    // and two wait at once; the other half of the pool is for those who read.
    struct Share {
      std::span<Removal> removals;
      std::vector<std::string> faults = {};
    };
    const auto remove = [&](Share& share) {
      const bool here = in_place();
      for (Removal& removal : share.removals) {
        try {
          if (!here)
            throw Failure(Errc::storage_failed,
                          layout_.root().string() + " was removed or replaced while it was in use");
          disk_.remove(layout_.object(removal.object.kind, removal.object.digest));
          removal.gone = true;
        } catch (const Failure& failure) {
          share.faults.emplace_back(failure.what());
        }
      }
    };
    const std::span all(removals);
    std::array<Share, 2> shares = {Share{all.first(all.size() / 2)},
                                   Share{all.subspan(all.size() / 2)}};
    co_await (offload(disk_pool_, [&] { remove(shares[0]); }) &&
              offload(disk_pool_, [&] { remove(shares[1]); }));
    for (Share& share : shares)
      for (std::string& fault : share.faults) tell(unremoved, std::move(fault));
    for (const Removal& removal : removals)
      if (removal.gone)
        directories.insert(layout_.directory(removal.object.kind, removal.object.digest));
    for (const Removal& removal : removals) {
      if (!removal.gone) {
        purged.failed.add(removal.size_bytes);
        continue;
      }
      (removal.object.kind == ObjectKind::blob ? purged.blobs : purged.manifests)
          .add(removal.size_bytes);
      if (storing_.contains(removal.object.digest)) continue;  // Put again meanwhile.
      forget_manifest(removal.object.digest);
      catalog_.drop(removal.object.digest);
    }
  }
  // Once each and after all of it: a file system with a journal then writes that only once.
  for (auto next = directories.begin(); next != directories.end();) {
    std::vector<std::string> faults;
    co_await offload(disk_pool_, [&] {
      for (std::size_t i = 0; i < synced_at_once && next != directories.end(); ++i, ++next) {
        try {
          disk_.sync_directory(*next);
        } catch (const Failure& failure) {
          faults.push_back(std::string(failure.what()) +
                           ": what was removed there may be back after a loss of power");
        }
      }
    });
    for (std::string& fault : faults) tell(unsynced, std::move(fault));
  }
}

asio::awaitable<void> Store::end_purge(Purged& purged) {
  std::string sentence;
  try {
    co_await write_index_durably();
  } catch (const Failure& failure) {
    sentence = failure.what();
  }
  if (!sentence.empty())
    purged.faults.push_back(sentence +
                            ": until the index is written again, a restart may bring names back "
                            "whose content is gone");
}

}  // namespace staithe::cache
