// What a manifest refers to, and what of an image stands in the store.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "cache/digest.h"

namespace staithe::cache {

// A descriptor of the OCI image spec, as far as it matters here.
struct Descriptor {
  Digest digest;
  std::optional<std::uint64_t> size_bytes;  // as the document says
};

// What a manifest or index names, each digest once, in the order of the document.
struct References {
  std::vector<Descriptor> manifests;  // of an index: one per platform
  std::vector<Descriptor> blobs;      // config and layers
  // The document names more than `most_references`; the rest is not in here.
  bool cut = false;
};

// Real images have at most 127 layers, the largest indexes a few hundred manifests.
inline constexpr std::size_t most_references = 10'000;
// Of one image, everything that its manifests name together.
inline constexpr std::size_t most_image_parts = 20'000;

// Pure. What is no digest is passed over, and a document that is no manifest refers to nothing.
// Knows OCI manifests, indexes and artifact manifests, and Docker's of schema 2 and 1.
References references_of(std::string_view document);

// An image as far as it is known: what its cached manifests name. Of a platform that nobody has
// pulled only the manifest's digest is known.
struct Image {
  struct Part {
    Digest digest;
    std::optional<std::uint64_t> size_bytes;  // its file's, or what the document says
    bool stored;
  };
  std::vector<Part> parts;         // the image's own manifest first
  std::string media_type;          // of that; empty while it is not here
  std::uint64_t needed_bytes = 0;  // of what the cached manifests name, but for other platforms
  std::uint64_t cached_bytes = 0;
  // A client finds all of it here: the manifest, of an index at least one platform's, and of each
  // platform that is here config and layers.
  bool complete = false;
  bool cut = false;  // it has more than `most_image_parts`; the rest is not in here

  std::size_t stored_parts() const;
};

// One line of `staithe ls`.
struct ListedImage {
  std::string repository;              // "registry/repository"
  std::string reference;               // a tag, or the digest of what was pulled without one
  std::optional<Digest> digest;        // none for a pin whose image was not seen yet
  Image image;                         // without its parts
  std::int64_t used_unix_seconds = 0;  // 0: not known
  std::optional<std::chrono::seconds> tag_age;  // since upstream last confirmed it
  bool pinned = false;                          // by this name
};

// What a purge did.
struct Purged {
  struct Count {
    std::uint64_t objects = 0;
    std::uint64_t bytes = 0;
    void add(std::uint64_t size_bytes) {
      ++objects;
      bytes += size_bytes;
    }
  };
  Count blobs;
  Count manifests;
  std::uint64_t tags = 0;
  // What stayed, and why.
  Count pinned;
  Count shared;  // another cached image needs it
  Count in_use;  // being fetched, or used since the purge began
  Count failed;  // could not be removed, and is stored as before
  // What the operator should know, as sentences: why files could not be removed, or why what was
  // removed may return after a power loss.
  std::vector<std::string> faults;
};

}  // namespace staithe::cache
