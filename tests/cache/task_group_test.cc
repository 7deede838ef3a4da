#include "cache/task_group.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <stdexcept>
#include <vector>

#include "tests/fake/clock.h"

namespace staithe {
namespace {

using namespace std::chrono_literals;
using testing::ElementsAre;
using testing::IsEmpty;

class TaskGroupTest : public testing::Test {
 protected:
  asio::awaitable<void> sleep(std::chrono::seconds duration) {
    co_await clock_.sleep_for(duration);
    ++finished_;
  }
  static asio::awaitable<void> fail() {
    throw std::runtime_error("it broke");
    co_return;
  }
  // Returns whether join() has returned.
  bool join() {
    bool joined = false;
    asio::co_spawn(io_, group_.join(), [&](std::exception_ptr) { joined = true; });
    clock_.settle();
    return joined;
  }

  asio::io_context io_;
  fake::ManualClock clock_{io_};
  std::vector<std::string> reports_;
  TaskGroup group_{io_.get_executor(), [this](std::string_view name, std::string_view sentence) {
                     reports_.push_back(std::string(name) + ": " + std::string(sentence));
                   }};
  int finished_ = 0;
};

TEST_F(TaskGroupTest, JoinWaitsForTheLastTask) {
  EXPECT_TRUE(group_.spawn("short", sleep(1s)));
  EXPECT_TRUE(group_.spawn("long", sleep(3s)));
  bool joined = false;
  asio::co_spawn(io_, group_.join(), [&](std::exception_ptr) { joined = true; });
  clock_.advance(2s);
  EXPECT_EQ(group_.size(), 1u);
  EXPECT_FALSE(joined);
  clock_.advance(2s);
  EXPECT_TRUE(joined);
  EXPECT_EQ(finished_, 2);
}

TEST_F(TaskGroupTest, ReportsATaskThatFailedOnceAndGoesOn) {
  group_.spawn("other", sleep(1s));
  group_.spawn("broken", fail());
  clock_.advance(5s);
  EXPECT_THAT(reports_, ElementsAre("broken: it broke"));
  EXPECT_EQ(finished_, 1);
  EXPECT_TRUE(join());
}

TEST_F(TaskGroupTest, CancelEndsEveryTaskWithoutAReport) {
  for (int i = 0; i < 5; ++i) group_.spawn("sleeper", sleep(1s));
  clock_.settle();
  group_.cancel();
  EXPECT_TRUE(join());
  EXPECT_EQ(finished_, 0);
  EXPECT_THAT(reports_, IsEmpty());
}

TEST_F(TaskGroupTest, CancelEndsTasksThatHaveNotBegun) {
  group_.spawn("sleeper", sleep(1s));
  group_.cancel();
  EXPECT_TRUE(join());
  EXPECT_EQ(finished_, 0);
}

TEST_F(TaskGroupTest, DropsWhatComesAfterCancelAndSaysSo) {
  group_.cancel();
  EXPECT_FALSE(group_.spawn("late", sleep(1s)));
  EXPECT_EQ(group_.size(), 0u);
  EXPECT_TRUE(join());
}

}  // namespace
}  // namespace staithe
