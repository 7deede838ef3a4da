#include "proxy/auth/schedule.h"

#include <gtest/gtest.h>

#include "cache/random.h"

namespace staithe::proxy::auth {
namespace {

using namespace std::chrono_literals;
using std::chrono::nanoseconds;

TEST(Plan, FollowsTheTableOfRenewals) {
  const struct {
    std::string_view why;
    Kind kind;
    nanoseconds lasts;
    std::optional<nanoseconds> refresh_in;
    nanoseconds earliest, latest, stop;
  } table[] = {
      {"Entra, an hour", Kind::entra, 3600s, {}, 52min, 55min, 3540s},
      {"Entra, a day", Kind::entra, 24h, {}, 10h, 12h, 24h - 60s},
      {"Entra, two hours", Kind::entra, 2h, {}, 54min, 60min, 2h - 60s},
      {"Entra, as advised", Kind::entra, 24h, 12h, 12h, 12h + 30min, 24h - 60s},
      {"Entra, advice beyond the end", Kind::entra, 3600s, 2h, 52min, 55min, 3540s},
      {"refresh, three hours", Kind::refresh, 3h, {}, 90min, 108min, 3h - 5min},
      {"access, 75 minutes", Kind::access, 75min, {}, 56min, 60min, 75min - 30s},
      {"access of Docker Hub", Kind::access, 300s, {}, 225s, 240s, 270s},
      {"access, 60 seconds", Kind::access, 60s, {}, 45s, 48s, 54s},
      {"Entra of a test", Kind::entra, 20s, {}, 14s, 15s, 18s},
      {"refresh of a test", Kind::refresh, 20s, {}, 10s, 12s, 18s},
      {"access of a test", Kind::access, 20s, {}, 15s, 16s, 18s},
  };
  for (const auto& row : table) {
    const Plan early = plan(row.kind, row.lasts, row.refresh_in, 0);
    const Plan late = plan(row.kind, row.lasts, row.refresh_in, 0.999);
    EXPECT_EQ(early.stop_after, row.stop) << row.why;
    EXPECT_EQ(late.stop_after, row.stop) << row.why;
    EXPECT_GE(std::min(early.renew_after, late.renew_after), row.earliest) << row.why;
    EXPECT_LE(std::max(early.renew_after, late.renew_after), row.latest) << row.why;
    EXPECT_NE(early.renew_after, late.renew_after) << row.why << ": no jitter";
  }
}

TEST(Plan, RenewsBeforeItStopsAndStopsBeforeTheEndForAnyLife) {
  SeededRandom random(4);
  for (int i = 0; i < 20'000; ++i) {
    const auto kind = static_cast<Kind>(random.next() % 3);
    const nanoseconds lasts = random.between(1ms, random.next() % 2 ? nanoseconds(24h) : 1min);
    std::optional<nanoseconds> refresh_in;
    if (random.next() % 2) refresh_in = random.between(-1h, 48h);
    const Plan when = plan(kind, lasts, refresh_in, random.unit());
    ASSERT_GT(when.renew_after, 0s);
    ASSERT_LT(when.renew_after, when.stop_after);
    ASSERT_LT(when.stop_after, lasts);
    ASSERT_GE(when.stop_after, lasts * 9 / 10 - 5min);
  }
}

TEST(Plan, ADemandIsKeptToItsEnd) {
  const Plan when = plan(Kind::demand, 8760h, {}, 0.5);
  EXPECT_EQ(when.renew_after, 8760h);
  EXPECT_EQ(when.stop_after, 8760h);
}

TEST(RetryAfter, GrowsFromSecondsToMinutes) {
  const Error error{Errc::unreachable, ""};
  EXPECT_EQ(retry_after(error, 1, {}, 0.5), 1s);
  EXPECT_EQ(retry_after(error, 2, {}, 0.5), 2s);
  EXPECT_EQ(retry_after(error, 5, {}, 0.5), 16s);
  EXPECT_EQ(retry_after(error, 8, {}, 0.5), 2min);
  EXPECT_EQ(retry_after(error, 1'000'000, {}, 0.5), 2min);
  EXPECT_EQ(retry_after(error, 1, {}, 0), 750ms);
  EXPECT_LT(retry_after(error, 1, {}, 0.999), 1250ms);
}

TEST(RetryAfter, LeavesWhatOnlyAHumanCanMendAlone) {
  for (const Errc code : {Errc::unauthorized, Errc::denied, Errc::config}) {
    EXPECT_GE(retry_after({code, ""}, 1, {}, 0), 30s);
    EXPECT_LE(retry_after({code, ""}, 1, {}, 0.999), 50s);
  }
}

TEST(RetryAfter, NeverComesBeforeTheTimeThatAServerNames) {
  SeededRandom random(8);
  for (int i = 0; i < 10'000; ++i) {
    const nanoseconds named = random.between(0s, 5min);
    ASSERT_GE(retry_after({Errc::throttled, ""}, 1 + static_cast<int>(random.next() % 10), named,
                          random.unit()),
              named);
  }
  EXPECT_GE(retry_after({Errc::throttled, ""}, 1, {}, 0), 3s);
  EXPECT_LE(retry_after({Errc::throttled, ""}, 1, nanoseconds(24h), 0.999), 6min);
}

}  // namespace
}  // namespace staithe::proxy::auth
