#include "bench/image.h"

#include <fstream>
#include <span>

#include "cache/error.h"
#include "cache/random.h"

namespace staithe::bench {

namespace {

constexpr const char* repository = "bench/image";
constexpr const char* tag_name = "1";
constexpr std::uint64_t small_step_bytes = 4 * 1024;
constexpr std::uint64_t small_max_bytes = 64 * 1024;
constexpr std::size_t piece_bytes = 1024 * 1024;

void write_file(const std::filesystem::path& path, std::string_view bytes) {
  std::filesystem::create_directories(path.parent_path());
  std::ofstream file(path, std::ios::binary);
  file.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  if (!file.flush()) throw Failure(Errc::storage_failed, "cannot write " + path.string());
}

// docker-registry's layout: bytes below blobs/, and below repositories/ files that name a digest.
class Storage {
 public:
  explicit Storage(const std::filesystem::path& root) : root_(root / "docker/registry/v2") {}

  std::filesystem::path data(const cache::Digest& digest) const {
    const std::string hex = digest.hex();
    return root_ / "blobs/sha256" / hex.substr(0, 2) / hex / "data";
  }
  void link(const std::string& below, const cache::Digest& digest) const {
    write_file(root_ / "repositories" / repository / below / "link", digest.to_string());
  }
  // A blob of this many bytes from the generator.
  Object add_blob(std::uint64_t size_bytes, SeededRandom& random) const {
    const auto growing = root_ / "growing";
    cache::Hasher hasher(cache::Algorithm::sha256);
    std::filesystem::create_directories(root_);
    std::ofstream file(growing, std::ios::binary);
    std::vector<std::uint64_t> piece(piece_bytes / sizeof(std::uint64_t));
    for (std::uint64_t left = size_bytes; left > 0;) {
      for (std::uint64_t& word : piece) word = random.next();
      const std::uint64_t n = std::min<std::uint64_t>(left, piece_bytes);
      const std::span bytes(reinterpret_cast<const char*>(piece.data()), n);
      hasher.update(bytes);
      file.write(bytes.data(), static_cast<std::streamsize>(n));
      left -= n;
    }
    if (!file.flush()) throw Failure(Errc::storage_failed, "cannot write " + growing.string());
    const cache::Digest digest = hasher.digest();
    std::filesystem::create_directories(data(digest).parent_path());
    std::filesystem::rename(growing, data(digest));
    link("_layers/sha256/" + digest.hex(), digest);
    return {.target = std::string("/v2/") + repository + "/blobs/" + digest.to_string(),
            .media_type = blob_type,
            .file = data(digest),
            .digest = digest,
            .size_bytes = size_bytes};
  }

 private:
  std::filesystem::path root_;
};

std::string descriptor(const Object& blob, const char* media_type) {
  return std::string(R"({"mediaType":")") + media_type + R"(","digest":")" +
         blob.digest.to_string() + R"(","size":)" + std::to_string(blob.size_bytes) + "}";
}

}  // namespace

std::vector<Object> Image::all() const {
  std::vector<Object> objects = small;
  objects.push_back(manifest);
  objects.push_back(tag);
  objects.push_back(large);
  return objects;
}

Image make_image(const std::filesystem::path& root, std::uint64_t large_bytes) {
  const Storage storage(root);
  SeededRandom random(1);
  const Object large = storage.add_blob(large_bytes, random);
  std::vector<Object> small;
  for (std::uint64_t size = small_step_bytes; size <= small_max_bytes; size += small_step_bytes)
    small.push_back(storage.add_blob(size, random));

  constexpr const char* layer_type = "application/vnd.oci.image.layer.v1.tar";
  std::string text = std::string(R"({"schemaVersion":2,"mediaType":")") + manifest_type +
                     R"(","config":)" +
                     descriptor(small.front(), "application/vnd.oci.image.config.v1+json") +
                     R"(,"layers":[)" + descriptor(large, layer_type);
  for (const Object& blob : small) text += "," + descriptor(blob, layer_type);
  text += "]}";

  const cache::Digest digest = cache::digest_of(cache::Algorithm::sha256, text);
  const std::string hex = digest.hex();
  write_file(storage.data(digest), text);
  storage.link("_manifests/revisions/sha256/" + hex, digest);
  storage.link(std::string("_manifests/tags/") + tag_name + "/current", digest);
  storage.link(std::string("_manifests/tags/") + tag_name + "/index/sha256/" + hex, digest);
  const std::string manifests = std::string("/v2/") + repository + "/manifests/";
  const Object manifest{.target = manifests + digest.to_string(),
                        .media_type = manifest_type,
                        .file = storage.data(digest),
                        .digest = digest,
                        .size_bytes = text.size()};
  Object tag = manifest;
  tag.target = manifests + tag_name;
  return {.large = large, .small = std::move(small), .manifest = manifest, .tag = std::move(tag)};
}

std::vector<Object> make_blobs(const std::filesystem::path& root,
                               const std::vector<std::uint64_t>& sizes) {
  const Storage storage(root);
  SeededRandom random(2);
  std::vector<Object> blobs;
  for (const std::uint64_t size : sizes) blobs.push_back(storage.add_blob(size, random));
  return blobs;
}

}  // namespace staithe::bench
