#include "proxy/pause.h"

#include <gtest/gtest.h>

#include <set>

namespace staithe::proxy {
namespace {

using namespace std::chrono_literals;
using std::chrono::seconds;

constexpr Instant start{1000h};
// Fri, 02 Jan 2026 00:00:00 GMT
constexpr WallTime wall{std::chrono::sys_days(std::chrono::year(2026) / 1 / 2)};

std::optional<seconds> told(const std::string& text, const std::string& date = {}) {
  Headers headers;
  headers.add("retry-after", text);
  if (!date.empty()) headers.add("Date", date);
  return retry_after(headers, wall);
}

TEST(RetryAfter, IsSecondsOrADate) {
  EXPECT_EQ(told("0"), 0s);
  EXPECT_EQ(told("17"), 17s);
  EXPECT_EQ(told("Fri, 02 Jan 2026 00:00:30 GMT"), 30s);
}

TEST(RetryAfter, ComparesADateWithTheClockThatWroteIt) {
  EXPECT_EQ(told("Fri, 02 Jan 2026 05:00:30 GMT", "Fri, 02 Jan 2026 05:00:10 GMT"), 20s);
}

TEST(RetryAfter, IsNeitherNegativeNorEndless) {
  EXPECT_EQ(told("Thu, 01 Jan 2026 00:00:00 GMT"), 0s);
  EXPECT_EQ(told("Fri, 02 Jan 2099 00:00:00 GMT"), Pause::longest);
  EXPECT_EQ(told("301"), Pause::longest);
  EXPECT_EQ(told("99999999999999999999999999"), Pause::longest);
}

TEST(RetryAfter, NonsenseIsNothing) {
  for (const char* text : {"", "-1", "-99999999999999999999999", "soon", "1.5", "1s", " 1",
                           "Fri, 02 Jan 2026", "2026-01-02T00:00:00Z"})
    EXPECT_FALSE(told(text)) << text;
  EXPECT_FALSE(retry_after(Headers(), wall));
}

TEST(Pause, LastsAtLeastAsLongAsWasAskedAndNotMuchLonger) {
  for (std::uint64_t seed = 0; seed < 500; ++seed) {
    SeededRandom random(seed);
    Pause pause;
    const auto length = random.between(0s, 400s);
    EXPECT_TRUE(pause.begin(start, length, random));
    const auto asked = std::min<std::chrono::nanoseconds>(length, Pause::longest);
    EXPECT_GE(pause.left(start), asked);
    EXPECT_LE(pause.left(start), asked + Pause::most_spread);
    EXPECT_EQ(pause.holds(start), pause.left(start) > 0s);
  }
}

TEST(Pause, MachinesThatWereToldTheSameSecondComeBackAtDifferentOnes) {
  std::set<std::chrono::nanoseconds> ends;
  for (std::uint64_t seed = 0; seed < 100; ++seed) {
    SeededRandom random(seed);
    Pause pause;
    pause.begin(start, 8s, random);
    ends.insert(pause.left(start));
  }
  EXPECT_EQ(ends.size(), 100U);
  EXPECT_GT(*ends.rbegin() - *ends.begin(), 1s) << "of the 2 s that they are spread over";
}

TEST(Pause, TheMoreItIsToldTheLongerItLastsButNeverShorter) {
  for (std::uint64_t seed = 0; seed < 200; ++seed) {
    SeededRandom random(seed);
    Pause pause;
    Instant now = start;
    Instant end = now;
    for (int i = 0; i < 50; ++i) {
      const auto length = random.between(0s, 20s);
      const bool held = pause.holds(now);
      EXPECT_EQ(pause.begin(now, length, random), !held);
      EXPECT_GE(now + pause.left(now), std::max(end, now + length));
      end = now + pause.left(now);
      now += random.between(0s, 10s);
    }
  }
}

TEST(Pause, ThoseWhoWaitComeBackSpreadOverAShareOfIt) {
  SeededRandom random(1);
  Pause pause;
  pause.begin(start, 8s, random);
  const Instant end = start + pause.left(start);
  std::vector<int> quarters(4);
  for (int i = 0; i < 400; ++i) {
    const Instant back = pause.comes_back(random);
    ASSERT_GE(back, end);
    ASSERT_LT(back, end + 2s);
    ++quarters[static_cast<std::size_t>((back - end) / 500ms)];
  }
  for (const int count : quarters) EXPECT_GT(count, 50);
}

}  // namespace
}  // namespace staithe::proxy
