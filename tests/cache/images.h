// Images for the tests of the store: manifests that name blobs, as a client would bring them in.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "tests/cache/cellar.h"

namespace staithe::cache {

inline constexpr std::string_view image_type = "application/vnd.oci.image.manifest.v1+json";
inline constexpr std::string_view index_type = "application/vnd.oci.image.index.v1+json";

inline std::string descriptor_of(std::string_view bytes) {
  return R"({"digest":")" + digest_of(bytes).to_string() + R"(","size":)" +
         std::to_string(bytes.size()) + "}";
}

// The first of `blobs` is the config.
inline ManifestPtr image_manifest(const std::vector<std::string>& blobs,
                                  std::string_view note = "") {
  std::string text = R"({"schemaVersion":2,"note":")" + std::string(note) + R"(","config":)" +
                     descriptor_of(blobs.front()) + R"(,"layers":[)";
  for (std::size_t i = 1; i < blobs.size(); ++i)
    text += (i > 1 ? "," : "") + descriptor_of(blobs[i]);
  return manifest_of(text + "]}", std::string(image_type));
}

inline ManifestPtr image_index(const std::vector<ManifestPtr>& manifests) {
  std::string text = R"({"schemaVersion":2,"manifests":[)";
  for (std::size_t i = 0; i < manifests.size(); ++i)
    text += (i > 0 ? "," : "") + descriptor_of(manifests[i]->bytes);
  return manifest_of(text + "]}", std::string(index_type));
}

// As proxy/manifests.cc does it for a manifest that came from upstream.
inline void bring(Cellar& cellar, std::string_view repository, const ManifestPtr& manifest,
                  std::string_view tag = "") {
  cellar.store->put_manifest(manifest);
  cellar.store->link(repository, manifest->digest);
  if (!tag.empty()) cellar.store->put_tag(repository, tag, manifest->digest);
  cellar.settle();
}

// As proxy/fills.cc.
inline Digest bring_blob(Cellar& cellar, std::string_view repository, const std::string& bytes) {
  const Digest digest = digest_of(bytes);
  if (!cellar.store->size_of_blob(digest)) cellar.fill(bytes);
  cellar.store->link(repository, digest);
  return digest;
}

// A whole pull.
inline ManifestPtr pull(Cellar& cellar, std::string_view repository, std::string_view tag,
                        const std::vector<std::string>& blobs, std::string_view note = "") {
  const ManifestPtr manifest = image_manifest(blobs, note);
  bring(cellar, repository, manifest, tag);
  for (const std::string& bytes : blobs) bring_blob(cellar, repository, bytes);
  return manifest;
}

}  // namespace staithe::cache
