#include "cache/clock.h"

#include <gtest/gtest.h>

#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/cancellation_signal.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/system/system_error.hpp>

namespace staithe {
namespace {

using namespace std::chrono_literals;

TEST(SystemClock, GoesForward) {
  SystemClock clock;
  const Instant first = clock.now();
  EXPECT_LE(first, clock.now());
  EXPECT_GT(clock.wall(), std::chrono::sys_days(std::chrono::year(2025) / 1 / 1));
}

TEST(SystemClock, SleepsUntilTheInstantAndNotWhenItHasPassed) {
  asio::io_context io;
  SystemClock clock;
  int woken = 0;
  const Instant when = clock.now() + 1ms;
  for (const Instant instant : {Instant{}, clock.now() - 1h, when}) {
    asio::co_spawn(io, clock.sleep_until(instant), [&](std::exception_ptr error) {
      EXPECT_FALSE(error);
      ++woken;
    });
  }
  io.run();
  EXPECT_EQ(woken, 3);
  EXPECT_GE(clock.now(), when);
}

TEST(SystemClock, ACancelledSleeperThrows) {
  asio::io_context io;
  SystemClock clock;
  asio::cancellation_signal signal;
  std::exception_ptr thrown;
  asio::co_spawn(io, clock.sleep_for(1h),
                 asio::bind_cancellation_slot(signal.slot(),
                                              [&](std::exception_ptr error) { thrown = error; }));
  io.poll();
  signal.emit(asio::cancellation_type::terminal);
  io.restart();
  io.run();
  ASSERT_TRUE(thrown);
  EXPECT_THROW(std::rethrow_exception(thrown), boost::system::system_error);
}

}  // namespace
}  // namespace staithe
