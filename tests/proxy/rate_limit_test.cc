#include "proxy/rate_limit.h"

#include <gtest/gtest.h>

#include <vector>

#include "cache/random.h"

namespace staithe::proxy {
namespace {

using namespace std::chrono_literals;

constexpr Instant start{1000h};

TEST(RateLimit, LetsABurstThroughAndSpreadsTheRest) {
  RateLimit limit(RateLimit::acr);
  for (int i = 0; i < RateLimit::acr.burst; ++i) EXPECT_EQ(limit.take(start), 0s);
  std::chrono::nanoseconds before = 0s;
  for (int i = 0; i < 100; ++i) {
    const auto waits = limit.take(start);
    EXPECT_NEAR(std::chrono::duration<double>(waits - before).count(),
                1 / RateLimit::acr.most_per_second, 1e-6);
    before = waits;
  }
}

void check_worst_minute(RateLimit::Settings settings, std::size_t most) {
  for (std::uint64_t seed = 0; seed < 50; ++seed) {
    SeededRandom random(seed);
    RateLimit limit(settings);
    std::vector<Instant> sent;
    Instant now = start;
    while (now < start + 5min) {
      // Crowds, and quiet times in which the burst comes back.
      const auto crowd = random.next() % 500;
      for (std::uint64_t i = 0; i < crowd; ++i) sent.push_back(now + limit.take(now));
      now += random.between(0s, 20s);
    }
    std::ranges::sort(sent);
    for (std::size_t first = 0, last = 0; last < sent.size(); ++last) {
      while (sent[last] - sent[first] >= 1min) ++first;
      ASSERT_LE(last - first + 1, most + 1) << seed;
    }
  }
}

// The promises of the header: at most half of what ACR's smaller tiers grant to an identity, and
// about a quarter of the tokens that they grant to all together.
TEST(RateLimit, NoMinuteHasMoreThanHalfOfWhatAnIdentityIsGranted) {
  check_worst_minute(RateLimit::acr, 2'520);
}

TEST(RateLimit, NoMinuteHasMoreTokensThanOneMachineMayTake) {
  check_worst_minute(RateLimit::acr_tokens, 2'700);
}

TEST(RateLimit, HalvesOnceForAllThatWereUnderWay) {
  RateLimit limit(RateLimit::acr);
  (void)limit.take(start);
  for (int i = 0; i < 32; ++i) limit.note_throttled(start + 50ms, start);
  EXPECT_NEAR(limit.per_second(), RateLimit::acr.most_per_second / 2, 0.1);
  limit.note_throttled(start + 200ms, start + 100ms);
  EXPECT_NEAR(limit.per_second(), RateLimit::acr.most_per_second / 4, 0.1);
}

TEST(RateLimit, ComesBackSlowlyAndNeverLeavesItsBounds) {
  RateLimit limit(RateLimit::acr);
  Instant now = start;
  for (int i = 0; i < 20; ++i) {
    limit.note_throttled(now + 1ms, now);
    now += 2ms;
    EXPECT_GE(limit.per_second(), RateLimit::acr.least_per_second);
  }
  (void)limit.take(now + 10s);
  EXPECT_NEAR(limit.per_second(),
              RateLimit::acr.least_per_second + 10 * RateLimit::acr.recovery_per_second2, 0.1);
  (void)limit.take(now + 1h);
  EXPECT_EQ(limit.per_second(), RateLimit::acr.most_per_second);
}

TEST(RateLimit, WhatNeedNotGoDoesNotWait) {
  RateLimit limit(RateLimit::acr);
  int went = 0;
  while (limit.try_take(start)) ++went;
  EXPECT_EQ(went, RateLimit::acr.burst);
  EXPECT_GT(limit.take(start), 0s);
}

}  // namespace
}  // namespace staithe::proxy
