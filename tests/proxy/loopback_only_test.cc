// A connection is served if both of its ends are on loopback (threat T3), in a network namespace of
// the test's own, whose lo has a second address.
#include <gtest/gtest.h>
#include <net/if.h>
#include <sched.h>
#include <sys/ioctl.h>

#include "tests/fake/house.h"
#include "tests/fake/other_user.h"

namespace staithe::proxy {
namespace {

using fake::House;
using fake::OtherUser;

constexpr const char* second_address = "10.99.0.1";

// For this process alone, and for ever.
bool enter_own_network() {
  if (::unshare(CLONE_NEWNET) != 0) return false;
  const int fd = ::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  ifreq request{};
  std::memcpy(request.ifr_name, "lo", 3);
  request.ifr_flags = IFF_UP;
  bool good = ::ioctl(fd, SIOCSIFFLAGS, &request) == 0;
  request = {};
  std::memcpy(request.ifr_name, "lo:1", 5);
  auto& address = reinterpret_cast<sockaddr_in&>(request.ifr_addr);
  address.sin_family = AF_INET;
  ::inet_pton(AF_INET, second_address, &address.sin_addr);
  good = good && ::ioctl(fd, SIOCSIFADDR, &request) == 0;
  ::close(fd);
  return good;
}

sockaddr_in address_of(const char* ip, std::uint16_t port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  ::inet_pton(AF_INET, ip, &address.sin_addr);
  return address;
}

// What a client at `from` gets from `to`; empty if the connection was closed without a word.
std::string ask(House& house, const char* from, const char* to, std::uint16_t port) {
  const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const sockaddr_in ours = address_of(from, 0);
  const sockaddr_in theirs = address_of(to, port);
  if (::bind(fd, reinterpret_cast<const sockaddr*>(&ours), sizeof ours) != 0 ||
      ::connect(fd, reinterpret_cast<const sockaddr*>(&theirs), sizeof theirs) != 0)
    return "cannot connect";
  constexpr std::string_view request =
      "GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
  ::send(fd, request.data(), request.size(), MSG_NOSIGNAL);
  std::string answer;
  bool ended = false;
  house.run_until_true([&] {
    std::array<char, 4096> piece;
    const ssize_t n = ::recv(fd, piece.data(), piece.size(), MSG_DONTWAIT);
    if (n > 0) answer.append(piece.data(), static_cast<std::size_t>(n));
    ended = n == 0 || (n < 0 && errno != EAGAIN);
    return ended;
  });
  ::close(fd);
  return answer;
}

TEST(Loopback, IsWhereBothEndsOfAConnectionHaveToBe) {
  if (!OtherUser::possible()) GTEST_SKIP() << "needs root, to have a network of its own";
  OtherUser inside(0, [](OtherUser::End& end) {
    if (!enter_own_network()) return end.tell("no network");
    House house;
    const auto served = [](const std::string& answer) {
      return answer.starts_with("HTTP/1.1 200 OK\r\n");
    };
    const auto refused = [&] { return house.server().figures().refused_address; };
    const std::uint16_t port = house.endpoint().port();
    if (!served(ask(house, "127.0.0.1", "127.0.0.1", port))) return end.tell("own");
    if (!served(ask(house, "127.1.2.3", "127.0.0.1", port))) return end.tell("own as well");
    if (refused() != 0) return end.tell("counted");
    // As one who was routed here.
    if (!ask(house, second_address, "127.0.0.1", port).empty() || refused() != 1)
      return end.tell("from");

    // A socket that was passed to us may listen on more than it should.
    const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in any = address_of("0.0.0.0", 0);
    socklen_t size = sizeof any;
    if (::bind(fd, reinterpret_cast<const sockaddr*>(&any), size) != 0 || ::listen(fd, 10) != 0 ||
        ::getsockname(fd, reinterpret_cast<sockaddr*>(&any), &size) != 0)
      return end.tell("listener");
    Server server(house.io.get_executor(), {.connections = 10, .connection = {}}, house.proxy,
                  house.store.disk_pool());
    server.adopt(fd);
    server.start();
    const std::uint16_t open = ntohs(any.sin_port);
    const bool good = ask(house, second_address, second_address, open).empty() &&
                      ask(house, "127.0.0.1", second_address, open).empty() &&
                      served(ask(house, "127.0.0.1", "127.0.0.1", open)) &&
                      server.figures().refused_address == 2;
    house.run(server.stop());
    end.tell(good ? "all" : "to");
  });
  EXPECT_TRUE(inside.listen_for("all"));
}

}  // namespace
}  // namespace staithe::proxy
