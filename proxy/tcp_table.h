// The kernel's list of TCP connections as text, /proc/net/tcp and tcp6 (proc(5)).
//
// Where a process may not ask about one connection (sock_diag, see proxy/peer.h) this is what is
// left: it says the same, and costs a line for each connection of the machine. Pure.
#pragma once

#include <istream>
#include <optional>

#include "proxy/peer.h"

namespace staithe::proxy {

// One line of it.
struct TcpLine {
  TcpEnd local;
  TcpEnd remote;
  unsigned state = 0;  // TCP_ESTABLISHED and so on
  unsigned uid = 0;
  std::uint64_t inode = 0;  // 0: no process holds the socket any more
};

// nullopt for the heading, and for what is no such line.
std::optional<TcpLine> parse_tcp_line(std::string_view line);

// The line of the socket that stands at `local` and is connected to `remote`.
std::optional<TcpLine> find_tcp_line(std::istream& table, const TcpEnd& local,
                                     const TcpEnd& remote);

}  // namespace staithe::proxy
