// Manifests of a hostile upstream, as pins and purges read them.
#include "cache/image.h"
#include "tests/fuzz/fuzz.h"

void staithe::fuzz::one(std::string_view input) {
  const auto found = cache::references_of(input);
  check(found.manifests.size() + found.blobs.size() <= cache::most_references);
  check(!found.cut || found.manifests.size() + found.blobs.size() == cache::most_references);
}
