#include "proxy/polite_client.h"

#include <gtest/gtest.h>

#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/cancellation_signal.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <list>

#include "tests/fake/clock.h"
#include "tests/fake/effort.h"
#include "tests/fake/http.h"

namespace staithe::proxy {
namespace {

using namespace std::chrono_literals;
using fake::Asked;
using fake::Reply;

const std::string host = "https://registry.example";

// One request and what became of it.
struct Call {
  bool done = false;
  int status = 0;
  std::optional<Error> error;
  Instant ended{};
  asio::cancellation_signal cancel;
};

class PoliteClientTest : public testing::Test {
 protected:
  explicit PoliteClientTest(std::optional<RateLimit> limit = std::nullopt)
      : client_(io_.get_executor(), http_, clock_, random_, budget_, stats_, limit) {
    answer_with(Reply{});
  }

  void TearDown() override { finish(); }

  void answer_with(std::vector<Reply> replies) { http_.on(host, std::move(replies)); }
  void answer_with(Reply reply) { answer_with(std::vector<Reply>{std::move(reply)}); }
  static Reply refused() { return Reply::failure(Errc::unreachable, "connection refused"); }
  static Reply throttled(const std::string& seconds) {
    return {.status = 429, .headers = {{"Retry-After", seconds}}};
  }
  // Nothing, until the limit on first bytes.
  static Reply silence() {
    Reply reply = Reply::failure(Errc::unreachable, "no answer within 20000 ms");
    reply.delay = 20s;
    return reply;
  }

  Call& start(PoliteClient::Manner manner = {}) {
    Call& call = calls_.emplace_back();
    asio::co_spawn(
        io_, client_.send({.url = *Url::parse(host + "/v2/app/manifests/1"), .limits = {}}, manner),
        asio::bind_cancellation_slot(
            call.cancel.slot(),
            [this, &call](std::exception_ptr error, std::unique_ptr<HttpResponse> response) {
              call.done = true;
              call.ended = clock_.now();
              if (response) call.status = response->status();
              try {
                if (error) std::rethrow_exception(error);
              } catch (const Failure& failure) {
                call.error = failure.error();
              } catch (const boost::system::system_error&) {
                call.error = Error{Errc::cancelled, "cancelled"};
              }
            }));
    clock_.settle();
    return call;
  }
  Call& ask(PoliteClient::Manner manner = {}) {
    Call& call = start(manner);
    while (!call.done && clock_.advance_to_next()) {
    }
    EXPECT_TRUE(call.done);
    return call;
  }
  void finish() {
    while (clock_.advance_to_next()) {
    }
    for (const Call& call : calls_) EXPECT_TRUE(call.done);
  }
  std::size_t sent() const { return http_.asked().size(); }
  // The most requests that went out within `window`.
  std::size_t most_within(std::chrono::nanoseconds window) const {
    std::size_t most = 0;
    const auto& asked = http_.asked();
    for (std::size_t first = 0, last = 0; last < asked.size(); ++last) {
      while (asked[last].at - asked[first].at > window) ++first;
      most = std::max(most, last - first + 1);
    }
    return most;
  }

  asio::io_context io_;
  fake::ManualClock clock_{io_};
  fake::FakeHttpClient http_{clock_};
  SeededRandom random_{7};
  RetryBudget budget_;
  std::shared_ptr<UpstreamStats> stats_ = std::make_shared<UpstreamStats>();
  PoliteClient client_;
  std::list<Call> calls_;
};

TEST_F(PoliteClientTest, RepeatsWhatPassesAndNothingElse) {
  for (const Reply& trouble :
       {refused(), Reply{.status = 502}, Reply{.status = 503}, Reply{.status = 504},
        Reply::failure(Errc::upstream_failed, "reset")}) {
    answer_with({trouble, Reply{}});
    http_.forget();
    EXPECT_EQ(ask().status, 200);
    EXPECT_EQ(sent(), 2U);
  }
  for (const int status : {400, 401, 403, 404, 416, 500}) {
    answer_with(Reply{.status = status});
    http_.forget();
    EXPECT_EQ(ask().status, status);
    EXPECT_EQ(sent(), 1U) << status;
  }
  answer_with(Reply::failure(Errc::upstream_nonsense, "no HTTP"));
  http_.forget();
  EXPECT_EQ(ask().error->code, Errc::upstream_nonsense);
  EXPECT_EQ(sent(), 1U);
}

TEST_F(PoliteClientTest, GivesTheLastAnswerOrErrorWhenItsAttemptsAreOver) {
  answer_with(Reply{.status = 502});
  EXPECT_EQ(ask().status, 502);
  EXPECT_EQ(sent(), static_cast<std::size_t>(most_attempts));
  EXPECT_EQ(stats_->retries, static_cast<std::uint64_t>(most_attempts - 1));
}

TEST_F(PoliteClientTest, ASpentBudgetMakesAFailureFinalAtOnce) {
  while (budget_.take(clock_.now())) {
  }
  answer_with(refused());
  const Instant began = clock_.now();
  EXPECT_EQ(ask().error->code, Errc::unreachable);
  EXPECT_EQ(sent(), 1U);
  EXPECT_EQ(clock_.now(), began);
}

TEST_F(PoliteClientTest, WhoeverHasWaitedForATimeOutIsNotMadeToWaitAgain) {
  answer_with(silence());
  const Instant began = clock_.now();
  EXPECT_EQ(ask().error->code, Errc::unreachable);
  EXPECT_EQ(sent(), 1U);
  EXPECT_EQ(clock_.now() - began, 20s);
}

TEST_F(PoliteClientTest, TheFirstMissPaysForASilentHostAndLaterOnesFailAtOnce) {
  answer_with(silence());
  ask();
  http_.forget();
  const Instant began = clock_.now();
  for (int i = 0; i < 100; ++i) {
    const Call& call = start();
    ASSERT_TRUE(call.done);
    EXPECT_EQ(call.error->code, Errc::unreachable);
    EXPECT_TRUE(call.error->detail.starts_with("no answer within 20000 ms; it is tried again in "))
        << call.error->detail;
  }
  EXPECT_EQ(clock_.now(), began);
  EXPECT_EQ(sent(), 0U);
}

TEST_F(PoliteClientTest, AHostThatRefusesIsSoonLeftAlone) {
  answer_with(refused());
  const Instant began = clock_.now();
  for (int i = 0; i < 50; ++i) EXPECT_EQ(ask().error->code, Errc::unreachable);
  EXPECT_EQ(sent(), static_cast<std::size_t>(Breaker::failures_in_a_row));
  EXPECT_LT(clock_.now() - began, 2s);
}

TEST_F(PoliteClientTest, OneProbeFindsThatTheHostIsBackAndTheRestFollowGradually) {
  answer_with(silence());
  ask();
  clock_.advance(client_.next_try() - clock_.now());
  Reply slow{};
  slow.delay = 50ms;
  answer_with(slow);
  http_.forget();
  Call& probe = start();
  for (int i = 0; i < 20; ++i) EXPECT_TRUE(start().error) << "the probe has not come back";
  EXPECT_EQ(sent(), 1U);
  clock_.advance(50ms);
  EXPECT_EQ(probe.status, 200);
  EXPECT_FALSE(client_.breaker().is_open());
  http_.forget();
  for (int i = 0; i < 30; ++i) start();
  EXPECT_EQ(sent(), 1U);
  clock_.advance(50ms);
  EXPECT_EQ(sent(), 3U);
  clock_.advance(50ms);
  EXPECT_EQ(sent(), 7U);
  finish();
  EXPECT_EQ(sent(), 30U);
}

// However long it was away: asked every half second, it is found within 10 s of its return.
TEST_F(PoliteClientTest, AHostThatIsBackIsInUseWithinTenSeconds) {
  for (const bool with_budget : {false, true}) {
    for (const Reply& away : {refused(), silence()}) {
      for (int i = 0; i < 60; ++i) {
        while (!with_budget && budget_.take(clock_.now())) {
        }
        answer_with(away);
        const Instant gone = clock_.now();
        while (clock_.now() - gone < 10s + i * 1300ms) {
          start();
          clock_.advance(500ms);
        }
        answer_with(Reply{});
        const Instant back = clock_.now();
        while (start().status != 200 && clock_.now() - back < 1min) clock_.advance(500ms);
        EXPECT_LE(clock_.now() - back, 10s) << i;
        for (int asked = 0; asked < 20; ++asked) ask();
      }
    }
  }
}

TEST_F(PoliteClientTest, WaitsOutAShortPause) {
  answer_with({throttled("3"), Reply{}});
  const Instant began = clock_.now();
  EXPECT_EQ(ask().status, 200);
  EXPECT_GE(clock_.now() - began, 3s);
  EXPECT_LE(clock_.now() - began, 3s + 2 * Pause::most_spread);
}

TEST_F(PoliteClientTest, ObeysADateToo) {
  Reply reply{.status = 503,
              .headers = {{"Retry-After", "Thu, 01 Jan 2026 00:00:04 GMT"},
                          {"Date", "Thu, 01 Jan 2026 00:00:00 GMT"}}};
  answer_with({reply, Reply{}});
  const Instant began = clock_.now();
  EXPECT_EQ(ask().status, 200);
  EXPECT_GE(clock_.now() - began, 4s);
}

TEST_F(PoliteClientTest, ALongPauseFailsEverybodyAtOnceAndSendsNothing) {
  answer_with(throttled("60"));
  EXPECT_EQ(ask().error->code, Errc::throttled);
  EXPECT_EQ(sent(), 1U);
  for (int i = 0; i < 100; ++i) {
    const Call& call = start();
    ASSERT_TRUE(call.done);
    EXPECT_EQ(call.error->code, Errc::throttled);
    EXPECT_TRUE(call.error->detail.contains("asks for a pause of 60 s")) << call.error->detail;
  }
  EXPECT_EQ(sent(), 1U);
}

TEST_F(PoliteClientTest, TheImpatientDoNotWait) {
  answer_with(throttled("3"));
  const Instant began = clock_.now();
  EXPECT_EQ(ask({.patient = false}).error->code, Errc::throttled);
  EXPECT_EQ(clock_.now(), began);
}

TEST_F(PoliteClientTest, A429IsNeverPassedOn) {
  for (const char* after : {"0", "1", "3", "60", "nonsense"}) {
    answer_with(throttled(after));
    const Call& call = ask();
    ASSERT_TRUE(call.error) << after;
    EXPECT_EQ(call.error->code, Errc::throttled);
    clock_.advance(10min);
  }
}

// Five requests a second to a host that grants four and then asks for 5 s.
TEST_F(PoliteClientTest, AStormOf429DoesNotRaiseTheNumberOfRequests) {
  Instant window = clock_.now();
  int granted = 0;
  Instant pause_ends{};
  std::size_t during_pause = 0;
  std::size_t pauses = 0;
  http_.on(host, [&](const Asked& asked) {
    if (asked.at < pause_ends) ++during_pause;
    if (asked.at - window >= 5s) {
      window = asked.at;
      granted = 0;
    }
    if (++granted <= 20) return Reply{};
    if (asked.at >= pause_ends) ++pauses;
    pause_ends = std::max(pause_ends, asked.at + 5s);
    return throttled("5");
  });
  for (int i = 0; i < 1'000; ++i) {
    start();
    clock_.advance(200ms);
  }
  finish();
  int answered = 0;
  for (const Call& call : calls_) answered += call.status == 200;
  EXPECT_GT(answered, 300);
  EXPECT_GT(pauses, 3U);
  EXPECT_EQ(during_pause, 0U);
  EXPECT_LE(sent(), 1'100U);
}

TEST_F(PoliteClientTest, AfterAPauseThereIsNoHerd) {
  answer_with({throttled("8")});
  EXPECT_TRUE(ask({.patient = false}).error);
  Reply slow{};
  slow.delay = 20ms;
  answer_with(slow);
  http_.forget();
  for (int i = 0; i < 100; ++i) start();
  EXPECT_EQ(sent(), 0U);
  const Instant end = clock_.now() + client_.pause_left();
  finish();
  EXPECT_EQ(sent(), 100U);
  EXPECT_GE(http_.asked().front().at, end);
  EXPECT_LE(most_within(10ms), 20U);
  EXPECT_GT(http_.asked().back().at - http_.asked().front().at, 1s) << "of the 2 s they have";
}

TEST_F(PoliteClientTest, AHostThatStillAsksForAPauseIsAskedByOneNotByAllThatWaited) {
  answer_with(throttled("4"));
  EXPECT_TRUE(ask({.patient = false}).error);
  Reply again = throttled("60");
  again.delay = 500ms;
  answer_with(again);
  http_.forget();
  for (int i = 0; i < 100; ++i) start();
  finish();
  EXPECT_EQ(sent(), 1U);
  for (const Call& call : calls_) EXPECT_EQ(call.error->code, Errc::throttled);
}

TEST_F(PoliteClientTest, AProbeThatIsGivenUpLeavesItsPlaceToTheNext) {
  answer_with(silence());
  ask();
  clock_.advance(client_.next_try() - clock_.now());
  Call& probe = start();
  EXPECT_TRUE(start().error);
  probe.cancel.emit(asio::cancellation_type::terminal);
  clock_.settle();
  EXPECT_EQ(probe.error->code, Errc::cancelled);
  answer_with(Reply{});
  EXPECT_EQ(ask().status, 200);
}

TEST_F(PoliteClientTest, AProbeThatIsAnsweredWithNonsenseLeavesItsPlaceToo) {
  answer_with(silence());
  ask();
  clock_.advance(client_.next_try() - clock_.now());
  answer_with({Reply::failure(Errc::upstream_nonsense, "no HTTP"), Reply{}});
  EXPECT_EQ(ask().error->code, Errc::upstream_nonsense);
  EXPECT_EQ(ask().status, 200);
}

// The promises over random hosts: every request ends, none with 429, none is sent while one host
// asks for a pause or is known to be away, but for probes.
TEST(PoliteClient, KeepsItsPromisesOverRandomHistories) {
  const auto seeds = static_cast<std::uint64_t>(fake::effort(40));
  for (std::uint64_t seed = 0; seed < seeds; ++seed) {
    asio::io_context io;
    fake::ManualClock clock(io);
    fake::FakeHttpClient http(clock);
    SeededRandom random(seed);
    SeededRandom chance(~seed);
    RetryBudget budget;
    auto stats = std::make_shared<UpstreamStats>();
    PoliteClient client(io.get_executor(), http, clock, random, budget, stats,
                        seed % 2 ? std::optional(RateLimit(RateLimit::acr)) : std::nullopt);
    Instant pause_ends{};
    std::size_t early = 0;
    double evil = 0;
    http.on(host, [&](const Asked& asked) {
      // What was under way when the pause began could not know of it.
      if (asked.at < pause_ends) ++early;
      Reply reply;
      reply.delay = chance.between(1ms, 300ms);
      if (chance.unit() >= evil) return reply;
      switch (chance.next() % 5) {
        case 0:
          reply.status = 429;
          reply.delay = 0s;
          reply.headers = {{"Retry-After", std::to_string(chance.next() % 8)}};
          pause_ends = std::max(
              pause_ends, asked.at + std::chrono::seconds(std::stoi(reply.headers[0].second)));
          break;
        case 1:
          reply.status = 502 + static_cast<int>(chance.next() % 3);
          break;
        case 2:
          reply.status = 500;
          break;
        case 3:
          reply.error = Error{Errc::unreachable, "refused"};
          break;
        default:
          reply.error = Error{Errc::unreachable, "silent"};
          reply.delay = 20s;
      }
      return reply;
    });
    int ended = 0;
    int wrong = 0;
    for (int i = 0; i < 400; ++i) {
      if (i % 50 == 0) evil = chance.unit();
      asio::co_spawn(
          io,
          client.send({.url = *Url::parse(host + "/x"), .limits = {}},
                      {.patient = chance.next() % 4 != 0, .may_hedge = chance.next() % 2 == 0}),
          [&](std::exception_ptr error, std::unique_ptr<HttpResponse> response) {
            ++ended;
            if (response && response->status() == 429) ++wrong;
            if (!error == !response) ++wrong;
          });
      clock.advance(chance.between(0s, 500ms));
      ASSERT_GE(budget.left(), 0);
    }
    while (clock.advance_to_next()) {
    }
    EXPECT_EQ(ended, 400) << seed;
    EXPECT_EQ(wrong, 0) << seed;
    EXPECT_EQ(early, 0U) << seed;
    EXPECT_EQ(stats->requests, http.asked().size());
    EXPECT_LE(stats->retries + stats->hedges,
              RetryBudget::reserve +
                  RetryBudget::share_of_answers * static_cast<double>(stats->requests));
  }
}

class HedgingTest : public PoliteClientTest {
 protected:
  // A host that is known to answer within 10 ms.
  HedgingTest() {
    Reply usual{};
    usual.delay = 10ms;
    answer_with(usual);
    for (int i = 0; i < 50; ++i) ask(small);
    http_.forget();
  }
  static constexpr PoliteClient::Manner small{.may_hedge = true};
  static Reply late(std::chrono::nanoseconds delay, int status = 200) {
    Reply reply{.status = status};
    reply.delay = delay;
    return reply;
  }
};

TEST_F(HedgingTest, ASecondRequestGoesOutWhenTheAnswerIsLate) {
  answer_with({late(10s), late(10ms, 404)});
  const Instant began = clock_.now();
  EXPECT_EQ(ask(small).status, 404) << "the second's";
  EXPECT_EQ(clock_.now() - began, PoliteClient::least_hedge_delay + 10ms);
  EXPECT_EQ(sent(), 2U);
  EXPECT_EQ(stats_->hedges, 1U);
  EXPECT_EQ(clock_.sleepers(), 0U) << "the loser is gone";
}

TEST_F(HedgingTest, TheFirstAnswerWinsWhicheverItIs) {
  answer_with({late(300ms), late(10s, 404)});
  EXPECT_EQ(ask(small).status, 200);
  EXPECT_EQ(sent(), 2U);
  EXPECT_EQ(clock_.sleepers(), 0U);
}

TEST_F(HedgingTest, WhatIsAnsweredInTimeIsAskedOnce) {
  answer_with(late(150ms));
  EXPECT_EQ(ask(small).status, 200);
  EXPECT_EQ(sent(), 1U);
  EXPECT_EQ(clock_.sleepers(), 0U);
}

TEST_F(HedgingTest, AFailureIsNoAnswerWhileTheOtherMayStillCome) {
  Reply fails_late = refused();
  fails_late.delay = 300ms;
  answer_with({fails_late, late(1s)});
  EXPECT_EQ(ask(small).status, 200);
  EXPECT_EQ(sent(), 2U);
  answer_with({late(1s), refused()});
  http_.forget();
  EXPECT_EQ(ask(small).status, 200);
  EXPECT_EQ(sent(), 2U);
}

TEST_F(HedgingTest, AFirstFailureIsTriedAgainAtOnceWithoutWaitingForTheHedge) {
  answer_with({refused(), late(10ms)});
  const Instant began = clock_.now();
  EXPECT_EQ(ask(small).status, 200);
  EXPECT_LT(clock_.now() - began, PoliteClient::least_hedge_delay);
  EXPECT_EQ(stats_->hedges, 0U);
}

TEST_F(HedgingTest, BlobsAndOthersAreNeverAskedTwice) {
  answer_with(late(10s));
  EXPECT_EQ(ask().status, 200);
  EXPECT_EQ(sent(), 1U);
}

TEST_F(HedgingTest, IsOffWithoutBudget) {
  while (budget_.take(clock_.now())) {
  }
  answer_with(late(10s));
  EXPECT_EQ(ask(small).status, 200);
  EXPECT_EQ(sent(), 1U);
}

TEST_F(HedgingTest, IsOffWhileTheHostComesBack) {
  answer_with(silence());
  ask();
  clock_.advance(client_.next_try() - clock_.now());
  answer_with(late(1s));
  http_.forget();
  EXPECT_EQ(ask(small).status, 200);
  EXPECT_EQ(ask(small).status, 200);
  EXPECT_EQ(sent(), 2U);
}

TEST_F(HedgingTest, IsOffInAPauseThatBeganMeanwhile) {
  answer_with({late(1s), throttled("60")});
  Call& call = start(small);
  start({.patient = false});  // is told 429
  http_.forget();
  finish();
  EXPECT_EQ(call.status, 200);
  EXPECT_EQ(sent(), 0U);
}

TEST_F(HedgingTest, WhoeverGivesUpTakesBothRequestsAlong) {
  answer_with(late(10s));
  Call& call = start(small);
  clock_.advance(1s);
  EXPECT_EQ(sent(), 2U);
  EXPECT_GT(clock_.sleepers(), 0U);
  call.cancel.emit(asio::cancellation_type::terminal);
  clock_.settle();
  EXPECT_TRUE(call.done);
  EXPECT_EQ(call.error->code, Errc::cancelled);
  EXPECT_EQ(clock_.sleepers(), 0U);
}

class LimitedTest : public PoliteClientTest {
 protected:
  LimitedTest() : PoliteClientTest(RateLimit(RateLimit::acr)) {}
};

TEST_F(LimitedTest, ShapesABurstAndLosesNothingOfIt) {
  for (int i = 0; i < 200; ++i) start();
  EXPECT_EQ(sent(), 120U);
  const Instant began = clock_.now();
  finish();
  EXPECT_EQ(sent(), 200U);
  EXPECT_NEAR(std::chrono::duration<double>(clock_.now() - began).count(), 2, 0.1);
}

TEST_F(LimitedTest, AsksMoreSlowlyAfterA429) {
  answer_with({throttled("1"), Reply{}});
  EXPECT_EQ(ask().status, 200);
  http_.forget();
  for (int i = 0; i < 100; ++i) start();
  const Instant began = clock_.now();
  finish();
  EXPECT_EQ(sent(), 100U);
  EXPECT_GT(clock_.now() - began, 2s);
}

}  // namespace
}  // namespace staithe::proxy
