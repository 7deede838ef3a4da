// Another local user: a forked process that has given up root. What it does uses sockets and
// nothing of the test's own state; it and the test wait for each other by pipes.
//
//   OtherUser user(1234, [&](OtherUser::End& end) { connect...; end.tell("x"); end.wait(); });
//   user.listen_for("x");      until it has connected
//   user.let_go();             its wait() returns
#pragma once

#include <arpa/inet.h>
#include <grp.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/buffer.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <string>
#include <string_view>

namespace staithe::fake {

namespace asio = boost::asio;

class OtherUser {
 public:
  // What the other process holds.
  struct End {
    int out;
    int in;
    void tell(std::string_view text) {
      if (::write(out, text.data(), text.size()) < 0) ::_exit(9);
    }
    void wait() {
      char byte;
      while (::read(in, &byte, 1) > 0) {
      }
    }
  };

  // Only root can become somebody else.
  static bool possible() { return ::geteuid() == 0; }

  OtherUser(unsigned uid, const std::function<void(End&)>& work) {
    int out[2];
    int in[2];
    if (::pipe2(out, O_CLOEXEC) != 0 || ::pipe2(in, O_CLOEXEC) != 0) std::abort();
    pid_ = ::fork();
    if (pid_ == 0) {
      ::close(out[0]);
      ::close(in[1]);
      if (uid != 0 && (::setgroups(0, nullptr) != 0 || ::setgid(uid) != 0 || ::setuid(uid) != 0))
        ::_exit(8);
      End end{out[1], in[0]};
      work(end);
      ::_exit(0);
    }
    ::close(out[1]);
    ::close(in[0]);
    from_ = out[0];
    to_ = in[1];
  }
  ~OtherUser() {
    end();
    ::close(from_);
  }
  OtherUser(const OtherUser&) = delete;
  OtherUser& operator=(const OtherUser&) = delete;

  // Blocks until the process has told `text`.
  bool listen_for(std::string_view text) {
    std::string heard(text.size(), '\0');
    return ::read(from_, heard.data(), heard.size()) == static_cast<ssize_t>(text.size()) &&
           heard == text;
  }
  void let_go() {
    if (to_ >= 0) ::close(to_);
    to_ = -1;
  }
  // Until the process has ended.
  void end() {
    let_go();
    if (pid_ > 0) ::waitpid(pid_, nullptr, 0);
    pid_ = -1;
  }
  // All that it tells, on a loop that meanwhile serves it.
  asio::awaitable<std::string> all_told(asio::any_io_executor loop) {
    asio::posix::stream_descriptor pipe(loop, ::dup(from_));
    std::string told;
    std::array<char, 4096> piece;
    for (;;) {
      const auto [error, n] =
          co_await pipe.async_read_some(asio::buffer(piece), asio::as_tuple(asio::use_awaitable));
      told.append(piece.data(), n);
      if (error) co_return told;
    }
  }

 private:
  pid_t pid_ = -1;
  int from_ = -1;
  int to_ = -1;
};

// A socket connected to "127.0.0.1:5050", "[::1]:5050", "[::ffff:127.0.0.1]:5050" or "unix:/path";
// blocking, for other processes. Negative if that failed.
inline int connect_to(const std::string& address) {
  if (address.starts_with("unix:")) {
    sockaddr_un name{};
    name.sun_family = AF_UNIX;
    std::memcpy(name.sun_path, address.c_str() + 5, address.size() - 5);
    const int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    return ::connect(fd, reinterpret_cast<sockaddr*>(&name), sizeof name) == 0 ? fd : -1;
  }
  const std::size_t colon = address.rfind(':');
  const auto port = htons(static_cast<std::uint16_t>(std::atoi(address.c_str() + colon + 1)));
  if (address.starts_with('[')) {
    sockaddr_in6 name{};
    name.sin6_family = AF_INET6;
    name.sin6_port = port;
    ::inet_pton(AF_INET6, address.substr(1, colon - 2).c_str(), &name.sin6_addr);
    const int fd = ::socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
    return ::connect(fd, reinterpret_cast<sockaddr*>(&name), sizeof name) == 0 ? fd : -1;
  }
  sockaddr_in name{};
  name.sin_family = AF_INET;
  name.sin_port = port;
  ::inet_pton(AF_INET, address.substr(0, colon).c_str(), &name.sin_addr);
  const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  return ::connect(fd, reinterpret_cast<sockaddr*>(&name), sizeof name) == 0 ? fd : -1;
}

// Sends `text` and returns what came until the other side closed.
inline std::string talk(const std::string& address, const std::string& text) {
  const int fd = connect_to(address);
  if (fd < 0) return "cannot connect";
  std::string answer;
  if (::send(fd, text.data(), text.size(), MSG_NOSIGNAL) == static_cast<ssize_t>(text.size())) {
    std::array<char, 4096> piece;
    for (ssize_t n = 0; (n = ::read(fd, piece.data(), piece.size())) > 0;)
      answer.append(piece.data(), static_cast<std::size_t>(n));
  }
  ::close(fd);
  return answer;
}

}  // namespace staithe::fake
