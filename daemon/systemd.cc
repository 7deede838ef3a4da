#include "daemon/systemd.h"

#include <linux/netlink.h>
#include <sys/socket.h>
#include <systemd/sd-daemon.h>

#include <cstdint>
#include <cstdlib>
#include <ctime>

namespace staithe::daemon {

namespace {

bool is_peers_socket(int fd) {
  int family = 0;
  int protocol = 0;
  socklen_t size = sizeof family;
  if (::getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &family, &size) != 0 || family != AF_NETLINK)
    return false;
  size = sizeof protocol;
  return ::getsockopt(fd, SOL_SOCKET, SO_PROTOCOL, &protocol, &size) == 0 &&
         protocol == NETLINK_SOCK_DIAG;
}

}  // namespace

void notify(std::string_view state) { sd_notify(0, std::string(state).c_str()); }

void notify_reloading() {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  const std::uint64_t microseconds = static_cast<std::uint64_t>(now.tv_sec) * 1'000'000 +
                                     static_cast<std::uint64_t>(now.tv_nsec) / 1'000;
  notify("RELOADING=1\nMONOTONIC_USEC=" + std::to_string(microseconds) +
         "\nSTATUS=reading the configuration");
}

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
    if (!sockets.peers && is_peers_socket(fd)) sockets.peers = fd;
    std::free(names[i]);
  }
  std::free(names);
  return sockets;
}

}  // namespace staithe::daemon
