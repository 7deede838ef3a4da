// The control socket's GET /v1/explain?image=NAME: what this daemon knows about an image, and what
// a pull of it would meet now.
//
//   {"asked":"app:1","image":"docker.io/library/app:1","registry":"docker.io",
//    "repository":"library/app","reference":"1",
//    "rule":{"name":"docker.io","number":4,"wildcard":false,"default":true,
//            "upstream_repository":"library/app"},
//    "access":{"by":"registry.access"|"access"|null (every local user),"users":["nomad"],
//              "groups":["docker"],"caller":{"uid":1000,"may_pull":false}},
//    "identity":{"name":"vm","kind":"managed-identity","prefix":null},
//    "upstreams":[as in /v1/registries, and "remedy"],
//    "tag":{"digest":"sha256:...","age_seconds":5,"ttl_seconds":0,"stale_for_seconds":604795},
//    "pinned":false,"platform":"linux/amd64",
//    "platforms":[{"platform":"linux/arm64","digest":"sha256:...","state":"missing"}],
//    "parts":[{"kind":"index"|"manifest"|"config"|"layer","digest":"sha256:...","state":
//              "cached"|"partial"|"fetching"|"missing","bytes":10,"total":100,
//              "last_used_seconds_ago":5,"shown_seconds_ago":5,"pinned":false, and while it is
//              fetched: "readers","connections","bytes_per_second","seconds_left"}],
//    "bytes_here":10,"bytes_needed":100,
//    "next_pull":{"result":"hit"|"partly"|"miss","asks":["HEAD manifests/1"],"bytes_to_fetch":90}}
//
// A name whose registry is not configured has "rule":null and "configured":[...]. What is null is
// not known. Nothing is asked upstream, nothing counts as a use. Right::look. Lives on the loop.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <functional>
#include <string>
#include <string_view>

#include "cache/clock.h"
#include "cache/error.h"
#include "cache/store.h"
#include "daemon/access.h"
#include "daemon/image_name.h"
#include "daemon/options.h"
#include "proxy/connection.h"
#include "proxy/fills.h"
#include "proxy/registries.h"

namespace staithe::daemon {

class Explainer {
 public:
  // All outlive it.
  struct Sources {
    const Config& config;
    const Clock& clock;
    cache::Store& store;
    const proxy::Registries& registries;
    const proxy::Fills& fills;
    Access& access;
    std::function<boost::json::array()> upstreams;  // what /v1/registries answers
  };
  explicit Explainer(Sources sources) : sources_(std::move(sources)) {}

  static bool answers(std::string_view path) { return path == "/v1/explain"; }
  // Answers. Throws nothing but what the connection handles.
  asio::awaitable<void> handle(proxy::Exchange& exchange);

  asio::awaitable<boost::json::object> explain(ImageName image, proxy::Peer caller);

 private:
  struct Content;
  boost::json::object rule(const ImageName& image, const proxy::RegistrySettings& entry) const;
  asio::awaitable<boost::json::object> access(proxy::RegistrySettings entry, proxy::Peer caller);
  boost::json::object identity(const ImageName& image, const proxy::RegistrySettings& entry) const;
  boost::json::array upstreams(const ImageName& image, const proxy::RegistrySettings& entry) const;
  asio::awaitable<void> content(const ImageName& image, const proxy::Freshness& freshness,
                                boost::json::object& answer);
  asio::awaitable<void> walk(Content& content, cache::Digest root);
  void add_blobs(Content& content, const cache::Manifest& manifest);
  boost::json::object describe(const Content& content, const cache::Digest& digest,
                               std::optional<std::uint64_t> said_bytes) const;
  bool may_be_shown(const Content& content, const cache::Digest& digest) const;

  Sources sources_;
};

// "bytes", "total", "readers", "connections", "bytes_per_second", "seconds_left"; null where it is
// not known.
boost::json::object describe_fill(const proxy::Fills::Progress& fill);

// Pure: the image that the query of a request's target names. Errc::bad_request, name_invalid.
Result<std::string> image_of_query(std::string_view target);

// Pure: what to do about the last error of `registry`, by its class (to_string(Errc)); a sentence,
// or empty if there is nothing to do.
std::string remedy_for(std::string_view error_class, const std::string& registry,
                       const std::string& upstream);

}  // namespace staithe::daemon
