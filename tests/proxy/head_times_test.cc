#include "proxy/head_times.h"

#include <gtest/gtest.h>

namespace staithe::proxy {
namespace {

using namespace std::chrono_literals;

TEST(HeadTimes, SayNothingBeforeThereAreEnough) {
  HeadTimes times;
  for (std::size_t i = 1; i < HeadTimes::enough; ++i) {
    times.add(10ms);
    EXPECT_FALSE(times.p95());
  }
  times.add(10ms);
  EXPECT_EQ(times.p95(), 10ms);
}

TEST(HeadTimes, AreNotMovedByTheRareSlowOne) {
  HeadTimes times;
  for (int i = 0; i < 64; ++i) times.add(i % 32 == 0 ? 5s : 10ms);  // 3 of 100
  EXPECT_EQ(times.p95(), 10ms);
}

TEST(HeadTimes, ForgetWhatIsLongAgo) {
  HeadTimes times;
  for (int i = 0; i < 1'000; ++i) times.add(10ms);
  for (std::size_t i = 0; i < HeadTimes::remembered; ++i) times.add(700ms);
  EXPECT_EQ(times.p95(), 700ms);
}

}  // namespace
}  // namespace staithe::proxy
