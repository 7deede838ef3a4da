#include "cache/eviction.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

namespace staithe::cache {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

constexpr std::uint64_t most = std::numeric_limits<std::uint64_t>::max();

Digest named(char name) { return digest_of(Algorithm::sha256, std::string(1, name)); }

TEST(Cost, IsInWholeBlocks) {
  EXPECT_EQ(cost_bytes(0), 0u);
  EXPECT_EQ(cost_bytes(1), 4096u);
  EXPECT_EQ(cost_bytes(4096), 4096u);
  EXPECT_EQ(cost_bytes(4097), 8192u);
}

TEST(Cost, OfAnAbsurdSizeDoesNotWrapRound) {
  for (const std::uint64_t size : {most, most - 1, most - 4095, most - 4096, most - 4097})
    EXPECT_GE(cost_bytes(size), size) << size;
}

TEST(Allowed, IsTheSmallerOfBothBounds) {
  const Budget budget{.max_bytes = 1000, .min_free_bytes = 100};
  EXPECT_EQ(allowed_bytes(budget, 0, 5000), 1000u);
  EXPECT_EQ(allowed_bytes(budget, 400, 300), 600u);
  EXPECT_EQ(allowed_bytes(budget, 400, 0), 300u) << "others have filled the disk";
  EXPECT_EQ(allowed_bytes(budget, 50, 20), 0u);
}

TEST(Victims, AreTheOldestThatAreEnough) {
  const std::vector<Candidate> oldest_first = {{named('a'), 10, true},
                                               {named('b'), 20, false},
                                               {named('c'), 30, true},
                                               {named('d'), 5, true}};
  EXPECT_THAT(choose_victims(oldest_first, 0), IsEmpty());
  EXPECT_THAT(choose_victims(oldest_first, 1), ElementsAre(named('a')));
  EXPECT_THAT(choose_victims(oldest_first, 10), ElementsAre(named('a')));
  EXPECT_THAT(choose_victims(oldest_first, 11), ElementsAre(named('a'), named('c')));
  EXPECT_THAT(choose_victims(oldest_first, 1000), ElementsAre(named('a'), named('c'), named('d')));
}

TEST(Headroom, IsAShareThatIsALayerAtLeastAndAGibibyteAtMost) {
  constexpr std::uint64_t mib = std::uint64_t{1} << 20;
  EXPECT_EQ(headroom_bytes(0), 0u);
  EXPECT_EQ(headroom_bytes(128 * mib - 1), 0u);
  EXPECT_EQ(headroom_bytes(128 * mib), 4 * mib);
  EXPECT_EQ(headroom_bytes(32'000 * mib), 1000 * mib);
  EXPECT_EQ(headroom_bytes(64 * 1024 * mib), 1024 * mib);
}

}  // namespace
}  // namespace staithe::cache
