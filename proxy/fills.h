// One transfer per blob, for any number of readers.
//
// The first request for a missing blob starts a fill, a task of its own whose Transfer asks
// upstream while it writes and hashes; every request, the first too, reads from the growing blob.
// No reader owns the fill: it goes on for the others, or for the cache, when one leaves. A transfer
// that breaks off goes on where it stopped, also after a restart. Lives on the loop.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <cstdint>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

#include "cache/clock.h"
#include "cache/event.h"
#include "cache/sparing.h"
#include "cache/store.h"
#include "cache/task_group.h"
#include "proxy/registries.h"
#include "proxy/transfer.h"

namespace staithe::proxy {

// "registry/repository": within which a digest has been shown.
std::string scope_of(const Registry& registry, const std::string& repository);

class Fills {
 public:
  Fills(asio::any_io_executor loop, cache::Store& store, Clock& clock);

  // The blob, growing from upstream: starts the fill, with the bytes from `offset` first if it can,
  // or joins the one under way if that is for the same scope or admit() has let this scope in.
  // Returns once upstream has answered and the blob has begun. Throws Failure: what upstream
  // answered (blob_unknown, denied, ...), or storage_full / storage_failed if the cache cannot take
  // it. `trace`: as Upstream::Ask::trace, of whoever starts it.
  asio::awaitable<std::shared_ptr<cache::Blob>> open(RegistryPtr registry, std::string repository,
                                                     cache::Digest digest, bool& started,
                                                     std::uint64_t offset = 0,
                                                     std::string trace = {});

  // Of fills that begin from now on; tests make do with small blobs.
  void set_segment_sizes(SegmentSizes sizes) { sizes_ = sizes; }

  // True while a fill for `digest` is under way.
  bool under_way(const cache::Digest& digest) const { return fills_.contains(digest); }
  // True if it is, and upstream has shown the blob, or is being asked to, within `scope`.
  bool admits(const cache::Digest& digest, const std::string& scope) const;
  // Upstream has shown the blob within `scope` too.
  void admit(const cache::Digest& digest, const std::string& scope);

  struct Progress {
    cache::Digest digest;
    std::string registry;
    std::string repository;
    std::uint64_t bytes = 0;
    std::optional<std::uint64_t> total;
    std::size_t readers = 0;
    std::size_t connections = 0;         // to upstream, at this moment
    std::uint64_t bytes_per_second = 0;  // from upstream, over the last seconds; 0 = not known yet
  };
  std::vector<Progress> progress() const;
  // How often a transfer went on where it, or an earlier one, had broken off.
  std::uint64_t resumes() const { return resumes_; }

  // Gives all fills up and waits for their end.
  asio::awaitable<void> stop();

 private:
  struct Fill {
    Fill(asio::any_io_executor loop, cache::Digest of) : digest(of), changed(std::move(loop)) {}
    cache::Digest digest;
    std::string registry;
    std::string repository;
    std::set<std::string> scopes;
    std::string trace;
    std::shared_ptr<cache::Blob> blob;   // once upstream has answered
    const Transfer* transfer = nullptr;  // while it is under way
    std::optional<Error> error;          // if there is no blob
    Event changed;
  };

  asio::awaitable<void> run(std::shared_ptr<Fill> fill, RegistryPtr registry, std::uint64_t offset);
  asio::awaitable<void> fetch(Fill& fill, Registry& registry, std::uint64_t offset);
  // Begins to fetch, or to go on with what an earlier transfer has left.
  asio::awaitable<std::unique_ptr<cache::BlobWriter>> begin(Fill& fill, Transfer& transfer,
                                                            std::uint64_t offset);

  asio::any_io_executor loop_;
  cache::Store& store_;
  Clock& clock_;
  SegmentSizes sizes_;
  std::uint64_t resumes_ = 0;
  Sparing failure_lines_;  // by registry and class of failure
  TaskGroup tasks_;
  std::unordered_map<cache::Digest, std::shared_ptr<Fill>> fills_;
  // Of these, what was joined from several answers was wrong: they are fetched in one the next
  // time.
  std::set<cache::Digest> joined_wrong_;
};

}  // namespace staithe::proxy
