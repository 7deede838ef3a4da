#include "proxy/pace.h"

#include <gtest/gtest.h>

namespace staithe::proxy {
namespace {

using namespace std::chrono_literals;

class Pacing : public testing::Test {
 protected:
  // Whether the client is ended, looked at as the sweep does.
  bool ended() { return pace.due(now) && pace.too_slow(now, taken); }

  SteadyTime now{1000h};
  std::int64_t taken = 0;
  Pace pace{10s, 1000};
};

TEST_F(Pacing, NobodyIsSlowToWhomNothingIsOffered) {
  now += 1000h;
  EXPECT_FALSE(ended());
  pace.offer(now);
  pace.rest(now);
  now += 1000h;
  EXPECT_FALSE(ended());
}

TEST_F(Pacing, WhoTakesNothingIsEndedAfterOneWindow) {
  pace.offer(now);
  now += 10s - 1ns;
  EXPECT_FALSE(ended());
  now += 1ns;
  EXPECT_TRUE(ended());
}

TEST_F(Pacing, WhoTakesTheLeastIsNot) {
  pace.offer(now);
  for (int i = 0; i < 100; ++i) {
    now += 10s;
    taken += 1000;
    EXPECT_FALSE(ended());
  }
  now += 10s;
  taken += 999;
  EXPECT_TRUE(ended());
}

TEST_F(Pacing, TimeInWhichNothingWasOfferedIsNotTheClients) {
  for (int i = 0; i < 9; ++i) {
    pace.offer(now);
    now += 1s;
    pace.rest(now);
    now += 1h;  // upstream's
  }
  EXPECT_FALSE(ended());
  pace.offer(now);
  now += 1s;
  EXPECT_TRUE(ended()) << "ten seconds of its own, in pieces";
}

TEST_F(Pacing, AnOfferThatStandsIsNotRenewed) {
  pace.offer(now);
  now += 6s;
  pace.offer(now);
  now += 4s;
  EXPECT_TRUE(ended());
}

}  // namespace
}  // namespace staithe::proxy
