#include "proxy/send.h"

#include <sys/sendfile.h>

#include <algorithm>
#include <cerrno>
#include <system_error>

#include "cache/offload.h"

namespace staithe::proxy {

namespace {

// One offloaded step: large beside the 30 us of a hop, small beside a client's patience.
constexpr std::uint64_t step_bytes = 1024 * 1024;

struct Step {
  std::uint64_t sent = 0;
  int error = 0;
};

// As much of the step as the socket takes now.
Step send_step(int socket, int fd, std::uint64_t begin, std::uint64_t end) {
  Step step;
  while (begin + step.sent < end) {
    auto offset = static_cast<off_t>(begin + step.sent);
    const ssize_t n = ::sendfile(socket, fd, &offset, end - begin - step.sent);
    if (n > 0) {
      step.sent += static_cast<std::uint64_t>(n);
      continue;
    }
    if (n < 0 && errno == EINTR) continue;
    step.error = n < 0 ? errno : ENODATA;
    break;
  }
  return step;
}

// Of what sendfile says, all that a socket does not (sendfile(2)).
bool of_file(int error) { return error == ENODATA || error == EIO || error == ENOMEM; }

}  // namespace

asio::awaitable<void> send_file(Socket& socket, asio::thread_pool& disk, int fd,
                                std::uint64_t begin, std::uint64_t end,
                                std::function<void(std::uint64_t bytes)> progress,
                                std::function<void(bool)> held_up) {
  socket.native_non_blocking(true);
  const int out = socket.native_handle();
  const std::uint64_t first = begin;
  progress(0);
  while (begin < end) {
    const std::uint64_t until = std::min(end, begin + step_bytes);
    const Step step = co_await offload(disk, [=] { return send_step(out, fd, begin, until); });
    begin += step.sent;
    progress(begin - first);
    if (step.error == 0) continue;
    if (step.error == EAGAIN) {
      held_up(true);
      co_await socket.async_wait(Socket::wait_write, asio::use_awaitable);
      held_up(false);
    } else if (of_file(step.error)) {
      throw Failure(Errc::storage_failed, "a cached blob could not be read: " +
                                              (step.error == ENODATA ? "its file is too short"
                                                                     : describe_errno(step.error)));
    } else {
      throw boost::system::system_error(step.error, boost::system::system_category());
    }
  }
}

}  // namespace staithe::proxy
