// The control socket's view of the cache: what is in it, pins, purges.
//
//   GET  /v1/blobs                                                     Right::look
//   GET  /v1/images                                                    Right::look
//   POST /v1/pin      {"image":"NAME"}                                 Right::own
//   POST /v1/unpin    {"image":"NAME"}                                 Right::own
//   POST /v1/purge    {"image":"NAME"} | {"all":true}
//                     | {"older_than_seconds":N}                       Right::own
//
// Names are those that docker takes: "busybox" is docker.io/library/busybox:latest. Lists are
// written in pieces, so that a cache of any size costs neither memory nor the loop. Lives on the
// loop.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <boost/json/object.hpp>
#include <string>
#include <string_view>

#include "cache/store.h"
#include "daemon/access.h"
#include "proxy/connection.h"
#include "proxy/registries.h"

namespace staithe::daemon {

class CacheControl {
 public:
  // All outlive it.
  struct Sources {
    cache::Store& store;
    proxy::Registries& registries;
    Access& access;
  };
  explicit CacheControl(Sources sources) : sources_(sources) {}

  // True for the paths above, whatever the method.
  static bool answers(std::string_view path);
  // Answers. Throws nothing but what the connection handles.
  asio::awaitable<void> handle(proxy::Exchange& exchange);

 private:
  struct Name;
  asio::awaitable<void> list_blobs(proxy::Exchange& exchange);
  asio::awaitable<void> list_images(proxy::Exchange& exchange);
  asio::awaitable<boost::json::object> answer(std::string_view path, std::string_view body,
                                              proxy::Peer caller);
  asio::awaitable<boost::json::object> pin(Name name, proxy::Peer caller);
  asio::awaitable<boost::json::object> unpin(Name name, proxy::Peer caller);
  asio::awaitable<boost::json::object> purge(boost::json::object question, proxy::Peer caller);

  Sources sources_;
};

}  // namespace staithe::daemon
