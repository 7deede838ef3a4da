#include "cache/random.h"

#include <gtest/gtest.h>

namespace staithe {
namespace {

using namespace std::chrono_literals;

TEST(Random, ASeedGivesTheSameNumbersAgain) {
  SeededRandom first(42);
  SeededRandom second(42);
  SeededRandom other(43);
  bool differs = false;
  for (int i = 0; i < 100; ++i) {
    const auto number = first.next();
    EXPECT_EQ(number, second.next());
    differs |= number != other.next();
  }
  EXPECT_TRUE(differs);
}

TEST(Random, MatchesThePublishedNumbersOfSplitmix64) {
  SeededRandom random(1234567);
  EXPECT_EQ(random.next(), 6457827717110365317U);
  EXPECT_EQ(random.next(), 3203168211198807973U);
}

TEST(Random, StaysWithinItsBounds) {
  SeededRandom random(7);
  for (int i = 0; i < 10'000; ++i) {
    const double unit = random.unit();
    ASSERT_GE(unit, 0);
    ASSERT_LT(unit, 1);
    const auto between = random.between(3s, 5s);
    ASSERT_GE(between, 3s);
    ASSERT_LT(between, 5s);
  }
  EXPECT_EQ(random.between(5s, 5s), 5s);
  EXPECT_EQ(random.between(5s, 3s), 5s);
}

TEST(Random, TheSystemsNumbersDiffer) {
  SystemRandom random;
  EXPECT_NE(random.next(), random.next());
}

}  // namespace
}  // namespace staithe
