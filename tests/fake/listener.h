// A TCP socket that listens on an address of this machine, for servers of tests that speak what no
// real one would.
#pragma once

#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <boost/asio/ip/tcp.hpp>
#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <string>

namespace staithe::fake {

namespace asio = boost::asio;

class Listener {
 public:
  // At a free port of 127.0.0.1.
  Listener() : Listener(asio::ip::address_v4::loopback(), 0) {}
  // Port 0: any that is free. Throws runtime_error.
  Listener(const asio::ip::address& at, std::uint16_t port, bool blocking = true)
      : fd_(::socket(at.is_v4() ? AF_INET : AF_INET6,
                     SOCK_STREAM | SOCK_CLOEXEC | (blocking ? 0 : SOCK_NONBLOCK), 0)) {
    const asio::ip::tcp::endpoint wanted(at, port);
    if (fd_ < 0 || ::bind(fd_, wanted.data(), static_cast<socklen_t>(wanted.size())) != 0 ||
        ::listen(fd_, backlog) != 0) {
      if (fd_ >= 0) ::close(fd_);
      throw std::runtime_error("nothing can listen on " + at.to_string());
    }
    socklen_t size = sizeof address_;
    ::getsockname(fd_, reinterpret_cast<sockaddr*>(&address_), &size);
  }
  ~Listener() { ::close(fd_); }
  Listener(const Listener&) = delete;
  Listener& operator=(const Listener&) = delete;

  int fd() const { return fd_; }
  // IPv4 and IPv6 have it at the same place.
  std::uint16_t port() const {
    return ntohs(reinterpret_cast<const sockaddr_in&>(address_).sin_port);
  }
  const sockaddr_storage& address() const { return address_; }
  // Of whoever comes next; -1 once stop() was called.
  int accept() const { return ::accept4(fd_, nullptr, nullptr, SOCK_CLOEXEC); }
  void stop() const { ::shutdown(fd_, SHUT_RDWR); }

 private:
  static constexpr int backlog = 512;
  const int fd_;
  sockaddr_storage address_{};
};

}  // namespace staithe::fake
