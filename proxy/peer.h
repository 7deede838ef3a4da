// Which local user is at the other end of a connection, by the kernel's word (threat T1).
//
// A Unix socket knows its peer since connect() (SO_PEERCRED). For a TCP connection over loopback
// the kernel is asked for the other socket of exactly this pair of addresses (sock_diag); its
// answer names the user that created that socket. A process that may not make the socket for such
// questions uses one that it was given, or else reads the kernel's list (proxy/tcp_table.h). A
// socket that no process holds any more has no user, nor has one in another network namespace, nor
// a user whom our user namespace has no number for: unknown, which is nobody and not root.
#pragma once

#include <netinet/in.h>

#include <cstdint>
#include <optional>

namespace staithe::proxy {

// A uid, or nullopt where the kernel cannot tell.
using Peer = std::optional<unsigned>;

// Who calls, and by which connection, for those who want to know more of him.
struct Caller {
  Caller(Peer of_user, int by_connection = -1)  // NOLINT: implicit on purpose
      : user(of_user), connection(by_connection) {}

  Peer user;
  int connection;  // a descriptor of somebody else's; -1: there is none
};

// Of a connected socket. Takes some microseconds and never waits: a question about a TCP connection
// is answered by the kernel while it is being put.
Peer peer_of(int fd);

// The cgroup in which the other socket of a TCP connection over loopback was made, by its number,
// which is the inode of its directory; 0 where the kernel does not tell (a Unix socket, a peer that
// is gone, a process that may ask nothing but the kernel's list). It is for people to read: a
// process may be moved to another cgroup, and nothing is allowed for it.
std::uint64_t cgroup_of(int fd);

// One end of a TCP connection; IPv4 as the mapped IPv6 address, since one end may be an IPv6 socket
// and the other not.
struct TcpEnd {
  in6_addr address{};
  std::uint16_t port = 0;

  bool operator==(const TcpEnd& other) const;
};

// The user of the local socket that stands at `theirs` and is connected to `ours`.
Peer tcp_peer(const TcpEnd& ours, const TcpEnd& theirs);

// A netlink socket (NETLINK_SOCK_DIAG) to ask through from now on, for the whole process, which
// owns it from then on; -1: none. It may be one that others have asked through before, not one that
// others ask through at the same time. Before there are connections, or on the main loop.
void ask_peers_through(int netlink);

}  // namespace staithe::proxy
