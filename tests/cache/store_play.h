// For the property test of the store: blobs, manifests and a random choice among them.
#pragma once

#include <map>
#include <vector>

#include "tests/cache/cellar.h"

namespace staithe::cache {

// What both runs play with: a few blobs and manifests, and a cache that holds some of them.
class Play {
 public:
  static constexpr std::uint64_t max_bytes = 256 * 1024;

  explicit Play(std::uint64_t seed) : random_(seed) {
    for (int i = 0; i < 20; ++i) {
      static constexpr std::uint64_t sizes[] = {0, 1, 4095, 4096, 4097, 20'000, 50'000, 100'000};
      const std::uint64_t size = i < 8 ? sizes[i] : below(40'000);
      const std::string bytes = noise(size, 1000 * seed + i);
      if (blobs_.emplace(digest_of(bytes), bytes).second) digests_.push_back(digest_of(bytes));
    }
    for (int i = 0; i < 6; ++i) {
      auto manifest = manifest_of("{\"n\":\"" +
                                  std::string(1 + below(8000), static_cast<char>('a' + i)) + "\"}");
      manifests_.emplace(manifest->digest, manifest);
      manifest_digests_.push_back(manifest->digest);
    }
  }

 protected:
  std::uint64_t below(std::uint64_t bound) { return random_.next() % bound; }
  const Digest& any_blob() { return digests_[below(digests_.size())]; }
  const Digest& any_manifest() { return manifest_digests_[below(manifest_digests_.size())]; }
  Digest any_digest() { return below(4) == 0 ? any_manifest() : any_blob(); }
  std::string any_repository() { return "r/" + std::to_string(below(3)); }
  Store& store() { return *cellar_.store; }

  SeededRandom random_;
  std::map<Digest, std::string> blobs_;
  std::vector<Digest> digests_;
  std::map<Digest, ManifestPtr> manifests_;
  std::vector<Digest> manifest_digests_;
  Cellar cellar_{{.bytes = max_bytes}};
};

}  // namespace staithe::cache
