#include "proxy/send.h"

#include <sys/sendfile.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/system/system_error.hpp>
#include <cassert>
#include <cerrno>
#include <optional>
#include <string>
#include <utility>

#include "cache/error.h"
#include "cache/offload.h"

namespace staithe::proxy {

namespace {

using namespace std::chrono_literals;

// Sent without a job: it takes the loop as long as it would to give it to another, some 30 us.
constexpr std::uint64_t most_at_once_bytes = 256 * 1024;
// One turn of a job, before others on its loop have theirs: half a millisecond's worth.
constexpr std::uint64_t turn_bytes = 4 * 1024 * 1024;
// One step on the disk's pool: large beside the hop there and back.
constexpr std::uint64_t disk_step_bytes = 1024 * 1024;
// Where the kernel does not count pages, the page cache is asked about one byte in so many. Files
// fall out of it in longer runs; a hole between two samples costs the loop one wait for the disk.
constexpr std::uint64_t sample_bytes = 1024 * 1024;
// cachestat(2), on all architectures; since Linux 6.5, which Debian 12 is older than.
constexpr long cachestat_call = 451;
// The least that the kernel brings in at a time: what is shorter has one sample.
constexpr std::uint64_t read_around_bytes = 16 * 1024;
// How long what was in the page cache is taken to be there still.
constexpr auto samples_last = 100ms;

struct Step {
  std::uint64_t sent = 0;
  int error = 0;
};

// As much of the stretch as the socket takes now.
Step send_now(int socket, FileStretch stretch) {
  Step step;
  while (stretch.begin < stretch.end) {
    auto offset = static_cast<off_t>(stretch.begin);
    const ssize_t n = ::sendfile(socket, stretch.fd, &offset, stretch.end - stretch.begin);
    if (n > 0) {
      step.sent += static_cast<std::uint64_t>(n);
      stretch.begin += static_cast<std::uint64_t>(n);
      // It has no more room. What the client takes meanwhile would come back in crumbs, each with a
      // fight for the socket's lock; the socket tells when there is room worth a call.
      if (stretch.begin < stretch.end) step.error = EAGAIN;
      break;
    }
    if (n < 0 && errno == EINTR) continue;
    step.error = n < 0 ? errno : ENODATA;
    break;
  }
  return step;
}

// Of what sendfile says, all that a socket does not (sendfile(2)).
bool of_file(int error) { return error == ENODATA || error == EIO || error == ENOMEM; }

[[noreturn]] void throw_error(int error) {
  if (!of_file(error)) throw boost::system::system_error(error, boost::system::system_category());
  throw Failure(Errc::storage_failed,
                "a cached blob could not be read: " +
                    (error == ENODATA ? "its file is too short" : describe_errno(error)));
}

bool byte_in_page_cache(int fd, std::uint64_t offset) {
  char byte = 0;
  const iovec one{.iov_base = &byte, .iov_len = 1};
  // At its end there is nothing to wait for either: sendfile() will say so.
  return ::preadv2(fd, &one, 1, static_cast<off_t>(offset), RWF_NOWAIT) >= 0;
}

// Every page of the stretch has its place in memory; one that is still being read may be among
// them. False where the kernel cannot tell.
bool all_pages_cached(FileStretch stretch) {
  struct {
    std::uint64_t offset;
    std::uint64_t length;
  } const range{stretch.begin, stretch.end - stretch.begin};
  struct {
    std::uint64_t cached, dirty, in_writeback, evicted, recently_evicted;  // pages
  } pages{};
  if (::syscall(cachestat_call, stretch.fd, &range, &pages, 0U) != 0) return false;
  static const auto page_bytes = static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
  return pages.cached > (stretch.end - 1) / page_bytes - stretch.begin / page_bytes;
}

// A socket that another loop owns, to wait for on this one. A descriptor may stand in two sets of
// epoll; this one closes nothing.
class Watch {
 public:
  Watch(const asio::any_io_executor& loop, int socket) : descriptor_(loop, socket) {}
  ~Watch() { descriptor_.release(); }
  Watch(const Watch&) = delete;
  Watch& operator=(const Watch&) = delete;

  // An error comes as readiness, too: what is sent next tells it.
  asio::awaitable<void> writable() {
    co_await descriptor_.async_wait(asio::posix::descriptor_base::wait_write, asio::use_awaitable);
  }

 private:
  asio::posix::stream_descriptor descriptor_;
};

// Lives in the coroutine that waits for it; runs on one loop, `elsewhere` or on the socket's own.
class Job {
 public:
  Job(Socket& socket, bool elsewhere, FileStretch rest, const std::atomic<bool>* stop,
      asio::thread_pool& disk, SendProgress& progress)
      : socket_(socket),
        out_(socket.native_handle()),
        elsewhere_(elsewhere),
        rest_(rest),
        stop_(stop),
        disk_(disk),
        progress_(progress) {}

  asio::awaitable<void> run() {
    const asio::any_io_executor loop = co_await asio::this_coro::executor;
    std::optional<Watch> watch;
    while (rest_.begin < rest_.end && !(stop_ && stop_->load(std::memory_order_relaxed))) {
      const Step step = co_await next_step();
      rest_.begin += step.sent;
      progress_.add(step.sent);
      if (step.error == EAGAIN) {
        if (elsewhere_ && !watch) watch.emplace(loop, out_);
        const auto began = std::chrono::steady_clock::now();
        progress_.hold_up(began);
        if (watch) {
          co_await watch->writable();
        } else {
          co_await socket_.async_wait(Socket::wait_write, asio::use_awaitable);
        }
        const auto ended = std::chrono::steady_clock::now();
        progress_.go_on(ended);
        if (ended - began > samples_last) in_memory_until_ = 0;
      } else if (step.error != 0) {
        error_ = step.error;
        co_return;
      } else if (rest_.begin < rest_.end) {
        co_await asio::post(asio::use_awaitable);  // The others' turn.
      }
    }
  }

  // What sendfile() said, 0 for nothing bad.
  int error() const { return error_; }

 private:
  asio::awaitable<Step> next_step() {
    FileStretch turn = rest_;
    turn.end = std::min(turn.end, turn.begin + turn_bytes);
    if (in_memory_until_ <= turn.begin) in_memory_until_ = in_page_cache(turn);
    if (in_memory_until_ > turn.begin) {
      turn.end = std::min(turn.end, in_memory_until_);
      co_return send_now(out_, turn);
    }
    turn.end = std::min(turn.end, turn.begin + disk_step_bytes);
    co_return co_await offload(disk_, [this, turn] { return send_now(out_, turn); });
  }

  Socket& socket_;  // of its own loop; another touches but its descriptor
  const int out_;
  const bool elsewhere_;
  FileStretch rest_;
  const std::atomic<bool>* const stop_;
  asio::thread_pool& disk_;
  SendProgress& progress_;
  std::uint64_t in_memory_until_ = 0;
  int error_ = 0;
};

// Runs the job on `loop`, and comes back. No cancellation reaches it (cache/offload.h).
asio::awaitable<void> run_on(asio::any_io_executor loop, Job& job) {
  std::exception_ptr failed;
  co_await asio::async_initiate<const asio::use_awaitable_t<>, void()>(
      [&](auto handler) {
        auto home = asio::make_work_guard(asio::get_associated_executor(handler));
        asio::co_spawn(loop, job.run(),
                       [&failed, home = std::move(home),
                        handler = std::move(handler)](std::exception_ptr error) mutable {
                         failed = error;
                         asio::post(home.get_executor(), std::move(handler));
                       });
      },
      asio::use_awaitable);
  if (failed) std::rethrow_exception(failed);
}

}  // namespace

std::uint64_t in_page_cache(FileStretch stretch) {
  std::uint64_t until = stretch.begin;
  // What is read ahead comes in from the front.
  if (until < stretch.end && all_pages_cached(stretch) &&
      byte_in_page_cache(stretch.fd, stretch.end - 1))
    return stretch.end;
  while (until < stretch.end && byte_in_page_cache(stretch.fd, until))
    until = std::min(stretch.end, until + sample_bytes);
  if (until < stretch.end || stretch.end - stretch.begin <= read_around_bytes) return until;
  if (byte_in_page_cache(stretch.fd, stretch.end - 1)) return stretch.end;
  // The last sample but this one was there.
  return stretch.begin + (stretch.end - 1 - stretch.begin) / sample_bytes * sample_bytes;
}

asio::awaitable<void> send_file(Socket& socket, FileStretch stretch, const std::atomic<bool>* stop,
                                Senders* senders, asio::thread_pool& disk, SendProgress& progress) {
  assert(stretch.begin <= stretch.end);
  if (stretch.end - stretch.begin <= most_at_once_bytes && in_page_cache(stretch) == stretch.end) {
    const Step step = send_now(socket.native_handle(), stretch);
    stretch.begin += step.sent;
    progress.add(step.sent);
    if (step.error != 0 && step.error != EAGAIN) throw_error(step.error);
  }
  if (stretch.begin == stretch.end) co_return;
  Job job(socket, senders != nullptr, stretch, stop, disk, progress);
  if (senders) {
    const Senders::Place place(*senders);
    co_await run_on(place.loop().get_executor(), job);
  } else {
    co_await job.run();
  }
  if (job.error() != 0) throw_error(job.error());
}

}  // namespace staithe::proxy
