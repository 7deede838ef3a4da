#include "proxy/retry_budget.h"

#include <gtest/gtest.h>

#include "cache/random.h"

namespace staithe::proxy {
namespace {

using namespace std::chrono_literals;

constexpr Instant start{1000h};

TEST(RetryBudget, IsNeverNegativeAndNeverMoreThanItMayHold) {
  for (std::uint64_t seed = 0; seed < 200; ++seed) {
    SeededRandom random(seed);
    RetryBudget budget;
    Instant now = start;
    for (int i = 0; i < 500; ++i) {
      now += random.between(0s, random.next() % 20 == 0 ? 10min : 3s);
      const double before = budget.left();
      switch (random.next() % 3) {
        case 0:
          if (budget.take(now)) {
            EXPECT_GE(std::max(before, RetryBudget::reserve), 1);
          } else {
            EXPECT_LT(budget.left(), 1);
          }
          break;
        case 1:
          budget.note_answer();
          break;
        default:
          budget.note_progress(random.next() % 200'000);
      }
      ASSERT_GE(budget.left(), 0) << seed;
      ASSERT_LE(budget.left(), RetryBudget::most) << seed;
    }
  }
}

// However requests and failures alternate, what is repeated is the reserve and a share.
TEST(RetryBudget, RepeatsNoMoreThanTheReserveAndAShareOfTheAnswers) {
  for (std::uint64_t seed = 0; seed < 200; ++seed) {
    SeededRandom random(seed);
    RetryBudget budget;
    Instant now = start;
    int answers = 0;
    int retries = 0;
    const double answered = random.unit();
    for (int i = 0; i < 2'000; ++i) {
      now += random.between(0s, 10s);
      if (random.unit() < answered) {
        budget.note_answer();
        ++answers;
      } else {
        retries += budget.take(now);
      }
    }
    EXPECT_LE(retries, RetryBudget::reserve + RetryBudget::share_of_answers * answers) << seed;
  }
}

TEST(RetryBudget, ATransferThatDripsEnds) {
  RetryBudget budget;
  Instant now = start;
  int attempts = 0;
  while (budget.take(now) && attempts < 1'000) {
    ++attempts;
    budget.note_answer();  // A 206 each time,
    budget.note_progress(1);
    now += 20s;  // and silence until the stall limit.
  }
  EXPECT_LT(attempts, 15);
}

TEST(RetryBudget, ATransferThatMovesMayBreakAsOftenAsItLikes) {
  for (std::uint64_t seed = 0; seed < 100; ++seed) {
    SeededRandom random(seed);
    RetryBudget budget;
    Instant now = start;
    for (int cut = 0; cut < 1'000; ++cut) {
      budget.note_progress(random.next() % (2 * 1024 * 1024));  // 1 MiB on average
      ASSERT_TRUE(budget.take(now)) << "cut " << cut << " of seed " << seed;
      now += 100ms;
    }
  }
}

TEST(RetryBudget, IsWholeAgainAfterARest) {
  RetryBudget budget;
  while (budget.take(start)) {
  }
  EXPECT_FALSE(budget.take(start + RetryBudget::rest - 1s));
  EXPECT_FALSE(budget.take(start + RetryBudget::rest + 1s)) << "the one before was no rest";
  EXPECT_TRUE(budget.take(start + 3 * RetryBudget::rest));
  EXPECT_EQ(budget.left(), RetryBudget::reserve - 1);
}

}  // namespace
}  // namespace staithe::proxy
