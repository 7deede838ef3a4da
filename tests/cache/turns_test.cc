#include "cache/turns.h"

#include <gtest/gtest.h>

#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/cancellation_signal.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <optional>
#include <string>

namespace staithe::cache {
namespace {

class TurnsTest : public testing::Test {
 protected:
  // Has its turn for as long as somebody waits at its gate.
  asio::awaitable<void> work(char name, Event* gate = nullptr) {
    const auto turn = co_await turns_.take();
    began_ += name;
    if (gate) co_await gate->wait();
  }
  // Begins to ask when the loop comes to it.
  void ask(char name, Event* gate = nullptr, asio::cancellation_slot slot = {}) {
    asio::co_spawn(io_, work(name, gate),
                   asio::bind_cancellation_slot(slot, [this, name](std::exception_ptr error) {
                     (error ? failed_ : ended_) += name;
                   }));
  }
  void poll() {
    io_.restart();
    io_.poll();
  }

  asio::io_context io_;
  Turns turns_{io_.get_executor()};
  Event gate_{io_.get_executor()};
  std::string began_, ended_, failed_;
};

TEST_F(TurnsTest, OneHasItAtATime) {
  ask('a', &gate_);
  ask('b', &gate_);
  poll();
  EXPECT_EQ(began_, "a");
  gate_.notify_all();
  poll();
  EXPECT_EQ(began_, "ab");
  EXPECT_EQ(ended_, "a");
  gate_.notify_all();
  poll();
  EXPECT_EQ(ended_, "ab");
}

TEST_F(TurnsTest, WhoComesAsATurnEndsGoesBehindThoseWhoWait) {
  std::optional<Turns::Turn> first(turns_);
  ask('a');
  ask('b');
  poll();
  // The turn is over, and before those who wait have woken somebody else asks.
  asio::post(io_, [&] { first.reset(); });
  ask('c');
  poll();
  EXPECT_EQ(began_, "abc");
}

TEST_F(TurnsTest, WhoIsCancelledLeavesTheLineAndTheNextHasTheTurn) {
  asio::cancellation_signal of_b, of_c;
  ask('a', &gate_);
  ask('b', nullptr, of_b.slot());
  ask('c', nullptr, of_c.slot());
  ask('d');
  poll();
  of_c.emit(asio::cancellation_type::terminal);
  poll();
  of_b.emit(asio::cancellation_type::terminal);
  poll();
  EXPECT_EQ(failed_, "cb");
  EXPECT_EQ(began_, "a");
  gate_.notify_all();
  poll();
  EXPECT_EQ(began_, "ad");
  EXPECT_EQ(ended_, "ad");
}

}  // namespace
}  // namespace staithe::cache
