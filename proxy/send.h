// Bytes of a file to a socket by sendfile(2): the kernel copies, this process does not.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <boost/asio/thread_pool.hpp>
#include <cstdint>
#include <functional>

#include "proxy/connection.h"

namespace staithe::proxy {

// Sends bytes `begin`..`end`. A page that is not in memory stalls a pool thread, not the loop.
// `progress` is told, before each step and after the last, how many bytes have been sent, so that
// the caller knows where another source would have to go on; `held_up` is told true when the peer
// takes no more for now, and false when it does again. Throws system_error when the peer is gone,
// Failure(storage_failed) when the file is shorter or unreadable.
asio::awaitable<void> send_file(Socket& socket, asio::thread_pool& disk, int fd,
                                std::uint64_t begin, std::uint64_t end,
                                std::function<void(std::uint64_t bytes)> progress,
                                std::function<void(bool)> held_up);

}  // namespace staithe::proxy
