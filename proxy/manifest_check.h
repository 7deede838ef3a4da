// Whether a document of upstream's is a manifest: pure, for hostile input.
#pragma once

#include <string>
#include <string_view>

#include "cache/manifest.h"

namespace staithe::proxy {

// Upstream's document as a manifest, if it is one: within the size limit, of the digest wanted (or
// told by `told_digest`), with one meaning (not index and manifest at once, and of the media type
// that it says itself, CVE-2021-41190). Pure. Errc::upstream_nonsense.
Result<cache::Manifest> check_manifest(std::string_view content_type, std::string bytes,
                                       const cache::Digest* wanted, std::string_view told_digest);

}  // namespace staithe::proxy
