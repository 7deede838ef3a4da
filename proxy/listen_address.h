// Where a listener is, as the daemon's own lists write it. What an operator may write is read, and
// explained to him, by daemon/values.h.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "cache/error.h"

namespace staithe::proxy {

// "127.0.0.1:5050", "[::1]:5050" (port 0: any free one), "unix:/path", or "tls:127.0.0.1:5443".
struct ListenAddress {
  static Result<ListenAddress> parse(std::string_view text);
  std::string to_string() const;

  std::string unix_path;  // not empty: a Unix socket
  std::string ip;         // without brackets
  std::uint16_t port = 0;
  bool tls = false;
};

}  // namespace staithe::proxy
