#include "cache/clock.h"

#include <time.h>

#include <algorithm>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>

namespace staithe {

BootClock::time_point BootClock::now() noexcept {
  timespec ts{};
  ::clock_gettime(CLOCK_BOOTTIME, &ts);  // Cannot fail: the clock exists since Linux 2.6.39.
  return time_point(std::chrono::seconds(ts.tv_sec) + std::chrono::nanoseconds(ts.tv_nsec));
}

asio::awaitable<void> SystemClock::sleep_until(Instant when) {
  // Asio's timers do not count suspend, so a long sleep is taken in steps: after a wake-up the
  // instant is seen to have passed within one step.
  constexpr std::chrono::nanoseconds step = std::chrono::seconds(30);
  asio::steady_timer timer(co_await asio::this_coro::executor);
  for (Instant at = now(); at < when; at = now()) {
    timer.expires_after(std::min<std::chrono::nanoseconds>(step, when - at));
    co_await timer.async_wait(asio::use_awaitable);
  }
}

}  // namespace staithe
