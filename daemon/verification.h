// The control socket's POST /v1/verify: everything that is stored is read and hashed now.
//
// Answers with JSON lines, one some times a second and one at the end:
//
//   {"done":false,"objects":10,"total_objects":1200,"bytes":123,"total_bytes":4567,
//    "damaged":0,"unreadable":0}
//   {"done":true, the same, "seconds":1.5,"damaged_digests":["sha256:..."],
//    "unreadable_digests":[],"broken_off":null}
//
// What is damaged was set aside by then. One runs at a time, and it ends early when its client
// leaves. Right::own, since it takes a thread and the disk for a while. Lives on the loop.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <string_view>

#include "cache/clock.h"
#include "cache/store.h"
#include "daemon/access.h"
#include "proxy/connection.h"

namespace staithe::daemon {

class Verifier {
 public:
  // Everything named here outlives it.
  struct Sources {
    cache::Store& store;
    const Clock& clock;
    Access& access;
  };
  explicit Verifier(Sources sources) : sources_(sources) {}

  static bool answers(std::string_view path) { return path == "/v1/verify"; }
  // Answers. Throws nothing but what the connection handles.
  asio::awaitable<void> handle(proxy::Exchange& exchange);

 private:
  asio::awaitable<void> verify(proxy::Exchange& exchange);

  Sources sources_;
  bool running_ = false;
};

}  // namespace staithe::daemon
