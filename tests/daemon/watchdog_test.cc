#include "daemon/watchdog.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <cstdio>
#include <semaphore>
#include <thread>

#include "cache/event.h"
#include "cache/log.h"
#include "proxy/front.h"
#include "proxy/loops.h"
#include "tests/fake/clock.h"
#include "tests/fake/house.h"

namespace staithe::daemon {
namespace {

using namespace std::chrono_literals;

// A part that comes round when the test lets it.
class Part {
 public:
  explicit Part(asio::io_context& io) : moved_(io.get_executor()) {}
  Watchdog::Part named(std::string name) {
    return {.name = std::move(name), .come_round = [this] { return come_round(); }};
  }
  void stop() { stuck_ = true; }
  void go_on() {
    stuck_ = false;
    moved_.notify_all();
  }
  int rounds() const { return rounds_; }

 private:
  asio::awaitable<void> come_round() {
    while (stuck_) co_await moved_.wait();
    ++rounds_;
  }
  Event moved_;
  bool stuck_ = false;
  int rounds_ = 0;
};

// What is logged by its end.
class Logged {
 public:
  Logged() { log::start({.format = log::Format::text, .fd = ::fileno(file_)}); }
  ~Logged() {
    log::stop();
    std::fclose(file_);
  }
  std::string text() {
    log::stop();
    std::rewind(file_);
    std::string all(65536, '\0');
    all.resize(std::fread(all.data(), 1, all.size(), file_));
    return all;
  }

 private:
  std::FILE* const file_ = std::tmpfile();
};

class WatchdogTest : public testing::Test {
 protected:
  WatchdogTest() { tasks.spawn("watchdog", watchdog.run(15s)); }
  ~WatchdogTest() override {
    first.go_on();
    second.go_on();
    tasks.cancel();
    clock.settle();
    EXPECT_EQ(tasks.size(), 0U) << "it ends when it is told to";
  }

  asio::io_context io;
  fake::ManualClock clock{io};
  TaskGroup tasks{io.get_executor(), [](auto, auto) {}};
  Part first{io};
  Part second{io};
  int signs = 0;
  Watchdog watchdog{
      clock, tasks, {first.named("first"), second.named("second")}, [this] { ++signs; }};
};

TEST_F(WatchdogTest, GivesASignWhenEveryPartHasComeRound) {
  clock.advance(14s);
  EXPECT_EQ(signs, 0);
  clock.advance(1s);
  EXPECT_EQ(signs, 1);
  clock.advance(150s);
  EXPECT_EQ(signs, 11);
  EXPECT_EQ(first.rounds(), 11);
  EXPECT_EQ(second.rounds(), 11);
}

TEST_F(WatchdogTest, GivesNoneWhileOnePartStandsStill) {
  const Logged log;
  for (Part* part : {&first, &second}) {
    signs = 0;
    part->stop();
    clock.advance(10min);
    EXPECT_EQ(signs, 0);
    part->go_on();
    clock.settle();
    EXPECT_EQ(signs, 1) << "at once, it is awaited";
    clock.advance(30s);
    EXPECT_EQ(signs, 3);
  }
}

std::size_t lines(const std::string& text) {
  return static_cast<std::size_t>(std::ranges::count(text, '\n'));
}

TEST_F(WatchdogTest, SaysNothingOfAPartThatComesRoundInTime) {
  Logged log;
  second.stop();
  clock.advance(29s);
  second.go_on();
  clock.advance(10min);
  EXPECT_EQ(log.text(), "");
}

TEST_F(WatchdogTest, NamesThePartThatStandsStillOnceAndSaysWhenItGoesOn) {
  Logged log;
  second.stop();
  clock.advance(10min);
  second.go_on();
  clock.advance(10min);
  const std::string text = log.text();
  EXPECT_EQ(lines(text), 2U) << text;
  EXPECT_NE(text.find("stands still"), std::string::npos) << text;
  EXPECT_NE(text.find("part=second seconds=15"), std::string::npos) << text;
  EXPECT_LT(text.find("stands still"), text.find("goes on")) << text;
}

TEST_F(WatchdogTest, NamesAPartEachTimeItStandsStill) {
  Logged log;
  for (int i = 0; i < 3; ++i) {
    first.stop();
    clock.advance(1min);
    first.go_on();
    clock.advance(1min);
  }
  EXPECT_EQ(lines(log.text()), 6U);
}

// The threads that the daemon really has.

TEST(ComingRound, IsDoneByEveryLoopAndEndsWhereItBegan) {
  asio::io_context io;
  proxy::Loops loops(3);
  std::thread::id after;
  asio::co_spawn(
      io,
      [&]() -> asio::awaitable<void> {
        co_await loops.come_round();
        after = std::this_thread::get_id();
      },
      asio::detached);
  io.run();
  EXPECT_EQ(after, std::this_thread::get_id());
}

TEST(ComingRound, WaitsForALoopThatStandsStill) {
  asio::io_context io;
  proxy::Loops loops(2);
  std::binary_semaphore stuck{0};
  std::binary_semaphore let_go{0};
  asio::post(loops.at(1), [&] {
    stuck.release();
    let_go.acquire();
  });
  stuck.acquire();
  bool round = false;
  asio::co_spawn(
      io,
      [&]() -> asio::awaitable<void> {
        co_await loops.come_round();
        round = true;
      },
      asio::detached);
  io.poll();
  EXPECT_FALSE(round);
  let_go.release();
  io.run();
  EXPECT_TRUE(round);
}

TEST(ComingRound, IsDoneByTheThreadsAtTheFront) {
  fake::House house;
  proxy::Front front(house.io.get_executor(), house.proxy.answers(), house.proxy.admission(),
                     house.clock, house.proxy.meter(), 2);
  house.run(front.come_round());  // before they serve: there are none
  front.serve({}, [](auto&&...) {});
  house.run(front.come_round());
  house.run(front.come_round());
}

}  // namespace
}  // namespace staithe::daemon
