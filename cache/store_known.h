// What a walk over images has read so far. Of the store's own sources.
#pragma once

#include <memory>
#include <string>
#include <unordered_map>

#include "cache/image.h"
#include "cache/store.h"

namespace staithe::cache {

struct Store::Known {
  std::unordered_map<Digest, std::shared_ptr<const References>> references;
  std::unordered_map<Digest, std::string> media_types;
  std::size_t remembered = 0;  // descriptors
  std::size_t steps = 0;
  std::optional<Digest> root;  // whose media type is wanted, remembered or not
  std::string root_media_type;
};

}  // namespace staithe::cache
