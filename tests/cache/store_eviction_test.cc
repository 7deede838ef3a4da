// Whom the store keeps when pulls that come once flood it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/cache/store_fixture.h"

namespace staithe::cache {
namespace {

using namespace std::chrono_literals;
using testing::IsEmpty;
using testing::SizeIs;

class EvictionOrderTest : public StoreTest {
 protected:
  // Ten blobs, of which these are used again by a later pull.
  std::vector<Digest> fill_ten_and_use(const std::vector<int>& used) {
    const auto ten = fill_ten();
    cellar_.pass(10min);
    for (const int i : used) EXPECT_TRUE(cellar_.read(ten[static_cast<std::size_t>(i)]));
    cellar_.settle();
    return ten;
  }
  void flood(int blobs) {
    for (int i = 0; i < blobs; ++i) {
      const Digest once = cellar_.fill(noise(100 * KiB, 1000 + i));
      // One pull asks for it several times.
      for (int again = 0; again < 3; ++again) EXPECT_TRUE(cellar_.read(once));
      cellar_.settle();
    }
  }
};

TEST_F(EvictionOrderTest, AFloodOfTenCachesLeavesWhatIsUsed) {
  const auto ten = fill_ten_and_use({1, 4, 5, 8});
  flood(100);
  EXPECT_EQ(stored_of(ten), (std::vector<int>{1, 4, 5, 8}));
  cellar_.restart();
  flood(100);
  EXPECT_EQ(stored_of(ten), (std::vector<int>{1, 4, 5, 8}));
  expect_figures_true();
}

TEST_F(EvictionOrderTest, AFloodAfterAKillFindsTheSameOrder) {
  const auto ten = fill_ten_and_use({1, 4, 5, 8});
  cellar_.pass(1s);
  cellar_.crash(Loss::nothing);
  flood(100);
  EXPECT_EQ(stored_of(ten), (std::vector<int>{1, 4, 5, 8}));
}

TEST_F(EvictionOrderTest, TheProtectedFillFourFifthsAtMost) {
  // Eight of a hundred KiB are within 80 % of a MiB, a ninth is not.
  const auto ten = fill_ten_and_use({0, 1, 2, 3, 4, 5, 6, 7, 8});
  flood(20);
  EXPECT_EQ(stored_of(ten), (std::vector<int>{1, 2, 3, 4, 5, 6, 7, 8}));
}

TEST_F(EvictionOrderTest, WhatNeedsMoreThanProbationTakesItFromTheProtected) {
  const auto ten = fill_ten_and_use({0, 1, 2, 3, 4, 5, 6, 7});
  cellar_.fill(noise(500 * KiB, 1));
  EXPECT_EQ(stored_of(ten), (std::vector<int>{3, 4, 5, 6, 7}));
}

TEST_F(EvictionOrderTest, TellsWhatGoesNextAndWhy) {
  EXPECT_THAT(store().next_victims(5), IsEmpty());
  const auto ten = fill_ten_and_use({0, 1});
  const auto manifest = cellar_.put_manifest("{}");
  const auto all = store().next_victims(100);
  ASSERT_THAT(all, SizeIs(11));
  EXPECT_EQ(all[0].digest, ten[2]);
  EXPECT_EQ(all[0].kind, ObjectKind::blob);
  EXPECT_EQ(all[0].bytes, 100 * KiB);
  EXPECT_FALSE(all[0].is_protected);
  EXPECT_EQ(all[8].digest, manifest);
  EXPECT_EQ(all[8].kind, ObjectKind::manifest);
  EXPECT_EQ(all[8].bytes, 4096u);
  EXPECT_EQ(all[9].digest, ten[0]);
  EXPECT_TRUE(all[9].is_protected);
  EXPECT_EQ(all[9].last_used_unix_seconds - all[0].last_used_unix_seconds, 600);
  // They go in this order.
  const auto reader = find(ten[2]);
  const auto next = store().next_victims(3);
  ASSERT_THAT(next, SizeIs(3));
  EXPECT_EQ(next[0].digest, ten[3]) << "what is being read stays";
  cellar_.fill(noise(300 * KiB, 1));
  EXPECT_EQ(stored_of(ten), (std::vector<int>{0, 1, 2, 6, 7, 8, 9}));
  EXPECT_THAT(store().next_victims(0), IsEmpty());
}

TEST_F(EvictionOrderTest, WithoutAnIndexAllIsOnProbation) {
  const auto ten = fill_ten_and_use({0, 1, 2});
  cellar_.close();
  cellar_.restore_index({});
  cellar_.make();
  cellar_.open();
  for (const auto& victim : store().next_victims(100)) {
    EXPECT_FALSE(victim.is_protected);
    EXPECT_EQ(victim.last_used_unix_seconds, 0);
  }
  EXPECT_THAT(store().next_victims(100), SizeIs(10));
}

}  // namespace
}  // namespace staithe::cache
