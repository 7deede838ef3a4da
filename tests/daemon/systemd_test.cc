#include "daemon/systemd.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/netlink.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <cstdlib>
#include <cstring>
#include <filesystem>

#include "cache/disk.h"

namespace staithe::daemon {
namespace {

using namespace std::chrono_literals;
using testing::ElementsAre;
using testing::IsEmpty;

class Systemd : public testing::Test {
 protected:
  ~Systemd() override {
    for (const char* name : {"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_PID",
                             "LISTEN_FDS", "LISTEN_FDNAMES"})
      ::unsetenv(name);
  }
  static void set(const char* name, const std::string& value) { ::setenv(name, value.c_str(), 1); }
  // Bound to a name in the abstract namespace that nobody else has.
  static cache::File manager(std::string& name) {
    cache::File socket(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    name = "@staithe-test-" + std::to_string(::getpid());
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::memcpy(address.sun_path, name.data(), name.size());
    address.sun_path[0] = '\0';
    const auto size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + name.size());
    EXPECT_EQ(::bind(socket.fd(), reinterpret_cast<const sockaddr*>(&address), size), 0);
    return socket;
  }
  static std::string received(const cache::File& socket) {
    std::array<char, 256> text{};
    const ssize_t n = ::recv(socket.fd(), text.data(), text.size(), 0);
    return n < 0 ? "" : std::string(text.data(), static_cast<std::size_t>(n));
  }
};

TEST_F(Systemd, TellsTheManagerAndNobodyWithoutOne) {
  notify("READY=1");
  std::string name;
  const cache::File socket = manager(name);
  set("NOTIFY_SOCKET", name);
  notify("READY=1\nSTATUS=serving");
  EXPECT_EQ(received(socket), "READY=1\nSTATUS=serving");
  set("NOTIFY_SOCKET", "/nowhere/at/all");
  notify("READY=1");
  set("NOTIFY_SOCKET", std::string(200, 'x'));
  notify("READY=1");
  EXPECT_EQ(received(socket), "");
}

TEST_F(Systemd, SaysWhenAReloadBegins) {
  std::string name;
  const cache::File socket = manager(name);
  set("NOTIFY_SOCKET", name);
  notify_reloading();
  const std::string first = received(socket);
  EXPECT_TRUE(first.starts_with("RELOADING=1\nMONOTONIC_USEC=")) << first;
  notify_reloading();
  const auto when = [](const std::string& text) {
    return std::stoull(text.substr(text.find("USEC=") + 5));
  };
  EXPECT_GE(when(received(socket)), when(first));
  EXPECT_GT(when(first), 0U);
}

TEST_F(Systemd, HalvesTheWatchdogThatIsForThisProcess) {
  EXPECT_EQ(watchdog_interval(), std::nullopt);
  set("WATCHDOG_USEC", "3000000");
  EXPECT_EQ(watchdog_interval(), 1500ms);
  set("WATCHDOG_PID", std::to_string(::getpid()));
  EXPECT_EQ(watchdog_interval(), 1500ms);
  set("WATCHDOG_PID", "1");
  EXPECT_EQ(watchdog_interval(), std::nullopt);
  set("WATCHDOG_PID", std::to_string(::getpid()));
  for (const char* bad : {"0", "", "soon", "3s", "-1"}) {
    set("WATCHDOG_USEC", bad);
    EXPECT_EQ(watchdog_interval(), std::nullopt) << bad;
  }
}

TEST_F(Systemd, TakesListeningSocketsByNameAndOnlyThose) {
  EXPECT_THAT(passed_sockets().registry, IsEmpty());
  // In a process of its own, whose descriptors from 3 on are what the test says.
  const auto check = [](const std::string& pid, const char* count) {
    const int listening = ::socket(AF_UNIX, SOCK_STREAM, 0);
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    // Autobind: a name of the kernel's choice.
    if (::bind(listening, reinterpret_cast<const sockaddr*>(&address), sizeof(sa_family_t)) != 0 ||
        ::listen(listening, 1) != 0)
      ::_exit(10);
    const int other = ::open("/dev/null", O_RDONLY);
    // Out of the way first: either may be one of those that are to be filled.
    const int kept = ::fcntl(listening, F_DUPFD, 100);
    const int null = ::fcntl(other, F_DUPFD, 100);
    for (const int fd : {3, 4, 6}) ::dup2(kept, fd);
    ::dup2(null, 5);
    const int diag = ::fcntl(::socket(AF_NETLINK, SOCK_DGRAM, NETLINK_SOCK_DIAG), F_DUPFD, 100);
    const int route = ::fcntl(::socket(AF_NETLINK, SOCK_DGRAM, NETLINK_ROUTE), F_DUPFD, 100);
    ::dup2(route, 7);
    ::dup2(diag, 8);
    ::setenv("LISTEN_PID", (pid.empty() ? std::to_string(::getpid()) : pid).c_str(), 1);
    ::setenv("LISTEN_FDS", count, 1);
    ::setenv("LISTEN_FDNAMES", "registry:control:null:metrics:registry:registry", 1);
    const PassedSockets sockets = passed_sockets();
    if (::getenv("LISTEN_FDS")) ::_exit(11);
    if (sockets.registry == std::vector{3} && sockets.control == std::vector{4} &&
        sockets.metrics == std::vector{6} && sockets.peers == 8 &&
        ::fcntl(3, F_GETFD) == FD_CLOEXEC && ::fcntl(8, F_GETFD) == FD_CLOEXEC)
      ::_exit(1);
    ::_exit(sockets.registry.empty() && sockets.control.empty() && !sockets.peers ? 0 : 12);
  };
  GTEST_FLAG_SET(death_test_style, "fast");
  EXPECT_EXIT(check("", "6"), testing::ExitedWithCode(1), "");
  EXPECT_EXIT(check("1", "6"), testing::ExitedWithCode(0), "");
  EXPECT_EXIT(check("", "many"), testing::ExitedWithCode(0), "");
  EXPECT_EXIT(check("", "99999999999"), testing::ExitedWithCode(0), "");
}

}  // namespace
}  // namespace staithe::daemon
