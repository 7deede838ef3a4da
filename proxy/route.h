// What a request asks for, from its target alone: pure, fuzzed.
//
// interface.md section 3: a registry is named by ?ns=, else by the first path component if that
// looks like a host, else it is the default registry. A path prefix in front of /v2/ names it too
// ("/contoso.azurecr.io/v2/app/..."), since mirrors given with a path arrive so.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <variant>

#include "proxy/reference.h"

namespace staithe::proxy {

// An image's name as the client asked for it.
struct ImageName {
  std::string registry;  // empty: the default registry
  std::string repository;
  bool by_ns = false;  // named by ?ns=, which the answer echoes (OCI-Namespace)
};

struct PingRoute {};    // /v2/
struct LiveRoute {};    // /healthz
struct ReadyRoute {};   // /readyz
struct ManifestRoute {  // /v2/<name>/manifests/<reference>
  ImageName name;
  Reference reference;
};
struct BlobRoute {  // /v2/<name>/blobs/<digest>
  ImageName name;
  cache::Digest digest;
};
struct TagsRoute {  // /v2/<name>/tags/list
  ImageName name;
  std::string query;  // the parameters that belong upstream (n, last), encoded again
};
struct ReferrersRoute {  // /v2/<name>/referrers/<digest>
  ImageName name;
  cache::Digest digest;
  std::string query;  // artifactType, encoded again
};

using Route = std::variant<PingRoute, LiveRoute, ReadyRoute, ManifestRoute, BlobRoute, TagsRoute,
                           ReferrersRoute>;

// `target` is the request target in origin form ("/v2/..."). Errc: bad_request (not in origin form,
// broken escapes, a parameter twice), not_found (no such path), name_invalid, digest_invalid.
Result<Route> parse_route(std::string_view target);

}  // namespace staithe::proxy
