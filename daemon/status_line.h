// One line about the daemon for whoever asks the service manager (`systemctl status`). Pure.
#pragma once

#include <cstddef>
#include <optional>
#include <string>

#include "cache/store.h"

namespace staithe::daemon {

struct StatusFigures {
  std::size_t connections = 0;  // of clients
  std::size_t transfers = 0;    // from upstream
  cache::Store::Stats cache;
  std::optional<double> hit_ratio;  // 0 to 1
  // What was wrong with the configuration when it was last read again; empty: nothing.
  std::string fault;
};

std::string status_line(const StatusFigures& figures);

}  // namespace staithe::daemon
