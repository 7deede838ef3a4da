// What a systemd notify service says to its manager and takes from it. Without systemd
// ($NOTIFY_SOCKET, $LISTEN_FDS, $WATCHDOG_USEC unset) every call does nothing.
#pragma once

#include <chrono>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace staithe::daemon {

// sd_notify(3): "READY=1", "STOPPING=1", "STATUS=...".
void notify(std::string_view state);

// sd_notify(3) of a reload that begins: it has to say when, by a clock of the manager's choice.
// "READY=1" ends it.
void notify_reloading();

// How often the watchdog wants a sign of life, halved as sd_watchdog_enabled(3) asks; nullopt:
// never.
std::optional<std::chrono::microseconds> watchdog_interval();

// Listening sockets passed by socket activation. The caller owns the descriptors. A socket whose
// FileDescriptorName is "control" is the control socket, one called "metrics" stands for
// listen.metrics, all others serve the registry.
// A netlink socket of the kind inet-diag is none of these: the kernel is asked through it whose a
// connection is (proxy/peer.h), which lets the service do without the right to make netlink
// sockets.
struct PassedSockets {
  std::vector<int> registry;
  std::vector<int> control;
  std::vector<int> metrics;
  std::optional<int> peers;
};
PassedSockets passed_sockets();

}  // namespace staithe::daemon
