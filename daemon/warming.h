// Brings images into the cache ahead of their pulls.
//
// An image is looked up as a pull would do it (proxy::Manifests: identity, freshness, one request
// for all), its index, manifests, config and layers are walked, and what is missing is filled
// (proxy::Fills), a few blobs at a time. What is there already is not fetched again, so a warm that
// was interrupted goes on where it stood. A pull goes first: while clients' transfers are under
// way, no further blob is begun, or after five seconds one at a time, so that a warm ends on a busy
// machine too. A transfer that has begun belongs to nobody and ends by itself.
//
// One that warms is told everything as it happens, as JSON objects:
//
//   {"kind":"image","image":"r/app:1","state":"fetching","digest":"sha256:...",
//    "platforms":"linux/amd64","blobs":5,"bytes":10,"total":300,"error":null}
//   {"kind":"blob","image":"r/app:1","digest":"sha256:...","state":"fetching","bytes":10,
//    "total":100,"bytes_per_second":null,"error":null}
//   {"kind":"waiting","client_fills":2}
//   {"kind":"sum","done":true,"images":2,"failed":1,"blobs":5,"bytes_cached":10,
//    "bytes_fetched":290,"seconds":1.5,"errors":[{"image":"r/app:1","error":"..."}]}
//
// States: cached (was there), fetching, done (fetched now), failed (with its sentence). `total` is
// null where no manifest says it. Lives on the loop.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <boost/json/object.hpp>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <list>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "cache/clock.h"
#include "cache/store.h"
#include "daemon/image_name.h"
#include "daemon/platform.h"
#include "proxy/fills.h"
#include "proxy/proxy.h"
#include "proxy/registries.h"

namespace staithe::daemon {

class Warmer {
 public:
  // All outlive it.
  struct Sources {
    Clock& clock;
    cache::Store& store;
    proxy::Registries& registries;
    proxy::Proxy& proxy;
    proxy::Fills& fills;
  };
  explicit Warmer(Sources sources) : sources_(sources) {}

  struct Order {
    std::string asker;  // "request", "boot"
    std::vector<ImageName> images;
    PlatformChoice platform;
  };
  using Tell = std::function<asio::awaitable<void>(boost::json::object)>;
  // Returns once every image is warm or has failed. Throws what `tell` throws, and Failure
  // (cancelled) after stop(); what is under way goes on then.
  asio::awaitable<void> run(Order order, Tell tell);

  // Ends every run soon: the daemon is stopping.
  void stop() { stopping_ = true; }

  // For status: every run that is under way.
  boost::json::array running() const;

 private:
  struct Image;
  struct Part;
  struct Run;
  struct Manifest;
  struct Active;

  asio::awaitable<void> look_up(Run& run, Image& image);
  asio::awaitable<void> walk(Run& run, Image& image);
  void take_blobs(Image& image, const cache::Manifest& manifest, std::set<cache::Digest>& seen);
  std::vector<const Image*> refuse_what_has_no_room(Run& run) const;
  std::vector<const Image*> queue_parts(Run& run);
  asio::awaitable<void> transfer(Run& run);
  asio::awaitable<void> begin(Run& run);
  asio::awaitable<bool> end_finished(Run& run);
  asio::awaitable<void> tell_progress(Run& run);
  asio::awaitable<void> end(Run& run, Part& part, std::string state, std::string error);
  std::size_t client_fills();

  Sources sources_;
  std::list<Run*> runs_;
  std::set<cache::Digest> started_;  // by whichever run, until the transfer ends
  bool stopping_ = false;
};

// The name under which everything else knows it: "docker.io/library/redis:latest".
std::string full_name(const ImageName& image);

}  // namespace staithe::daemon
