#include "proxy/breaker.h"

#include <gtest/gtest.h>

#include <vector>

namespace staithe::proxy {
namespace {

using namespace std::chrono_literals;

constexpr Instant start{1000h};
const Error down{Errc::unreachable, "it is down"};

class BreakerTest : public testing::Test {
 protected:
  bool fail(std::chrono::nanoseconds took = 1ms) {
    const Instant sent = now_ += 1ms;
    now_ += took;
    return breaker_.failed(now_, sent, down, random_);
  }
  bool answer(std::chrono::nanoseconds took = 1ms) {
    const Instant sent = now_ += 1ms;
    now_ += took;
    return breaker_.answered(now_, sent);
  }
  void open() {
    while (!fail()) {
    }
  }
  // To when the next probe may go, which it then is.
  void probe() {
    now_ = std::max(now_, breaker_.again_at());
    ASSERT_TRUE(breaker_.admits(now_));
    ASSERT_TRUE(breaker_.enter(now_));
  }

  SeededRandom random_{1};
  Breaker breaker_;
  Instant now_ = start;
};

TEST_F(BreakerTest, OpensAfterFailuresInARow) {
  for (int i = 1; i < Breaker::failures_in_a_row; ++i) EXPECT_FALSE(fail());
  EXPECT_TRUE(breaker_.admits(now_));
  EXPECT_TRUE(fail());
  EXPECT_TRUE(breaker_.is_open());
  EXPECT_FALSE(breaker_.admits(now_));
  EXPECT_EQ(breaker_.error()->detail, "it is down");
}

TEST_F(BreakerTest, OpensAtAShareOfFailures) {
  int failures = 0;
  while (!breaker_.is_open() && failures < 100) {
    fail();
    ++failures;
    if (!breaker_.is_open()) answer();
  }
  EXPECT_EQ(failures, Breaker::failures_in_window);
}

TEST_F(BreakerTest, FailuresThatAreFarApartDoNotBelongTogether) {
  for (int i = 0; i < 200; ++i) {
    EXPECT_FALSE(fail());
    answer();
    now_ += Breaker::window_gap + 1s;
  }
}

TEST_F(BreakerTest, OneLongSilenceOpensIt) {
  answer();
  EXPECT_TRUE(fail(20s));
}

TEST_F(BreakerTest, ASilenceWhileOthersAreAnsweredIsOneFailure) {
  const Instant sent = now_;
  now_ += 10s;
  answer();
  now_ += 10s;
  EXPECT_FALSE(breaker_.failed(now_, sent, down, random_));
}

TEST_F(BreakerTest, LetsExactlyOneProbeThrough) {
  open();
  probe();
  for (int i = 0; i < 1'000; ++i) EXPECT_FALSE(breaker_.admits(now_ + i * 4ms));
  EXPECT_TRUE(breaker_.answered(now_ + 100ms, now_));
  EXPECT_TRUE(breaker_.admits(now_ + 100ms));
  EXPECT_FALSE(breaker_.error());
}

TEST_F(BreakerTest, AProbeThatHangsDoesNotKeepTheHostAway) {
  open();
  probe();
  const Instant hanging = now_;
  EXPECT_FALSE(breaker_.admits(now_ + Breaker::probe_lease - 1ms));
  now_ += Breaker::probe_lease;
  ASSERT_TRUE(breaker_.admits(now_));
  EXPECT_TRUE(breaker_.enter(now_));
  EXPECT_TRUE(answer());
  EXPECT_FALSE(breaker_.failed(now_ + 20s, hanging, down, random_)) << "it is of before";
  EXPECT_FALSE(breaker_.is_open());
}

TEST_F(BreakerTest, OnlyTheProbeThatHasTheLeaseSaysThatTheHostIsStillAway) {
  open();
  probe();
  const Instant hanging = now_;
  now_ += Breaker::probe_lease;
  probe();
  EXPECT_FALSE(breaker_.failed(now_ + 1s, hanging, down, random_));
  EXPECT_EQ(breaker_.again_at(), now_ + Breaker::probe_lease);
}

TEST_F(BreakerTest, AProbeThatWasGivenUpLeavesItsPlace) {
  open();
  probe();
  breaker_.abandon(now_);
  EXPECT_TRUE(breaker_.admits(now_));
}

TEST_F(BreakerTest, WaitsTwiceAsLongAfterEachProbeThatFailsUpToTheLongest) {
  open();
  std::chrono::nanoseconds bound = Breaker::first_wait;
  for (int i = 0; i < 20; ++i) {
    const auto waits = breaker_.again_at() - now_;
    EXPECT_GE(waits, bound / 2 - 1ms);
    EXPECT_LE(waits, bound);
    probe();
    const Instant sent = now_;
    now_ += 1ms;
    EXPECT_TRUE(breaker_.failed(now_, sent, down, random_));
    bound = std::min<std::chrono::nanoseconds>(2 * bound, Breaker::longest_wait);
  }
}

TEST_F(BreakerTest, AfterItHasClosedOneFailureOpensItAgainUntilEnoughWasAnswered) {
  open();
  probe();
  EXPECT_TRUE(answer());
  EXPECT_FALSE(breaker_.is_well());
  EXPECT_TRUE(fail()) << "on probation";
  probe();
  EXPECT_TRUE(answer());
  for (int i = 0; i < Breaker::probation_answers; ++i) answer();
  EXPECT_TRUE(breaker_.is_well());
  EXPECT_FALSE(fail());
}

TEST_F(BreakerTest, AHundredThatFailTogetherAreOneEvent) {
  const Instant sent = now_;
  now_ += 20ms;
  int opened = 0;
  for (int i = 0; i < 100; ++i) opened += breaker_.failed(now_, sent, down, random_);
  EXPECT_EQ(opened, 1);
  EXPECT_LE(breaker_.again_at() - now_, Breaker::first_wait);
}

// Random requests to a host that is up and down: never two probes within a lease, never a request
// while it is open, and within 10 s of the host's return it is closed.
TEST(Breaker, HoldsItsPromisesOverRandomHistories) {
  struct UnderWay {
    Instant sent;
    Instant ends;
    bool fails;
    bool is_probe;
  };
  for (std::uint64_t seed = 0; seed < 300; ++seed) {
    SeededRandom random(seed);
    Breaker breaker;
    Instant now = start;
    Instant up_since = start;
    bool up = true;
    Instant last_probe{};
    std::vector<UnderWay> under_way;
    for (int i = 0; i < 2'000; ++i) {
      now += random.between(0s, 200ms);
      if (random.next() % 400 == 0) {
        up = !up;
        up_since = now;
      }
      std::erase_if(under_way, [&](const UnderWay& one) {
        if (one.ends > now) return false;
        if (one.fails) {
          breaker.failed(now, one.sent, down, random);
        } else {
          breaker.answered(now, one.sent);
        }
        return true;
      });
      if (breaker.admits(now)) {
        const bool was_open = breaker.is_open();
        const bool is_probe = breaker.enter(now);
        ASSERT_EQ(is_probe, was_open);
        if (is_probe) {
          const bool another = std::ranges::any_of(under_way, [&](const UnderWay& one) {
            return one.is_probe && now - one.sent < Breaker::probe_lease;
          });
          ASSERT_FALSE(another && last_probe != Instant{}) << seed;
          last_probe = now;
        }
        // A host that is down refuses, or is silent.
        const auto took = up || random.next() % 2 == 0 ? 10ms : 25s;
        under_way.push_back({now, now + took, !up, is_probe});
      }
      if (up && now - up_since > 9s) ASSERT_FALSE(breaker.is_open()) << seed;
    }
  }
}

}  // namespace
}  // namespace staithe::proxy
