#include "proxy/ramp.h"

#include <gtest/gtest.h>

#include <vector>

#include "cache/random.h"

namespace staithe::proxy {
namespace {

TEST(Ramp, HasNoBoundBeforeItBegins) {
  Ramp ramp;
  EXPECT_TRUE(ramp.is_over());
  for (int i = 0; i < 1'000; ++i) {
    EXPECT_TRUE(ramp.has_room());
    (void)ramp.enter();
  }
}

TEST(Ramp, LetsOneThroughAndThenTwiceAsManyEachRound) {
  Ramp ramp;
  ramp.begin();
  for (std::size_t expected = 1; expected < Ramp::enough; expected *= 2) {
    std::vector<std::uint64_t> round;
    while (ramp.has_room()) round.push_back(ramp.enter());
    EXPECT_EQ(round.size(), expected);
    for (const std::uint64_t epoch : round) {
      ramp.note_answer(epoch);
      ramp.leave(epoch);
    }
  }
  EXPECT_TRUE(ramp.is_over());
}

TEST(Ramp, FailuresMakeNoRoom) {
  Ramp ramp;
  ramp.begin();
  for (int i = 0; i < 100; ++i) {
    const auto epoch = ramp.enter();
    EXPECT_FALSE(ramp.has_room());
    ramp.leave(epoch);
  }
  EXPECT_EQ(ramp.allowed(), 1U);
}

// Whatever was under way before it began changes nothing after.
TEST(Ramp, NeverLetsMoreThroughThanItAllows) {
  struct UnderWay {
    std::uint64_t epoch;
    int generation;
  };
  for (std::uint64_t seed = 0; seed < 200; ++seed) {
    SeededRandom random(seed);
    Ramp ramp;
    int generation = 0;
    std::size_t ours = 0;     // under way since it began
    std::size_t answers = 0;  // since it began
    std::vector<UnderWay> under_way;
    for (int i = 0; i < 1'000; ++i) {
      const auto what = random.next() % 100;
      if (what == 0) {
        ramp.begin();
        ++generation;
        ours = 0;
        answers = 0;
      } else if (what < 50) {
        if (!ramp.has_room()) continue;
        under_way.push_back({ramp.enter(), generation});
        ++ours;
        if (generation > 0 && !ramp.is_over()) ASSERT_LE(ours, answers + 1) << seed;
      } else if (!under_way.empty()) {
        const std::size_t which = random.next() % under_way.size();
        const UnderWay ended = under_way[which];
        under_way.erase(under_way.begin() + static_cast<std::ptrdiff_t>(which));
        const bool is_ours = ended.generation == generation;
        if (random.next() % 2 == 0) {
          ramp.note_answer(ended.epoch);
          answers += is_ours;
        }
        ramp.leave(ended.epoch);
        ours -= is_ours;
      }
    }
  }
}

}  // namespace
}  // namespace staithe::proxy
