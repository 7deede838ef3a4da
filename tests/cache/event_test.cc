#include "cache/event.h"

#include <gtest/gtest.h>

#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/cancellation_signal.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>

namespace staithe {
namespace {

class EventTest : public testing::Test {
 protected:
  asio::awaitable<void> wait_for(int number) {
    while (value_ < number) co_await event_.wait();
    ++woken_;
  }
  void poll() {
    io_.restart();
    io_.poll();
  }
  asio::io_context io_;
  Event event_{io_.get_executor()};
  int value_ = 0;
  int woken_ = 0;
};

TEST_F(EventTest, WakesEverybodyWhoWaitsAndTheyLookForThemselves) {
  for (const int number : {1, 1, 2})
    asio::co_spawn(io_, wait_for(number), [](std::exception_ptr error) { EXPECT_FALSE(error); });
  poll();
  event_.notify_all();
  poll();
  EXPECT_EQ(woken_, 0);
  value_ = 1;
  event_.notify_all();
  poll();
  EXPECT_EQ(woken_, 2);
  value_ = 2;
  event_.notify_all();
  poll();
  EXPECT_EQ(woken_, 3);
}

TEST_F(EventTest, ACancelledWaiterEndsAtItsNextWait) {
  asio::cancellation_signal signal;
  std::exception_ptr thrown;
  asio::co_spawn(io_, wait_for(1),
                 asio::bind_cancellation_slot(signal.slot(),
                                              [&](std::exception_ptr error) { thrown = error; }));
  poll();
  signal.emit(asio::cancellation_type::terminal);
  poll();
  EXPECT_TRUE(thrown);
  EXPECT_EQ(woken_, 0);
}

}  // namespace
}  // namespace staithe
