#include "proxy/segments.h"

#include <gtest/gtest.h>

#include <random>
#include <vector>

namespace staithe::proxy {
namespace {

using cache::Extent;
using cache::Extents;

constexpr std::uint64_t MiB = 1024 * 1024;
constexpr std::uint64_t GiB = 1024 * MiB;

TEST(SegmentPlan, GivesOutTheFrontFirstAndLessTowardsTheEnd) {
  SegmentPlan plan(GiB, 4);
  Extents present;
  std::uint64_t front = 0;
  std::uint64_t last_length = SegmentSizes().most_bytes;
  while (const auto segment = plan.next(present)) {
    const Extent range = (*segment)->range;
    EXPECT_EQ(range.begin, front);
    const std::uint64_t length = range.end - range.begin;
    EXPECT_LE(length, std::max(last_length, SegmentSizes().least_bytes * 3 / 2));
    EXPECT_GE(length, SegmentSizes().least_bytes / 2);
    last_length = length;
    front = range.end;
  }
  EXPECT_EQ(front, GiB);
  EXPECT_EQ(plan.unclaimed_bytes(present), 0u);
}

TEST(SegmentPlan, GivesOutAgainWhatWasReleased) {
  SegmentPlan plan(100 * MiB, 4);
  Extents present;
  const auto first = *plan.next(present);
  const auto second = *plan.next(present);
  const Extent left = first->range;
  present.add({0, 3 * MiB});
  plan.advance(first, 3 * MiB);
  plan.release(first);
  const auto again = *plan.next(present);
  EXPECT_EQ(again->range.begin, 3 * MiB);
  EXPECT_LE(again->range.end, second->range.begin);
  EXPECT_EQ(left.end, second->range.begin);
}

TEST(SegmentPlan, GivesTheOnlyConnectionMoreAtATime) {
  SegmentPlan plan(GiB, 4);
  const Extents present;
  EXPECT_EQ((*plan.next(present, 16 * MiB))->range, (Extent{0, 64 * MiB})) << "its share is more";
  plan.claim({64 * MiB, GiB - 100 * MiB});
  const std::uint64_t begin = GiB - 100 * MiB;
  EXPECT_EQ((*plan.next(present, 16 * MiB))->range, (Extent{begin, begin + 16 * MiB}));
  EXPECT_EQ((*plan.next(present, GiB))->range, (Extent{begin + 16 * MiB, begin + 80 * MiB}));
  EXPECT_EQ((*plan.next(present, GiB))->range, (Extent{begin + 80 * MiB, GiB}));
}

TEST(SegmentPlan, GivesNothingOutAgainThatIsOnItsWayToTheDisk) {
  SegmentPlan plan(100 * MiB, 4);
  const Extents present;
  const auto first = *plan.next(present);
  plan.advance(first, 3 * MiB);
  plan.release(first);
  EXPECT_FALSE(plan.want(MiB, present));
  EXPECT_EQ(plan.unclaimed_bytes(present), 97 * MiB);
  EXPECT_EQ((*plan.next(present))->range.begin, 3 * MiB);
}

TEST(SegmentPlan, PutsWhatAReaderWaitsForFirst) {
  SegmentPlan plan(GiB, 4);
  Extents present;
  const auto front = *plan.next(present);
  EXPECT_TRUE(plan.want(700 * MiB + 17, present));
  EXPECT_TRUE(plan.wanted());
  EXPECT_EQ((*plan.next(present))->range.begin, 700 * MiB + 17);
  EXPECT_FALSE(plan.wanted());
  EXPECT_EQ((*plan.next(present))->range.begin, front->range.end);
}

TEST(SegmentPlan, CutsASegmentShortThatWillNotBeThereSoon) {
  SegmentPlan plan(GiB, 4);
  Extents present;
  const auto front = *plan.next(present);
  const Extent whole = front->range;
  EXPECT_FALSE(plan.want(MiB, present)) << "it will be there soon";
  EXPECT_EQ(front->range, whole);
  EXPECT_TRUE(plan.want(40 * MiB, present));
  EXPECT_EQ(front->range, (Extent{0, 40 * MiB}));
  const auto cut = *plan.next(present);
  EXPECT_EQ(cut->range.begin, 40 * MiB);
}

TEST(SegmentPlan, CutsNoSegmentShortForWhichThereIsNoOtherConnection) {
  SegmentPlan plan(GiB, 4);
  Extents present;
  const auto front = *plan.next(present);
  const Extent whole = front->range;
  EXPECT_FALSE(plan.want(40 * MiB, present, false));
  EXPECT_EQ(front->range, whole);
  EXPECT_TRUE(plan.want(GiB / 2, present, false)) << "the next that is free takes it";
  EXPECT_EQ((*plan.next(present))->range.begin, GiB / 2);
}

TEST(SegmentPlan, WantsNothingThatIsThereOrBehindTheEnd) {
  SegmentPlan plan(10 * MiB, 4);
  Extents present;
  present.add({MiB, 2 * MiB});
  EXPECT_FALSE(plan.want(MiB, present));
  EXPECT_FALSE(plan.want(10 * MiB, present));
}

// Connections of different speeds that break, readers anywhere: every byte is given to one
// connection at a time, and in the end all of them have come.
TEST(SegmentPlan, CoversTheBlobWithoutOverlapWhateverHappens) {
  for (unsigned seed = 1; seed <= 300; ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937_64 random(seed);
    const std::uint64_t size = 1 + random() % (300 * MiB);
    const std::size_t connections = 1 + random() % 8;
    SegmentPlan plan(size, connections);
    Extents present;
    std::vector<SegmentPlan::Handle> working;
    std::uint64_t received = 0;
    for (int step = 0; present.bytes() < size; ++step) {
      ASSERT_LT(step, 100'000);
      if (random() % 4 == 0) plan.want(random() % size, present);
      if (working.size() < connections + (plan.wanted() ? 8 : 0)) {
        if (const auto segment = plan.next(present)) {
          for (const auto& other : working)
            EXPECT_TRUE((*segment)->range.end <= other->range.begin ||
                        (*segment)->range.begin >= other->range.end);
          EXPECT_EQ(present.end_of((*segment)->range.begin), (*segment)->range.begin);
          working.push_back(*segment);
        }
      }
      if (working.empty()) continue;
      const std::size_t i = random() % working.size();
      const auto segment = working[i];
      const std::uint64_t n =
          std::min<std::uint64_t>(segment->range.end - segment->at, 1 + random() % (2 * MiB));
      EXPECT_FALSE(present.contains({segment->at, segment->at + 1}));
      present.add({segment->at, segment->at + n});
      received += n;
      plan.advance(segment, segment->at + n);
      if (segment->at == segment->range.end || random() % 20 == 0) {
        plan.release(segment);
        working.erase(working.begin() + static_cast<std::ptrdiff_t>(i));
      }
    }
    EXPECT_EQ(received, size) << "no byte twice";
  }
}

}  // namespace
}  // namespace staithe::proxy
