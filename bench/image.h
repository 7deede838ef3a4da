// What is pulled: an image of one large blob and some small ones, the same bytes on every machine,
// stored as docker-registry keeps it on disk.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "cache/digest.h"

namespace staithe::bench {

inline constexpr const char* manifest_type = "application/vnd.oci.image.manifest.v1+json";
inline constexpr const char* blob_type = "application/octet-stream";

// Something that a registry serves.
struct Object {
  std::string target;  // "/v2/..."
  std::string media_type;
  std::filesystem::path file;  // where the origin has its bytes
  cache::Digest digest;
  std::uint64_t size_bytes;
};

struct Image {
  Object large;
  std::vector<Object> small;  // 4, 8, ... 64 KiB
  Object manifest;            // by digest
  Object tag;                 // the same manifest by tag

  // Everything that is to be in the caches.
  std::vector<Object> all() const;
};

// Writes the image into `root`, the directory of a docker-registry, without asking one: a push of
// 1 GiB would tell nothing here.
Image make_image(const std::filesystem::path& root, std::uint64_t large_bytes);

// Blobs of these sizes in the same repository, without a manifest that names them.
std::vector<Object> make_blobs(const std::filesystem::path& root,
                               const std::vector<std::uint64_t>& sizes);

}  // namespace staithe::bench
