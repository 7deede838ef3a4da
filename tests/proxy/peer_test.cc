#include "proxy/peer.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/filter.h>
#include <linux/netlink.h>
#include <linux/seccomp.h>
#include <linux/sock_diag.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstddef>
#include <filesystem>
#include <string>
#include <utility>

#include "tests/fake/house.h"
#include "tests/fake/other_user.h"

namespace staithe::proxy {
namespace {

using fake::House;
using fake::OtherUser;

constexpr unsigned somebody = 54321;

// A listening socket, and the address to connect to.
class Listener {
 public:
  // family AF_INET, AF_INET6 or AF_UNIX; an IPv6 one takes IPv4 too unless `v6_only`.
  explicit Listener(int family, bool v6_only = false) {
    fd_ = ::socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_storage name{};
    name.ss_family = static_cast<sa_family_t>(family);
    socklen_t size = sizeof(sockaddr_in);
    if (family == AF_UNIX) {
      std::string directory = std::filesystem::temp_directory_path() / "staithe-peer-XXXXXX";
      directory_ = ::mkdtemp(directory.data());
      std::filesystem::permissions(directory_, std::filesystem::perms(0755));
      const std::string path = directory_ / "s";
      std::memcpy(reinterpret_cast<sockaddr_un&>(name).sun_path, path.data(), path.size());
      size = sizeof(sockaddr_un);
      address_ = "unix:" + path;
    } else if (family == AF_INET6) {
      const int only = v6_only ? 1 : 0;
      ::setsockopt(fd_, IPPROTO_IPV6, IPV6_V6ONLY, &only, sizeof only);
      size = sizeof(sockaddr_in6);
      if (v6_only) reinterpret_cast<sockaddr_in6&>(name).sin6_addr = in6addr_loopback;
    } else {
      reinterpret_cast<sockaddr_in&>(name).sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    }
    good_ = ::bind(fd_, reinterpret_cast<sockaddr*>(&name), size) == 0 && ::listen(fd_, 10) == 0;
    if (family == AF_UNIX) {
      std::filesystem::permissions(directory_ / "s", std::filesystem::perms(0777));
    } else {
      ::getsockname(fd_, reinterpret_cast<sockaddr*>(&name), &size);
      port_ = ntohs(reinterpret_cast<sockaddr_in&>(name).sin_port);
    }
  }
  ~Listener() {
    ::close(fd_);
    if (!directory_.empty()) std::filesystem::remove_all(directory_);
  }
  bool good() const { return good_; }
  std::uint16_t port() const { return port_; }
  // With `host` in front of the port; the path of a Unix socket.
  std::string at(const std::string& host = {}) const {
    return address_.empty() ? host + ":" + std::to_string(port_) : address_;
  }
  int accept() const { return ::accept4(fd_, nullptr, nullptr, SOCK_CLOEXEC); }

 private:
  int fd_ = -1;
  bool good_ = false;
  std::uint16_t port_ = 0;
  std::string address_;
  std::filesystem::path directory_;
};

// Connects as `uid`, tells, and keeps the connection until it is let go.
auto staying(std::string address) {
  return [address](OtherUser::End& end) {
    end.tell(fake::connect_to(address) >= 0 ? "+" : "-");
    end.wait();
  };
}

TEST(Peer, OfAUnixSocketIsKnownAndStaysSo) {
  if (!OtherUser::possible()) GTEST_SKIP() << "needs root, to become another user";
  const Listener listener(AF_UNIX);
  OtherUser user(somebody, staying(listener.at()));
  ASSERT_TRUE(user.listen_for("+"));
  const int fd = listener.accept();
  EXPECT_EQ(peer_of(fd), Peer(somebody));
  user.end();
  EXPECT_EQ(peer_of(fd), Peer(somebody)) << "fixed at connect()";
  ::close(fd);
}

// Every way in which two loopback addresses of one connection can be written.
TEST(Peer, OfATcpConnectionIsTheUserOfItsOtherSocket) {
  if (!OtherUser::possible()) GTEST_SKIP() << "needs root, to become another user";
  const Listener v4(AF_INET);
  const Listener v6(AF_INET6, true);
  const Listener both(AF_INET6);
  struct Case {
    const Listener& listener;
    const char* host;
  };
  for (const auto& [listener, host] :
       {Case{v4, "127.0.0.1"}, Case{v4, "[::ffff:127.0.0.1]"}, Case{v6, "[::1]"},
        Case{both, "127.0.0.1"}, Case{both, "[::ffff:127.0.0.1]"}, Case{both, "[::1]"}}) {
    if (!listener.good()) continue;  // a machine without IPv6
    for (const unsigned uid : {somebody, 0U}) {
      OtherUser user(uid, staying(listener.at(host)));
      ASSERT_TRUE(user.listen_for("+")) << host;
      const int fd = listener.accept();
      EXPECT_EQ(peer_of(fd), Peer(uid)) << host;
      ::close(fd);
    }
  }
}

// As systemd's RestrictAddressFamilies= does it, for this process and for ever.
bool forbid_netlink() {
  sock_filter steps[] = {BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
                         BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_socket, 0, 3),
                         BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, args[0])),
                         BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AF_NETLINK, 0, 1),
                         BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EAFNOSUPPORT),
                         BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)};
  const sock_fprog program{.len = std::size(steps), .filter = steps};
  return ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
         ::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

// What the daemon can know as a systemd service: with the socket that it was passed, and without.
TEST(Peer, IsKnownWhereNoNetlinkSocketMayBeMade) {
  if (!OtherUser::possible()) GTEST_SKIP() << "needs root, to become another user";
  const Listener v4(AF_INET);
  const Listener both(AF_INET6);
  for (const bool given : {true, false}) {
    for (const auto& [listener, host] :
         {std::pair(&v4, "127.0.0.1"), std::pair(&both, "127.0.0.1"), std::pair(&both, "[::1]")}) {
      if (!listener->good()) continue;  // a machine without IPv6
      OtherUser user(somebody, staying(listener->at(host)));
      ASSERT_TRUE(user.listen_for("+")) << host;
      OtherUser asking(0, [&](OtherUser::End& end) {
        if (given)
          ask_peers_through(::socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC, NETLINK_SOCK_DIAG));
        if (!forbid_netlink()) return end.tell("seccomp");
        if (::socket(AF_NETLINK, SOCK_DGRAM, NETLINK_SOCK_DIAG) >= 0) return end.tell("allowed");
        const int fd = listener->accept();
        // A second question goes the same way.
        end.tell(peer_of(fd) == Peer(somebody) && peer_of(fd) == Peer(somebody) ? "known" : "not");
      });
      EXPECT_TRUE(asking.listen_for("known")) << host << (given ? " given" : "");
    }
  }
}

// One that another daemon asked through before, and died.
TEST(Peer, IsNotTakenFromAnAnswerToAnOlderQuestion) {
  const Listener listener(AF_INET);
  OtherUser user(::geteuid(), staying(listener.at("127.0.0.1")));
  ASSERT_TRUE(user.listen_for("+"));
  const int fd = listener.accept();
  const int netlink = ::socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC, NETLINK_SOCK_DIAG);
  // Each is answered by an error that nobody reads.
  const nlmsghdr question{.nlmsg_len = sizeof question,
                          .nlmsg_type = SOCK_DIAG_BY_FAMILY,
                          .nlmsg_flags = NLM_F_REQUEST,
                          .nlmsg_seq = 1,
                          .nlmsg_pid = 0};
  sockaddr_nl kernel{};
  kernel.nl_family = AF_NETLINK;
  for (int i = 0; i < 3; ++i)
    ASSERT_GT(::sendto(netlink, &question, sizeof question, 0,
                       reinterpret_cast<const sockaddr*>(&kernel), sizeof kernel),
              0);
  ask_peers_through(netlink);
  EXPECT_EQ(peer_of(fd), Peer(::geteuid()));
  EXPECT_EQ(peer_of(fd), Peer(::geteuid()));
  ask_peers_through(-1);
  EXPECT_EQ(peer_of(fd), Peer(::geteuid()));
  ::close(fd);
}

TEST(Peer, ThatIsGoneIsUnknownAndNotRoot) {
  const Listener listener(AF_INET);
  OtherUser user(OtherUser::possible() ? somebody : ::geteuid(), staying(listener.at("127.0.0.1")));
  ASSERT_TRUE(user.listen_for("+"));
  const int fd = listener.accept();
  EXPECT_TRUE(peer_of(fd));
  user.end();
  EXPECT_EQ(peer_of(fd), std::nullopt);
  ::close(fd);
}

TEST(Peer, ThatHasSentAllItWillIsStillKnown) {
  const Listener listener(AF_INET);
  OtherUser user(::geteuid(), [address = listener.at("127.0.0.1")](OtherUser::End& end) {
    end.tell(::shutdown(fake::connect_to(address), SHUT_WR) == 0 ? "+" : "-");
    end.wait();
  });
  ASSERT_TRUE(user.listen_for("+"));
  const int fd = listener.accept();
  EXPECT_EQ(peer_of(fd), Peer(::geteuid()));
  ::close(fd);
}

// If the connection is gone, the kernel answers with whoever listens at that address; that may be
// anybody, and is not the one who connected.
TEST(Peer, IsNotWhoeverListensAtItsAddress) {
  const Listener listener(AF_INET);
  TcpEnd ours{.address = {}, .port = 1};
  ours.address.s6_addr[10] = ours.address.s6_addr[11] = 0xff;
  ours.address.s6_addr[12] = 127;
  ours.address.s6_addr[15] = 1;
  TcpEnd theirs = ours;
  theirs.port = listener.port();
  EXPECT_EQ(tcp_peer(ours, theirs), std::nullopt);
  theirs.port = 2;
  EXPECT_EQ(tcp_peer(ours, theirs), std::nullopt);
}

// In a container with user ids of its own, everybody outside has the same number, and that may be
// the daemon's own.
TEST(Peer, WithoutANumberInOurUserNamespaceIsUnknown) {
  if (!OtherUser::possible()) GTEST_SKIP() << "needs root, to become another user";
  const Listener by_unix(AF_UNIX);
  const Listener by_tcp(AF_INET);
  OtherUser first(somebody, staying(by_unix.at()));
  OtherUser second(somebody, staying(by_tcp.at("127.0.0.1")));
  ASSERT_TRUE(first.listen_for("+"));
  ASSERT_TRUE(second.listen_for("+"));
  OtherUser inside(0, [&](OtherUser::End& end) {
    // Not by unshare(), which refuses whoever has threads: a sanitizer may have one of its own.
    const long child = ::syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, nullptr, nullptr, nullptr, 0);
    if (child < 0) return end.tell("clone");
    if (child > 0) {
      ::waitpid(static_cast<pid_t>(child), nullptr, 0);
      return;
    }
    const int map = ::open("/proc/self/uid_map", O_WRONLY | O_CLOEXEC);
    if (::write(map, "0 0 1\n", 6) != 6) return end.tell("uid_map");
    end.tell(!peer_of(by_unix.accept()) && !peer_of(by_tcp.accept()) ? "unknown" : "somehow");
  });
  EXPECT_TRUE(inside.listen_for("unknown"));
  // Where everybody has a number, this one is a user's like any other.
  OtherUser nobody(65534, staying(by_unix.at()));
  ASSERT_TRUE(nobody.listen_for("+"));
  const int fd = by_unix.accept();
  EXPECT_EQ(peer_of(fd), Peer(65534U));
  ::close(fd);
}

TEST(Peer, OfWhatIsNoConnectionIsUnknown) {
  EXPECT_EQ(peer_of(-1), std::nullopt);
  const int file = ::open("/dev/null", O_RDONLY | O_CLOEXEC);
  EXPECT_EQ(peer_of(file), std::nullopt);
  ::close(file);
  const int unconnected = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  EXPECT_EQ(peer_of(unconnected), std::nullopt);
  ::close(unconnected);
}

// ---- at the listener
// -----------------------------------------------------------------------------

std::string get_as(House& house, unsigned uid, const std::string& target) {
  const std::string address = "127.0.0.1:" + std::to_string(house.endpoint().port());
  OtherUser user(uid, [&](OtherUser::End& end) {
    end.tell(fake::talk(
        address, "GET " + target + " HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"));
  });
  return house.run(user.all_told(house.io.get_executor()));
}

asio::awaitable<std::optional<Instant>> only_root(Caller caller, std::optional<std::string>) {
  if (caller.user != Peer(0)) co_return std::nullopt;
  co_return Instant::max();
}

TEST(Restriction, RefusesOtherUsersWithASentenceAndNoChallenge) {
  if (!OtherUser::possible()) GTEST_SKIP() << "needs root, to become another user";
  House house;
  const auto digest = house.play_blob("app", "some bytes");
  const std::string blob = "/v2/r.example/app/blobs/" + digest.to_string();
  house.proxy.restrict(only_root);
  for (const std::string& target : {blob, std::string("/v2/"), std::string("/nothing")}) {
    const std::string answer = get_as(house, somebody, target);
    EXPECT_TRUE(answer.starts_with("HTTP/1.1 403 Forbidden\r\n")) << answer;
    EXPECT_TRUE(answer.contains(R"("code":"DENIED")")) << answer;
    EXPECT_TRUE(answer.contains("uid 54321")) << answer;
    EXPECT_TRUE(answer.contains("access.users")) << answer;
    EXPECT_FALSE(answer.contains("WWW-Authenticate")) << answer;
  }
  EXPECT_EQ(house.proxy.traffic().denied, 3U);
  EXPECT_EQ(house.upstream.asked().size(), 0U) << "nobody was asked on behalf of a stranger";
  EXPECT_TRUE(get_as(house, somebody, "/healthz").starts_with("HTTP/1.1 200 OK\r\n"));
  EXPECT_TRUE(get_as(house, 0, blob).starts_with("HTTP/1.1 200 OK\r\n"));
  EXPECT_EQ(house.get(blob).body, "some bytes");
  // Without the rule again everybody is served.
  house.proxy.restrict({});
  EXPECT_TRUE(get_as(house, somebody, blob).starts_with("HTTP/1.1 200 OK\r\n"));
}

TEST(Restriction, IsAskedForEveryRequestOfAConnection) {
  House house;
  int asked = 0;
  Peer seen;
  house.proxy.restrict([&](Caller caller, std::optional<std::string>) {
    ++asked;
    seen = caller.user;
    return only_root(Peer(0U), std::nullopt);
  });
  const fake::Answer answer =
      house.run(house.ask("GET /v2/ HTTP/1.1\r\nHost: localhost\r\n\r\n"
                          "GET /v2/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"));
  EXPECT_EQ(answer.status, 200);
  EXPECT_EQ(asked, 2) << "the rule may change between two requests";
  EXPECT_EQ(seen, Peer(::geteuid()));
}

}  // namespace
}  // namespace staithe::proxy
