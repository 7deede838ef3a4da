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

}  // namespace

asio::awaitable<void> send_file(Socket& socket, asio::thread_pool& disk, int fd,
                                std::uint64_t begin, std::uint64_t end,
                                std::function<void()> progress) {
  socket.native_non_blocking(true);
  const int out = socket.native_handle();
  while (begin < end) {
    progress();
    const std::uint64_t until = std::min(end, begin + step_bytes);
    const Step step = co_await offload(disk, [=] { return send_step(out, fd, begin, until); });
    begin += step.sent;
    if (step.error == 0) continue;
    if (step.error == EAGAIN) {
      co_await socket.async_wait(Socket::wait_write, asio::use_awaitable);
    } else if (step.error == ENODATA || step.error == EIO) {
      throw Failure(Errc::storage_failed,
                    "a cached blob could not be read: " +
                        (step.error == EIO ? describe_errno(EIO) : "its file is too short"));
    } else {
      throw boost::system::system_error(step.error, boost::system::system_category());
    }
  }
}

}  // namespace staithe::proxy
