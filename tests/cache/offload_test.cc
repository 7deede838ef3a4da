#include "cache/offload.h"

#include <gtest/gtest.h>

#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/cancellation_signal.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <latch>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>

namespace staithe {
namespace {

class OffloadTest : public testing::Test {
 protected:
  asio::awaitable<std::string> ask() {
    const auto there = co_await offload(pool_, [] { return std::this_thread::get_id(); });
    EXPECT_NE(there, std::this_thread::get_id());
    EXPECT_EQ(loop_, std::this_thread::get_id()) << "back on the loop";
    auto moved = co_await offload(pool_, [] { return std::make_unique<int>(7); });
    std::string text = "local";
    co_await offload(pool_, [&] { text += std::to_string(*moved); });
    co_return text;
  }
  asio::awaitable<void> fail() {
    co_await offload(pool_, [] { throw std::runtime_error("the disk"); });
  }
  asio::awaitable<void> wait_at(std::latch& there, std::latch& go_on, bool& ended) {
    co_await offload(pool_, [&] {
      there.count_down();
      go_on.wait();
    });
    ended = true;
  }

  asio::io_context io_;
  asio::thread_pool pool_{2};
  std::thread::id loop_ = std::this_thread::get_id();
};

TEST_F(OffloadTest, BringsTheValueBackToTheLoop) {
  std::string text;
  asio::co_spawn(io_, ask(), [&](std::exception_ptr error, std::string value) {
    EXPECT_FALSE(error);
    text = std::move(value);
  });
  io_.run();
  EXPECT_EQ(text, "local7");
}

TEST_F(OffloadTest, ThrowsWhatTheWorkThrew) {
  std::string what;
  asio::co_spawn(io_, fail(), [&](std::exception_ptr error) {
    try {
      std::rethrow_exception(error);
    } catch (const std::runtime_error& e) {
      what = e.what();
    }
  });
  io_.run();
  EXPECT_EQ(what, "the disk");
}

TEST_F(OffloadTest, WaitsForTheWorkEvenWhenItIsCancelled) {
  std::latch there(1);
  std::latch go_on(1);
  bool ended = false;
  bool done = false;
  asio::cancellation_signal signal;
  asio::co_spawn(
      io_, wait_at(there, go_on, ended),
      asio::bind_cancellation_slot(signal.slot(), [&](std::exception_ptr) { done = true; }));
  io_.poll();
  there.wait();
  signal.emit(asio::cancellation_type::terminal);
  io_.restart();
  io_.poll();
  EXPECT_FALSE(done) << "the work still uses what lives in the coroutine";
  go_on.count_down();
  io_.restart();
  io_.run();
  EXPECT_TRUE(done);
  EXPECT_TRUE(ended);
}

}  // namespace
}  // namespace staithe
