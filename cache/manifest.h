// A manifest or index exactly as upstream sent it: bytes and media type belong together (a document
// read under another type is another document, CVE-2021-41190), so they are stored in one file.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "cache/digest.h"

namespace staithe::cache {

struct Manifest {
  Digest digest;
  std::string media_type;
  std::string bytes;
};

using ManifestPtr = std::shared_ptr<const Manifest>;

// The file of a manifest: its media type, a line feed, its bytes.
std::string to_record(const Manifest& manifest);
// Errc::digest_invalid if the record is not that of `digest`.
Result<Manifest> from_record(const Digest& digest, std::string_view record);

}  // namespace staithe::cache
