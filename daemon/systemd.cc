#include "daemon/systemd.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <charconv>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>

#include "cache/disk.h"

namespace staithe::daemon {

namespace {

constexpr int first_passed_fd = 3;  // sd_listen_fds(3)

std::string_view variable(const char* name) {
  const char* value = std::getenv(name);
  return value ? value : std::string_view();
}

std::optional<std::uint64_t> number_in(const char* name) {
  const std::string_view text = variable(name);
  std::uint64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (text.empty() || error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return number;
}

// An unset $WATCHDOG_PID means everybody; what is meant for another process is none of ours.
bool is_for_us(const char* name, bool if_unset) {
  if (variable(name).empty()) return if_unset;
  return number_in(name) == static_cast<std::uint64_t>(::getpid());
}

bool is_listening(int fd) {
  int accepts = 0;
  socklen_t size = sizeof accepts;
  return ::getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &accepts, &size) == 0 && accepts == 1;
}

}  // namespace

void notify(std::string_view state) {
  const std::string_view path = variable("NOTIFY_SOCKET");
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof address.sun_path) return;
  std::memcpy(address.sun_path, path.data(), path.size());
  if (path.front() == '@') address.sun_path[0] = '\0';  // The abstract namespace; unix(7).
  const auto size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + path.size());
  const cache::File socket(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  // Nothing can be done about a manager that does not listen.
  (void)::sendto(socket.fd(), state.data(), state.size(), MSG_NOSIGNAL,
                 reinterpret_cast<const sockaddr*>(&address), size);
}

std::optional<std::chrono::microseconds> watchdog_interval() {
  const auto microseconds = number_in("WATCHDOG_USEC");
  if (!microseconds || *microseconds == 0 || !is_for_us("WATCHDOG_PID", true)) return std::nullopt;
  return std::chrono::microseconds(*microseconds / 2);
}

PassedSockets passed_sockets() {
  PassedSockets sockets;
  const auto count = number_in("LISTEN_FDS");
  std::string names(variable("LISTEN_FDNAMES"));
  const bool ours = is_for_us("LISTEN_PID", false);
  // What this process starts must not take them for its own.
  for (const char* name : {"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"}) ::unsetenv(name);
  const long most = ::sysconf(_SC_OPEN_MAX);
  if (!ours || !count || most < first_passed_fd ||
      *count > static_cast<std::uint64_t>(most - first_passed_fd))
    return sockets;
  for (int fd = first_passed_fd; fd < first_passed_fd + static_cast<int>(*count); ++fd) {
    ::fcntl(fd, F_SETFD, FD_CLOEXEC);
    const std::string name = names.substr(0, names.find(':'));
    names.erase(0, name.size() + 1);
    if (is_listening(fd)) (name == "control" ? sockets.control : sockets.registry).push_back(fd);
  }
  return sockets;
}

}  // namespace staithe::daemon
