#include "cache/manifest.h"

namespace staithe::cache {

std::string to_record(const Manifest& manifest) {
  return manifest.media_type + "\n" + manifest.bytes;
}

Result<Manifest> from_record(const Digest& digest, std::string_view record) {
  const std::size_t end = record.find('\n');
  if (end == std::string_view::npos || end == 0)
    return fail(Errc::digest_invalid, "the stored manifest " + digest.to_string() +
                                          " has no media type; it is set aside");
  Manifest manifest{.digest = digest,
                    .media_type = std::string(record.substr(0, end)),
                    .bytes = std::string(record.substr(end + 1))};
  if (digest_of(digest.algorithm(), manifest.bytes) != digest)
    return fail(Errc::digest_invalid, "the stored manifest " + digest.to_string() +
                                          " does not have its digest; it is set aside");
  return manifest;
}

}  // namespace staithe::cache
