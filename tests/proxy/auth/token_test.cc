#include "proxy/auth/token.h"

#include <gtest/gtest.h>

namespace staithe::proxy::auth {
namespace {

using namespace std::chrono_literals;

constexpr std::int64_t now = 1'760'000'000;

TEST(RemainingLife, IsTheShortestThatAnyoneNames) {
  const struct {
    std::string_view why;
    LifeClues clues;
    std::chrono::seconds expected;
  } table[] = {
      {"nothing is known", {.wall = now}, 60s},
      {"expires_in alone", {.expires_in = 300, .wall = now}, 300s},
      {"exp - iat, fresh", {.expires = now + 4500, .issued = now, .wall = now}, 4500s},
      {"exp - iat, however wrong our clock",
       {.expires = now + 4500, .issued = now, .wall = 0},
       4500s},
      {"our clock a year ahead",
       {.expires = now + 4500, .issued = now, .wall = now + 31'536'000},
       4500s},
      {"from a cache, by expires_in",
       {.expires_in = 1200, .expires = now + 1200, .issued = now - 2400, .wall = now},
       1200s},
      {"from a cache, by the server's date",
       {.expires = now + 1200, .issued = now - 2400, .server_date = now, .wall = 0},
       1200s},
      {"a date after the end is a wrong date",
       {.expires = now + 1200, .issued = now, .server_date = now + 5000, .wall = now},
       1200s},
      {"a date long ago changes nothing",
       {.expires = now + 1200, .issued = now, .server_date = 1000, .wall = now},
       1200s},
      {"expires_in below exp - iat",
       {.expires_in = 60, .expires = now + 1200, .issued = now, .wall = now},
       60s},
      {"expires_in above exp - iat",
       {.expires_in = 9999, .expires = now + 1200, .issued = now, .wall = now},
       1200s},
      {"exp alone, by our clock", {.expires = now + 600, .wall = now}, 600s},
      {"more than a day", {.expires_in = 1'000'000, .wall = now}, 24h},
      {"absurd",
       {.expires_in = INT64_MAX, .expires = INT64_MAX, .issued = INT64_MIN, .wall = now},
       24h},
      {"absurd, the other way", {.expires = INT64_MIN, .issued = INT64_MAX, .wall = now}, 60s},
      {"one second", {.expires_in = 1, .wall = now}, 1s},
  };
  for (const auto& row : table) {
    const auto life = remaining_life(row.clues);
    ASSERT_TRUE(life) << row.why << ": " << life.error().detail;
    EXPECT_EQ(*life, row.expected) << row.why;
  }
}

TEST(RemainingLife, OfWhatHasEndedIsAnError) {
  for (const LifeClues& clues : {
           LifeClues{.expires_in = 0, .wall = now},
           LifeClues{.expires_in = -5, .wall = now},
           LifeClues{.expires_in = INT64_MIN, .wall = now},
           LifeClues{.expires = now, .issued = now, .wall = now},
           LifeClues{.expires = now - 10, .issued = now, .wall = now},
           LifeClues{.expires = now - 10, .wall = now},
       }) {
    EXPECT_FALSE(remaining_life(clues));
  }
}

TEST(HttpDate, IsReadInItsOneForm) {
  EXPECT_EQ(parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT"), 784111777);
  EXPECT_EQ(parse_http_date("Thu, 09 Oct 2025 08:53:20 GMT"), now);
  for (const std::string_view text :
       {"", "Sun, 06 Nov 1994 08:49:37", "Sunday, 06-Nov-94 08:49:37 GMT",
        "Sun Nov  6 08:49:37 1994", "Sun, 06 Nov 1994 08:49:37 PST",
        "xxx, 06 Nov 1994 08:49:37 GMT", "Sun, 99 Nov 1994 08:49:37 GMT",
        "Wed, 01 Jan 1800 08:49:37 GMT"}) {
    EXPECT_FALSE(parse_http_date(text)) << text;
  }
}

}  // namespace
}  // namespace staithe::proxy::auth
