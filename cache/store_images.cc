// The store's images: which there are, and what each of them needs.
#include <algorithm>
#include <set>
#include <unordered_map>
#include <utility>

#include "cache/offload.h"
#include "cache/store.h"
#include "cache/store_known.h"

namespace staithe::cache {

namespace {

// Parsing more than this is left to the pool: 16 KiB take about 100 us.
constexpr std::size_t parsed_at_once_bytes = 16 * 1024;
// Descriptors that a walk over many images remembers, about 20 MB; beyond that it reads again.
constexpr std::size_t most_remembered = 200'000;
// How many steps of a walk may be done before others get the loop.
constexpr std::size_t steps_at_once = 200;
constexpr std::size_t parts_per_step = 32;

}  // namespace

asio::awaitable<void> Store::breathe() { co_await asio::post(loop_, asio::use_awaitable); }

asio::awaitable<std::shared_ptr<const References>> Store::references(Digest digest, Known& known) {
  if (known.steps > steps_at_once) {
    known.steps = 0;
    co_await breathe();
  }
  ++known.steps;
  if (const auto it = known.references.find(digest); it != known.references.end()) {
    known.steps += (it->second->manifests.size() + it->second->blobs.size()) / parts_per_step;
    co_return it->second;
  }
  const ManifestPtr manifest = co_await peek_manifest(digest);
  if (!manifest) co_return nullptr;
  std::shared_ptr<References> found;
  if (manifest->bytes.size() <= parsed_at_once_bytes) {
    found = std::make_shared<References>(references_of(manifest->bytes));
  } else {
    found = co_await offload(
        disk_pool_, [&] { return std::make_shared<References>(references_of(manifest->bytes)); });
  }
  const std::size_t size = 1 + found->manifests.size() + found->blobs.size();
  if (known.remembered + size <= most_remembered) {
    known.remembered += size;
    known.references.emplace(digest, found);
    known.media_types.emplace(digest, manifest->media_type);
  }
  if (digest == known.root) known.root_media_type = manifest->media_type;
  co_return found;
}

asio::awaitable<ManifestPtr> Store::peek_manifest(Digest digest) {
  if (const auto it = manifests_.find(digest); it != manifests_.end()) co_return *it->second;
  if (const auto it = storing_.find(digest); it != storing_.end()) co_return it->second;
  co_return co_await read_manifest(digest);
}

asio::awaitable<Image> Store::image(Digest root) {
  Known known;
  co_return co_await image(root, known);
}

asio::awaitable<Image> Store::image(Digest root, Known& known) {
  Image image;
  std::set<Digest> seen;  // ordered: see Digest::hash()
  const auto add = [&](const Digest& digest, std::optional<std::uint64_t> said_bytes, bool needed) {
    if (!seen.insert(digest).second) return false;
    if (image.parts.size() == most_image_parts) {
      image.cut = true;
      return false;
    }
    const Catalog::Object* object = catalog_.find(digest);
    const auto size_bytes = object ? std::optional(object->size_bytes) : said_bytes;
    image.parts.push_back(
        {.digest = digest, .size_bytes = size_bytes, .stored = object != nullptr});
    if (object) image.cached_bytes += *size_bytes;
    // What a document says may be anything; nobody has so much.
    constexpr std::uint64_t most_bytes = std::uint64_t{1} << 60;
    if (object || needed)
      image.needed_bytes =
          std::min(most_bytes, image.needed_bytes) + std::min(most_bytes, size_bytes.value_or(0));
    return true;
  };
  known.root = root;
  known.root_media_type.clear();
  add(root, std::nullopt, true);
  std::vector<Digest> to_read = {root};
  bool whole = true;
  std::size_t platforms = 0;
  std::size_t platforms_here = 0;
  for (std::size_t next = 0; next < to_read.size(); ++next) {
    const Digest digest = to_read[next];
    const auto references = co_await this->references(digest, known);
    if (!references) {
      if (next == 0) whole = false;
      continue;
    }
    if (next == 0) {
      const auto it = known.media_types.find(root);
      image.media_type = it == known.media_types.end() ? known.root_media_type : it->second;
    } else {
      ++platforms_here;
    }
    if (references->cut) image.cut = true;
    for (const Descriptor& manifest : references->manifests) {
      ++platforms;
      if (add(manifest.digest, manifest.size_bytes, false)) to_read.push_back(manifest.digest);
    }
    for (const Descriptor& blob : references->blobs) {
      add(blob.digest, blob.size_bytes, true);
      if (!catalog_.find(blob.digest)) whole = false;
    }
  }
  image.complete = whole && !image.cut && (platforms == 0 || platforms_here > 0);
  co_return image;
}

asio::awaitable<std::unordered_set<Digest>> Store::reach(std::vector<Digest> roots, Known& known) {
  std::unordered_set<Digest> reached;
  while (!roots.empty()) {
    const Digest digest = roots.back();
    roots.pop_back();
    // Bounded by what is stored: the rest is of no interest.
    if (!catalog_.find(digest) || !reached.insert(digest).second) continue;
    const auto references = co_await this->references(digest, known);
    if (!references) continue;
    for (const Descriptor& manifest : references->manifests) roots.push_back(manifest.digest);
    for (const Descriptor& blob : references->blobs)
      if (catalog_.find(blob.digest)) reached.insert(blob.digest);
  }
  co_return reached;
}

asio::awaitable<std::vector<ListedImage>> Store::images() {
  Known known;
  std::vector<ListedImage> images;
  std::set<std::pair<std::string, Digest>> named;  // by a tag, or as a part of another image
  for (TagRow& tag : catalog_.tags()) {
    named.emplace(tag.repository, tag.digest);
    images.push_back({.repository = std::move(tag.repository),
                      .reference = std::move(tag.tag),
                      .digest = tag.digest,
                      .image = {},
                      .used_unix_seconds = 0,
                      .tag_age = age_of(tag.checked_unix_seconds),
                      .pinned = false});
  }
  std::vector<Digest> manifests;
  for (const Digest& digest : catalog_.digests())
    if (has_manifest(digest)) manifests.push_back(digest);
  for (const Digest& digest : manifests) {
    const auto references = co_await this->references(digest, known);
    if (!references || references->manifests.empty()) continue;
    for (const std::string& repository : catalog_.repositories_of(digest))
      for (const Descriptor& part : references->manifests) named.emplace(repository, part.digest);
  }
  for (const Digest& digest : manifests)
    for (std::string& repository : catalog_.repositories_of(digest))
      if (named.emplace(repository, digest).second)
        images.push_back({.repository = std::move(repository),
                          .reference = digest.to_string(),
                          .digest = digest,
                          .image = {},
                          .used_unix_seconds = 0,
                          .tag_age = std::nullopt,
                          .pinned = false});
  const auto key = [](const ListedImage& image) {
    return Catalog::PinName{image.repository, image.reference};
  };
  std::ranges::sort(images, {}, key);
  // Pins of what was not pulled yet, and of a part of another image.
  std::vector<ListedImage> only_pinned;
  for (const auto& [name, needs] : catalog_.pins())
    if (!std::ranges::binary_search(images, name, {}, key))
      only_pinned.push_back({.repository = name.repository,
                             .reference = name.reference,
                             .digest = root_of(name),
                             .image = {},
                             .used_unix_seconds = 0,
                             .tag_age = std::nullopt,
                             .pinned = true});
  std::ranges::move(only_pinned, std::back_inserter(images));
  std::ranges::sort(images, {}, key);
  for (ListedImage& image : images) {
    image.pinned = catalog_.pins().contains(key(image));
    if (!image.digest) continue;
    image.image = co_await this->image(*image.digest, known);
    image.image.parts = {};
    if (const Catalog::Object* object = catalog_.find(*image.digest))
      image.used_unix_seconds = object->used_unix_seconds;
  }
  co_return images;
}

}  // namespace staithe::cache
