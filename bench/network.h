// A loopback of this program's own, so that the machine's settings do not decide who is fast.
#pragma once

#include <string>

namespace staithe::bench {

// Moves this process, and with it what it starts, into a network namespace that has a loopback
// and nothing else, where TCP's congestion control is `congestion` ("host": stays where it is).
// Call before a thread or a socket exists. Gives how it ended up, for the report.
//
// Some machines use BBR, which paces what is sent: of a large body over loopback half the rate is
// lost, by another half from run to run, and servers that choose another algorithm for their
// sockets look good. With the same for all they are compared by what they do. Needs root; without
// it the machine's own loopback is used, and said.
std::string own_loopback(const std::string& congestion);

}  // namespace staithe::bench
