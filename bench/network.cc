#include "bench/network.h"

#include <net/if.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>
#include <fstream>

#include "cache/disk.h"
#include "cache/error.h"

namespace staithe::bench {

namespace {

constexpr const char* setting = "/proc/sys/net/ipv4/tcp_congestion_control";

std::string in_force() {
  std::ifstream file(setting);
  std::string name;
  std::getline(file, name);
  return name;
}

}  // namespace

std::string own_loopback(const std::string& congestion) {
  if (congestion == "host") return in_force() + ", the machine's loopback";
  if (::unshare(CLONE_NEWNET) != 0)
    return in_force() + ", the machine's loopback (one of its own: " + describe_errno(errno) + ")";
  const cache::File socket(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  ifreq loopback{};
  std::strncpy(loopback.ifr_name, "lo", IFNAMSIZ - 1);
  loopback.ifr_flags = IFF_UP | IFF_RUNNING;
  if (::ioctl(socket.fd(), SIOCSIFFLAGS, &loopback) != 0)
    throw Failure(Errc::config, "cannot bring a loopback up: " + describe_errno(errno));
  std::ofstream file(setting);
  file << congestion;
  if (!file.flush())
    throw Failure(Errc::config, "this kernel does not allow " + congestion +
                                    " in a network namespace: use --congestion reno or host");
  return in_force() + ", a loopback of its own";
}

}  // namespace staithe::bench
