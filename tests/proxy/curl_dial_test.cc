// Where the real client connects, with listeners that notice whoever comes.
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/address.hpp>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "proxy/curl_loop.h"
#include "tests/fake/listener.h"
#include "tests/proxy/auth/make_certificate.h"
#include "tests/proxy/curl_exchange.h"
#include "tests/proxy/spellings.h"

namespace staithe::proxy {
namespace {

using auth::must;

// Listens at one port of several addresses of this machine, and answers whatever comes.
class Canary {
 public:
  Canary() : wake_(::eventfd(0, EFD_CLOEXEC)) {
    for (const char* address : {"127.0.0.1", "127.9.9.9", "::1"})
      listen(asio::ip::make_address(address));
    thread_ = std::thread([this] { run(); });
  }
  ~Canary() {
    ::eventfd_write(wake_, 1);
    thread_.join();
    ::close(wake_);
  }
  Canary(const Canary&) = delete;
  Canary& operator=(const Canary&) = delete;

  std::string port() const { return std::to_string(port_); }

  // How many connections have come from others. What was begun before is counted, since a
  // connection of its own stands behind it in each queue.
  std::size_t dials() {
    for (const auto& door : doors_) {
      const sockaddr_storage& address = door->address();
      const int client = ::socket(address.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
      must(::connect(client, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0,
           "connect");
      const Came ours{door->fd(), port_of(client, &::getsockname)};
      std::unique_lock lock(mutex_);
      must(changed_.wait_for(lock, std::chrono::seconds(20),
                             [&] { return std::ranges::find(came_, ours) != came_.end(); }),
           "the canary's own connection");
      std::erase(came_, ours);
      lock.unlock();
      ::close(client);
    }
    const std::lock_guard lock(mutex_);
    return came_.size();
  }

 private:
  using Came = std::pair<int, std::uint16_t>;  // the listener, and the client's port

  // IPv4 and IPv6 have it at the same place.
  static std::uint16_t port_of(int fd, int (*name)(int, sockaddr*, socklen_t*)) {
    sockaddr_storage address{};
    socklen_t size = sizeof address;
    must(name(fd, reinterpret_cast<sockaddr*>(&address), &size) == 0, "name");
    return ntohs(reinterpret_cast<const sockaddr_in&>(address).sin_port);
  }

  void listen(const asio::ip::address& at) {
    try {
      doors_.push_back(std::make_unique<fake::Listener>(at, port_, false));
    } catch (const std::runtime_error&) {
      if (at.is_v4()) throw;  // A machine may be without IPv6.
    }
    port_ = doors_.front()->port();
  }

  void run() {
    std::vector<pollfd> watched{{.fd = wake_, .events = POLLIN, .revents = 0}};
    for (const auto& door : doors_)
      watched.push_back({.fd = door->fd(), .events = POLLIN, .revents = 0});
    const std::size_t doors = watched.size();
    for (;;) {
      ::poll(watched.data(), watched.size(), -1);
      if (watched[0].revents) break;
      for (std::size_t i = 1; i < doors; ++i) {
        for (int fd = 0; (fd = ::accept4(watched[i].fd, nullptr, nullptr,
                                         SOCK_CLOEXEC | SOCK_NONBLOCK)) >= 0;) {
          watched.push_back({.fd = fd, .events = POLLIN, .revents = 0});
          const std::lock_guard lock(mutex_);
          came_.emplace_back(watched[i].fd, port_of(fd, &::getpeername));
          changed_.notify_all();
        }
      }
      for (std::size_t i = doors; i < watched.size();) {
        if (watched[i].revents == 0 || answer(watched[i].fd)) {
          ++i;
        } else {
          ::close(watched[i].fd);
          watched.erase(watched.begin() + static_cast<std::ptrdiff_t>(i));
        }
      }
    }
    for (std::size_t i = doors; i < watched.size(); ++i) ::close(watched[i].fd);
  }

  // False if the client has left. Requests of these tests come in one piece.
  static bool answer(int fd) {
    char piece[4096];
    const ssize_t n = ::recv(fd, piece, sizeof piece, 0);
    if (n < 0) return errno == EAGAIN;
    if (n == 0) return false;
    constexpr std::string_view text = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    return ::send(fd, text.data(), text.size(), MSG_NOSIGNAL) == std::ssize(text);
  }

  const int wake_;
  std::uint16_t port_ = 0;
  std::vector<std::unique_ptr<fake::Listener>> doors_;
  std::thread thread_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<Came> came_;
};

class CurlDial : public testing::Test {
 protected:
  // "200 ok", or the error's sentence.
  std::string send(HttpRequest request) {
    return outcome_of(io, loop, std::move(request),
                      [](const Error& error) { return std::string(error.detail); });
  }
  HttpRequest to(const std::string& host, HostNamedBy named_by) const {
    HttpRequest request;
    request.url = Url::parse("http://" + host + ":" + canary.port() + "/x").value();
    request.host_named_by = named_by;
    return request;
  }

  Canary canary;
  asio::io_context io;
  CurlLoop loop{io.get_executor()};
};

TEST_F(CurlDial, GoesWhereTheConfigurationSays) {
  std::size_t expected = 0;
  for (const char* host : {"127.0.0.1", "127.9.9.9", "localhost", "r.localhost"}) {
    EXPECT_EQ(send(to(host, HostNamedBy::configuration)), "200 ok") << host;
    EXPECT_EQ(canary.dials(), ++expected) << host;
  }
}

TEST_F(CurlDial, GoesNowhereThatARegistryMayNotName) {
  EXPECT_EQ(send(to("127.0.0.1", HostNamedBy::upstream)),
            "127.0.0.1 leads to 127.0.0.1, a loopback address: nothing is dialled there; correct "
            "the name in DNS or /etc/hosts");
  for (const char* host : {"127.9.9.9", "localhost", "r.localhost", "[::1]", "0.0.0.0", "[::]",
                           "[::ffff:127.0.0.1]", "[::ffff:0.0.0.0]"})
    EXPECT_NE(send(to(host, HostNamedBy::upstream)).find(" leads to "), std::string::npos) << host;
  for (const char* host : {"0.0.0.0", "[::]", "[::ffff:0.0.0.0]"})
    EXPECT_NE(send(to(host, HostNamedBy::configuration)).find(" leads to "), std::string::npos);
  EXPECT_EQ(canary.dials(), 0U);
}

// What is dialled in the place of the URL's host is what is judged.
TEST_F(CurlDial, JudgesTheOtherHostWhereOneIsDialled) {
  HttpRequest request = to("r.example", HostNamedBy::configuration);
  request.connect_to = "127.0.0.1:" + canary.port();
  EXPECT_EQ(send(request), "200 ok");
  request.connect_to = "0.0.0.0:" + canary.port();
  EXPECT_NE(send(request).find("0.0.0.0 leads to "), std::string::npos);
  request.connect_to = "127.9.9.9:" + canary.port();
  request.host_named_by = HostNamedBy::upstream;
  EXPECT_NE(send(request).find("127.9.9.9 leads to "), std::string::npos);
  EXPECT_EQ(canary.dials(), 1U);
}

// A connection that stands is no way around the question who may dial it.
TEST_F(CurlDial, DoesNotUseAConnectionThatWasOpenedForAnother) {
  for (const char* host : {"127.0.0.1", "localhost"}) {
    EXPECT_EQ(send(to(host, HostNamedBy::identity_host)), "200 ok");
    const std::size_t before = canary.dials();
    EXPECT_EQ(send(to(host, HostNamedBy::identity_host)), "200 ok");
    EXPECT_EQ(canary.dials(), before) << "used again by its own kind";
    EXPECT_NE(send(to(host, HostNamedBy::upstream)).find(" leads to "), std::string::npos);
    EXPECT_EQ(canary.dials(), before);
    EXPECT_EQ(send(to(host, HostNamedBy::configuration)), "200 ok");
    EXPECT_EQ(canary.dials(), before + 1) << "opened anew for the configured host";
  }
}

TEST_F(CurlDial, NoSpellingLeadsToThisMachine) {
  EXPECT_GE(fake::spellings().size(), 500U);
  std::size_t sent = 0;
  for (const fake::Spelling& spelling : fake::spellings()) {
    for (const char* scheme : {"http://", "HTTP://"}) {
      const Result<Url> url = Url::parse(scheme + spelling.text + ":" + canary.port() + "/x");
      if (!url) continue;
      ++sent;
      HttpRequest request;
      request.url = *url;
      EXPECT_NE(send(std::move(request)).find(" leads to "), std::string::npos) << spelling.text;
    }
  }
  EXPECT_GT(sent, 400U);
  EXPECT_EQ(canary.dials(), 0U);
}

}  // namespace
}  // namespace staithe::proxy
