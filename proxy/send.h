// Bytes of a file to a socket by sendfile(2): the kernel copies, this process does not.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <boost/asio/thread_pool.hpp>
#include <cstdint>
#include <functional>

#include "proxy/connection.h"

namespace staithe::proxy {

// Sends bytes `begin`..`end`. A page that is not in memory stalls a pool thread, not the loop.
// `progress` is called before each step, so that the caller can set a deadline for it. Throws
// system_error when the peer is gone, Failure(storage_failed) when the file is shorter or
// unreadable.
asio::awaitable<void> send_file(Socket& socket, asio::thread_pool& disk, int fd,
                                std::uint64_t begin, std::uint64_t end,
                                std::function<void()> progress);

}  // namespace staithe::proxy
