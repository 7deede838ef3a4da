#include "proxy/retry_policy.h"

#include <gtest/gtest.h>

namespace staithe::proxy {
namespace {

using namespace std::chrono_literals;

TEST(RetryPolicy, OnlyWhatARepeatCanMendIsRepeated) {
  for (int status = 200; status < 600; ++status) {
    const bool passing = status == 502 || status == 503 || status == 504;
    EXPECT_EQ(may_retry(judge(status, false), 1, 0s), passing) << status;
  }
  EXPECT_TRUE(may_retry(judge(Errc::unreachable), 1, 0s));
  EXPECT_TRUE(may_retry(judge(Errc::upstream_failed), 1, 0s));
  for (const Errc code : {Errc::upstream_nonsense, Errc::bad_request, Errc::firewall, Errc::denied,
                          Errc::unauthorized, Errc::throttled, Errc::too_large, Errc::cancelled})
    EXPECT_FALSE(may_retry(judge(code), 1, 0s)) << to_string(code);
}

TEST(RetryPolicy, AnAnswerIsNoFailureOfTheHostBecauseItIsNotTheOneHopedFor) {
  for (int status = 400; status < 500; ++status)
    EXPECT_EQ(judge(status, true), status == 429 ? Verdict::paused : Verdict::answered) << status;
  EXPECT_EQ(judge(500, false), Verdict::peculiar);
}

TEST(RetryPolicy, AWordAboutWhenToComeBackIsAPause) {
  EXPECT_EQ(judge(429, false), Verdict::paused);
  EXPECT_EQ(judge(503, true), Verdict::paused);
  EXPECT_EQ(judge(503, false), Verdict::failing);
  EXPECT_EQ(judge(502, true), Verdict::failing);
}

TEST(RetryPolicy, AttemptsAndTimeEnd) {
  EXPECT_TRUE(may_retry(Verdict::failing, most_attempts - 1, retry_window - 1ms));
  EXPECT_FALSE(may_retry(Verdict::failing, most_attempts, 0s));
  EXPECT_FALSE(may_retry(Verdict::failing, 1, retry_window)) << "it has cost a time-out already";
}

TEST(RetryPolicy, TheBoundOfTheWaitDoublesUpToTheLongest) {
  EXPECT_EQ(backoff_bound(1), first_backoff);
  EXPECT_EQ(backoff_bound(2), 2 * first_backoff);
  for (int i = 1; i < 100; ++i) {
    EXPECT_LE(backoff_bound(i), backoff_bound(i + 1));
    EXPECT_LE(backoff_bound(i), longest_backoff);
  }
  EXPECT_EQ(backoff_bound(100), longest_backoff);
}

}  // namespace
}  // namespace staithe::proxy
