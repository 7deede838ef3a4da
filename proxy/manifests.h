// GET and HEAD of manifests, by tag and by digest.
//
// A digest names bytes that never change: once upstream has shown them within a repository, they
// come from the cache. A tag is asked for upstream, one HEAD per pull, unless it was confirmed
// within `tag_ttl`; what becomes of it if upstream does not confirm it, proxy/freshness.h says.
// What upstream has not is not asked for again for a moment. Bytes and media type leave as they
// came. Lives on the loop.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <string>

#include "cache/sparing.h"
#include "cache/store.h"
#include "proxy/absences.h"
#include "proxy/answers.h"
#include "proxy/connection.h"
#include "proxy/manifest_check.h"
#include "proxy/outcome.h"
#include "proxy/reference.h"
#include "proxy/registries.h"
#include "proxy/single_flight.h"

namespace staithe::proxy {

// Every type of manifest that a client of today reads; upstream picks none by the order. Constant,
// whatever the client sent, so that the cache has one answer per reference.
inline constexpr std::string_view accepted_types =
    "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, "
    "application/vnd.docker.distribution.manifest.list.v2+json, "
    "application/vnd.docker.distribution.manifest.v2+json, "
    "application/vnd.oci.artifact.manifest.v1+json, */*;q=0.1";

class Manifests {
 public:
  // All outlive it.
  Manifests(asio::any_io_executor loop, cache::Store& store, TaskGroup& tasks, Absences& absences,
            Clock& clock, Answers& answers);

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
    std::optional<std::chrono::seconds> age = {};  // of a tag's last confirmation
    std::optional<Errc> failure = {};              // why it is stale
    // If nothing has to be asked until then: how long the same is true.
    std::optional<std::chrono::milliseconds> good_for = {};
  };
  // `trace`: as Upstream::Ask::trace; who joins a question that is out gets no lines of its own.
  asio::awaitable<Found> by_digest(RegistryPtr registry, std::string repository,
                                   cache::Digest digest, std::string trace);
  // `whole`: if upstream is down, only an image of which everything is cached is served stale.
  asio::awaitable<Found> by_tag(RegistryPtr registry, std::string repository, std::string tag,
                                bool whole, std::string trace);
  // What is asked about a tag, and what there is to fall back on.
  struct TagQuestion {
    RegistryPtr registry;
    std::string repository;
    std::string tag;
    std::optional<cache::Digest> known;  // what it was
    bool may_be_stale;                   // `known` could be served if upstream were down
    bool whole;                          // but only if all of its image is here
    std::string trace;
  };
  // Upstream's word on the tag, in whatever way it takes.
  asio::awaitable<Found> ask_for_tag(const TagQuestion& question);
  // The tag is `digest` now, by upstream's word; logged if that is news.
  void settle_tag(const Registry& registry, const std::string& repository, const std::string& tag,
                  const cache::Digest& digest);
  // Whether a client finds all of the image here, of an index that of one platform.
  asio::awaitable<bool> is_whole(cache::ManifestPtr manifest);
  // Asks upstream; stores and links what it shows. One request per key at a time.
  asio::awaitable<cache::ManifestPtr> fetch(RegistryPtr registry, std::string repository,
                                            Reference reference, std::string trace);
  asio::awaitable<cache::ManifestPtr> fetch_once(RegistryPtr registry, std::string repository,
                                                 Reference reference, std::string trace);
  // The digest that the tag has upstream now; empty if upstream does not say. One request per tag
  // at a time; who has something to fall back on waits for it no longer than `stale_patience`.
  asio::awaitable<std::string> confirm_soon(const TagQuestion& question);
  asio::awaitable<Result<std::string>> confirmed(const TagQuestion& question);
  asio::awaitable<std::string> confirm(RegistryPtr registry, std::string repository,
                                       std::string tag, std::string trace);

  cache::Store& store_;
  Absences& absences_;
  Clock& clock_;
  Answers& answers_;
  Sparing stale_lines_;  // by registry
  SingleFlight<cache::ManifestPtr> fetches_;
  SingleFlight<std::string> confirmations_;
};

}  // namespace staithe::proxy
