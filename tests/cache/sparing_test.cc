#include "cache/sparing.h"

#include <gtest/gtest.h>

#include "cache/random.h"

namespace staithe {
namespace {

using namespace std::chrono_literals;

constexpr Instant start{1000h};

TEST(Sparing, WritesOneLinePerSubjectAndIntervalAndSaysWhatItLeftOut) {
  Sparing lines({.lines = 1, .interval = 1min});
  EXPECT_EQ(lines.admit("r.example", start), 0U);
  for (int i = 0; i < 100; ++i) EXPECT_EQ(lines.admit("r.example", start + 59s), std::nullopt);
  EXPECT_EQ(lines.admit("other.example", start + 59s), 0U) << "a subject of its own";
  EXPECT_EQ(lines.admit("r.example", start + 1min), 100U);
  EXPECT_EQ(lines.admit("r.example", start + 1min), std::nullopt);
  EXPECT_EQ(lines.admit("r.example", start + 3min), 1U);
}

TEST(Sparing, LetsAFewThroughAtOnce) {
  Sparing lines({.lines = 3, .interval = 1min});
  for (int i = 0; i < 3; ++i) EXPECT_EQ(lines.admit("", start), 0U);
  EXPECT_EQ(lines.admit("", start), std::nullopt);
  EXPECT_EQ(lines.admit("", start + 1min), 1U);
}

// Whatever is asked for: no line is lost uncounted, no interval has too many, memory is bounded.
TEST(Sparing, AccountsForEveryLine) {
  SeededRandom random(7);
  Sparing lines({.lines = 2, .interval = 10s});
  Instant now = start;
  std::uint64_t asked = 0;
  std::uint64_t written = 0;
  std::uint64_t told = 0;
  for (int i = 0; i < 20'000; ++i) {
    now += random.between(0s, 100ms);
    ++asked;
    if (const auto left_out = lines.admit(std::to_string(random.next() % 20), now)) {
      ++written;
      told += *left_out;
    }
  }
  now += 1min;
  for (int subject = 0; subject < 20; ++subject) told += *lines.admit(std::to_string(subject), now);
  EXPECT_EQ(written + told, asked);
  EXPECT_LE(written, 20 * 2 * (std::chrono::seconds(20'000 / 10) / 10s + 2));
}

TEST(Sparing, SharesOneRateAmongTooManySubjects) {
  Sparing lines({.lines = 1, .interval = 1min});
  std::size_t written = 0;
  for (int i = 0; i < 10'000; ++i)
    if (lines.admit(std::to_string(i), start)) ++written;
  EXPECT_EQ(written, Sparing::most_subjects + 1);
  EXPECT_EQ(lines.admit("a new one", start + 2min).has_value(), true);
}

}  // namespace
}  // namespace staithe
