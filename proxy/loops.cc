#include "proxy/loops.h"

#include <pthread.h>
#include <sched.h>

#include <algorithm>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <cassert>

namespace staithe::proxy {

std::size_t Loops::for_this_machine(std::size_t most) {
  cpu_set_t cores;
  CPU_ZERO(&cores);
  if (::sched_getaffinity(0, sizeof cores, &cores) != 0) return 1;
  return std::clamp<std::size_t>(static_cast<std::size_t>(CPU_COUNT(&cores)), 1, most);
}

Loops::Loops(std::size_t count) : loops_(count) {
  assert(count > 0);
  for (Loop& loop : loops_) {
    // Makes its reactor, whose descriptors may be had now and perhaps not later.
    const asio::posix::stream_descriptor none(loop.context);
    loop.thread = std::thread([&loop] { loop.context.run(); });
    ::pthread_setname_np(loop.thread.native_handle(), "loop");
  }
}

Loops::~Loops() {
  for (Loop& loop : loops_) loop.work.reset();
  for (Loop& loop : loops_) loop.thread.join();
}

asio::awaitable<void> Loops::come_round() {
  // Posted there, and back from there to where this coroutine runs.
  for (Loop& loop : loops_) co_await asio::post(loop.context, asio::use_awaitable);
}

}  // namespace staithe::proxy
