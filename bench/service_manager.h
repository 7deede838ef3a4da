// What systemd is to a daemon that a bench starts: it is told when the daemon is ready.
#pragma once

#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <chrono>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <string_view>
#include <system_error>

#include "bench/process.h"
#include "cache/disk.h"
#include "cache/error.h"

namespace staithe::bench {

class ServiceManager {
 public:
  // Listens in that directory, and tells every process that is started from here on where. One at a
  // time. Throws Failure if the socket cannot be made.
  explicit ServiceManager(const std::filesystem::path& directory)
      : path_(directory / "notify"), socket_(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0)) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::strncpy(address.sun_path, path_.c_str(), sizeof address.sun_path - 1);
    if (::bind(socket_.fd(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0)
      throw Failure(Errc::storage_failed, "cannot bind " + path_.string());
    ::setenv("NOTIFY_SOCKET", path_.c_str(), 1);
  }
  ~ServiceManager() {
    ::unsetenv("NOTIFY_SOCKET");
    std::error_code ignored;
    std::filesystem::remove(path_, ignored);
  }
  ServiceManager(const ServiceManager&) = delete;
  ServiceManager& operator=(const ServiceManager&) = delete;

  // Throws Failure if the daemon ends instead, or takes longer than two minutes.
  void wait_until_ready(Process& daemon) const {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::minutes(2);
    while (std::chrono::steady_clock::now() < deadline) {
      pollfd waiting{.fd = socket_.fd(), .events = POLLIN, .revents = 0};
      if (::poll(&waiting, 1, 100) <= 0) {
        daemon.must_run();
        continue;
      }
      char text[1024];
      const ssize_t n = ::recv(socket_.fd(), text, sizeof text, 0);
      if (n > 0 && std::string_view(text, static_cast<std::size_t>(n)).starts_with("READY=1"))
        return;
    }
    throw Failure(Errc::unreachable, "staithed did not get ready");
  }

 private:
  std::filesystem::path path_;
  cache::File socket_;
};

}  // namespace staithe::bench
