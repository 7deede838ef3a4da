// The control socket's POST /v1/warm: {"images":["r/app:1"], "platform":"linux/amd64"}.
//
// The platform is "all", one, or, if it is absent or empty, this machine's. Answers with the lines
// of warming.h. It ends when its client leaves: what is under way by then ends by itself, nothing
// further is begun. Right::own, as a pin, since it can push other content out. Lives on the loop.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <string_view>

#include "cache/error.h"
#include "daemon/access.h"
#include "daemon/warming.h"
#include "proxy/connection.h"

namespace staithe::daemon {

// In one request; a list of as many long names has some 120 KiB.
inline constexpr std::size_t most_warm_images = 1'000;
inline constexpr std::size_t most_warm_bytes = 128UL * 1024;

class WarmControl {
 public:
  // All outlive it.
  struct Sources {
    Warmer& warmer;
    Access& access;
  };
  explicit WarmControl(Sources sources) : sources_(sources) {}

  static bool answers(std::string_view path) { return path == "/v1/warm"; }
  // Answers. Throws nothing but what the connection handles.
  asio::awaitable<void> handle(proxy::Exchange& exchange);

 private:
  Sources sources_;
  std::size_t running_ = 0;
};

// Pure: the body of a request. Errc::bad_request or name_invalid.
Result<Warmer::Order> parse_warm_order(std::string_view body);

}  // namespace staithe::daemon
