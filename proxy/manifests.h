// GET and HEAD of manifests, by tag and by digest.
//
// A digest names bytes that never change: once upstream has shown them within a repository, they
// come from the cache. A tag is asked for upstream, one HEAD per pull, unless it was confirmed
// within `tag_ttl`; if upstream fails, what was confirmed within `serve_stale` is served and
// marked. Bytes and media type leave as they came. Lives on the loop.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <string>

#include "cache/store.h"
#include "proxy/connection.h"
#include "proxy/outcome.h"
#include "proxy/reference.h"
#include "proxy/registries.h"
#include "proxy/single_flight.h"

namespace staithe::proxy {

// Upstream's document as a manifest, if it is one: within the size limit, of the digest wanted (or
// told by `told_digest`), with one meaning (not index and manifest at once, and of the media type
// that it says itself, CVE-2021-41190). Pure. Errc::upstream_nonsense.
Result<cache::Manifest> check_manifest(std::string_view content_type, std::string bytes,
                                       const cache::Digest* wanted, std::string_view told_digest);

class Manifests {
 public:
  Manifests(asio::any_io_executor loop, cache::Store& store, TaskGroup& tasks);

  // Answers, or throws Failure before the answer. `repository` is canonical.
  asio::awaitable<Outcome> serve(Exchange& exchange, RegistryPtr registry, std::string repository,
                                 Reference reference);
  // What serve() would answer, without a client. Throws as it does.
  asio::awaitable<cache::ManifestPtr> find(RegistryPtr registry, std::string repository,
                                           Reference reference);

 private:
  struct Found {
    cache::ManifestPtr manifest;
    Outcome outcome;
    std::optional<std::chrono::seconds> age;  // of a tag's last confirmation
  };
  asio::awaitable<Found> by_digest(RegistryPtr registry, std::string repository,
                                   cache::Digest digest);
  asio::awaitable<Found> by_tag(RegistryPtr registry, std::string repository, std::string tag);
  // Asks upstream; stores and links what it shows. One request per key at a time.
  asio::awaitable<cache::ManifestPtr> fetch(RegistryPtr registry, std::string repository,
                                            Reference reference);
  asio::awaitable<cache::ManifestPtr> fetch_once(RegistryPtr registry, std::string repository,
                                                 Reference reference);
  // The digest that the tag has upstream now; empty if upstream does not say.
  asio::awaitable<std::string> confirm(RegistryPtr registry, std::string repository,
                                       std::string tag);

  cache::Store& store_;
  SingleFlight<cache::ManifestPtr> fetches_;
  SingleFlight<std::string> confirmations_;
};

}  // namespace staithe::proxy
