// GET and HEAD of blobs: a hit, a miss and the tenth reader of one transfer are the same loop over
// a cache::Blob.
//
// A blob is served only within a repository through which upstream has shown it; knowing a digest
// is no right to it (threat T5). Where the cache cannot take a blob, it is relayed: hashed, its end
// held back until the digest matches, not stored. Lives on the loop.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <memory>
#include <string>

#include "cache/sparing.h"
#include "cache/store.h"
#include "proxy/answers.h"
#include "proxy/connection.h"
#include "proxy/fills.h"
#include "proxy/outcome.h"
#include "proxy/range.h"
#include "proxy/registries.h"
#include "proxy/single_flight.h"

namespace staithe::proxy {

class Blobs {
 public:
  Blobs(asio::any_io_executor loop, cache::Store& store, Fills& fills, TaskGroup& tasks,
        Clock& clock, Answers& answers);

  // Answers, or throws Failure before the answer. `repository` is canonical.
  asio::awaitable<Outcome> serve(Exchange& exchange, RegistryPtr registry, std::string repository,
                                 cache::Digest digest);
  // What a GET would bring into the cache, without a client: null if the blob is stored and
  // upstream shows it within this repository, else the blob that grows. No use of a stored one.
  // Throws Failure: what upstream answers, or storage_full / storage_failed.
  asio::awaitable<std::shared_ptr<cache::Blob>> want(RegistryPtr registry, std::string repository,
                                                     cache::Digest digest);

 private:
  enum class Shown { by_memory, by_upstream, by_stale_memory };
  // Upstream shows, or has lately shown, the digest within this repository. Throws what it answers.
  asio::awaitable<Shown> shown(RegistryPtr registry, std::string repository, cache::Digest digest);
  asio::awaitable<std::uint64_t> ask_size(RegistryPtr registry, std::string repository,
                                          cache::Digest digest);
  // Answers a HEAD by what upstream says.
  asio::awaitable<Outcome> tell_size(Exchange& exchange, RegistryPtr registry,
                                     std::string repository, cache::Digest digest);
  asio::awaitable<std::string> ask_size_text(RegistryPtr registry, std::string repository,
                                             cache::Digest digest);

  // Answers with a small blob that is stored, and keeps the answer for as long as the right to it
  // holds, unless something was taken back since `as_of` (Answers::put). False, and nothing is
  // said, if it cannot be read.
  asio::awaitable<bool> serve_small(Exchange& exchange, const Registry& registry,
                                    const std::string& scope, std::shared_ptr<cache::Blob> blob,
                                    std::uint64_t as_of);
  asio::awaitable<void> serve_blob(Exchange& exchange, RegistryPtr registry, std::string repository,
                                   std::shared_ptr<cache::Blob> blob, Outcome outcome);
  asio::awaitable<void> send_body(Exchange& exchange, RegistryPtr registry, std::string repository,
                                  std::shared_ptr<cache::Blob> blob, ByteRange range,
                                  cache::Blob::End held);
  asio::awaitable<Outcome> relay(Exchange& exchange, RegistryPtr registry, std::string repository,
                                 cache::Digest digest);
  asio::awaitable<void> relay_rest(Exchange& exchange, RegistryPtr registry, std::string repository,
                                   std::shared_ptr<cache::Blob> blob, std::uint64_t begin,
                                   std::uint64_t end);

  cache::Store& store_;
  Fills& fills_;
  Clock& clock_;
  Answers& answers_;
  Sparing continued_lines_;  // by registry
  SingleFlight<std::string> sizes_;
};

}  // namespace staithe::proxy
