#include "daemon/systemd.h"

#include <systemd/sd-daemon.h>

#include <cstdint>
#include <cstdlib>

namespace staithe::daemon {

void notify(std::string_view state) { sd_notify(0, std::string(state).c_str()); }

std::optional<std::chrono::microseconds> watchdog_interval() {
  std::uint64_t microseconds = 0;
  if (sd_watchdog_enabled(0, &microseconds) <= 0) return std::nullopt;
  return std::chrono::microseconds(microseconds / 2);
}

PassedSockets passed_sockets() {
  PassedSockets sockets;
  char** names = nullptr;
  const int count = sd_listen_fds_with_names(1, &names);
  for (int i = 0; i < count; ++i) {
    const int fd = SD_LISTEN_FDS_START + i;
    const std::string_view name = names[i];
    if (sd_is_socket(fd, 0, 0, 1) > 0)
      (name == "control"   ? sockets.control
       : name == "metrics" ? sockets.metrics
                           : sockets.registry)
          .push_back(fd);
    std::free(names[i]);
  }
  std::free(names);
  return sockets;
}

}  // namespace staithe::daemon
