#include "cache/extents.h"

#include <gtest/gtest.h>

#include <random>

namespace staithe::cache {
namespace {

TEST(Extents, JoinWhatOverlapsOrTouches) {
  Extents extents;
  extents.add({10, 20});
  extents.add({30, 40});
  EXPECT_EQ(extents.all(), (std::vector<Extent>{{10, 20}, {30, 40}}));
  extents.add({20, 30});
  EXPECT_EQ(extents.all(), (std::vector<Extent>{{10, 40}}));
  extents.add({5, 50});
  extents.add({7, 7});
  EXPECT_EQ(extents.all(), (std::vector<Extent>{{5, 50}}));
  EXPECT_EQ(extents.bytes(), 45u);
}

TEST(Extents, TellWhatIsThereAndWhatIsMissing) {
  Extents extents;
  extents.add({0, 10});
  extents.add({20, 30});
  EXPECT_EQ(extents.end_of(0), 10u);
  EXPECT_EQ(extents.end_of(9), 10u);
  EXPECT_EQ(extents.end_of(10), 10u);
  EXPECT_EQ(extents.end_of(25), 30u);
  EXPECT_EQ(extents.gap_from(0, 40), (Extent{10, 20}));
  EXPECT_EQ(extents.gap_from(12, 40), (Extent{12, 20}));
  EXPECT_EQ(extents.gap_from(22, 40), (Extent{30, 40}));
  EXPECT_EQ(extents.gap_from(22, 30), (Extent{30, 30}));
  EXPECT_TRUE(extents.contains({20, 30}));
  EXPECT_FALSE(extents.contains({9, 11}));
}

TEST(Extents, AgreeWithASetOfBytes) {
  for (unsigned seed = 1; seed <= 200; ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937 random(seed);
    constexpr std::uint64_t size = 60;
    std::vector<bool> bytes(size);
    Extents extents;
    for (int i = 0; i < 20; ++i) {
      const std::uint64_t begin = random() % size;
      const std::uint64_t end = std::min<std::uint64_t>(size, begin + random() % 12);
      extents.add({begin, end});
      for (std::uint64_t at = begin; at < end; ++at) bytes[at] = true;
      EXPECT_EQ(extents.bytes(), static_cast<std::uint64_t>(std::ranges::count(bytes, true)));
      for (std::uint64_t at = 0; at < size; ++at) {
        std::uint64_t there = at;
        while (there < size && bytes[there]) ++there;
        EXPECT_EQ(extents.end_of(at), there);
        std::uint64_t gap = there;
        while (gap < size && !bytes[gap]) ++gap;
        EXPECT_EQ(extents.gap_from(at, size), (Extent{there, gap}));
      }
      for (std::size_t k = 1; k < extents.all().size(); ++k)
        EXPECT_LT(extents.all()[k - 1].end, extents.all()[k].begin);
    }
  }
}

}  // namespace
}  // namespace staithe::cache
