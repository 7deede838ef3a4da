// Platforms as the OCI image spec has them, "linux/arm64/v8": their grammar, and which of an
// index's manifests a client takes. Names are normalised and stand-ins are chosen as containerd
// does it. Pure but for own_platform().
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "cache/digest.h"
#include "cache/error.h"

namespace staithe::daemon {

struct Platform {
  std::string os;
  std::string architecture;
  std::string variant;  // may be empty

  bool operator==(const Platform&) const = default;
  std::string to_string() const;
};

// One spelling for each platform: "x86_64" is amd64, amd64/v1 is amd64, "aarch64" and arm64/v8 are
// arm64, arm is arm/v7.
Platform normalized(Platform platform);

// "linux/amd64", "linux/arm64/v8", normalised. Errc::bad_request for anything that Go, and so every
// container runtime, has no name for.
Result<Platform> parse_platform(std::string_view text);

// What `text` asks for: "all", one platform, or, if it is empty, this machine's.
struct PlatformChoice {
  std::optional<Platform> platform;  // none: all

  std::string to_string() const { return platform ? platform->to_string() : "all"; }
};
Result<PlatformChoice> parse_platform_choice(std::string_view text);

// This machine's: Linux, with what the kernel calls its processor.
Platform own_platform();

// What a client of this platform runs, the best first: arm64 also runs arm/v8, arm/v7 and so on.
std::vector<Platform> runnable_on(const Platform& platform);

// One manifest that an index names. The platform is missing, or "unknown/unknown", where the
// manifest is not an image (an attestation, an artifact).
struct IndexEntry {
  cache::Digest digest;
  std::optional<Platform> platform;
};
// In the order of the document; none if it is not an index.
std::vector<IndexEntry> index_entries(std::string_view document);

// Those of them that the choice means: all, or the best that the platform runs; an index without
// any platform is taken whole. Empty if there is nothing for this platform.
std::vector<IndexEntry> chosen(const std::vector<IndexEntry>& entries,
                               const PlatformChoice& choice);

// "linux/amd64, linux/arm64": for the sentence that says what there is.
std::string platforms_of(const std::vector<IndexEntry>& entries);

}  // namespace staithe::daemon
