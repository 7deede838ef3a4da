// Whether a daemon has compared its files with its index, which it does after a start, behind the
// first hits. Needs the daemon's library.
#pragma once

#include <string>

#include "cache/error.h"
#include "daemon/control_client.h"

namespace staithe::bench {

// Throws Failure if the daemon does not answer at that control socket.
inline bool is_reconciled(const std::string& control_socket) {
  const auto status = daemon::control_get(control_socket, "/v1/status");
  if (!status) throw Failure(Errc::unreachable, status.error().message);
  return status->at("cache").at("reconciled").as_bool();
}

}  // namespace staithe::bench
