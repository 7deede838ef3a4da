#include "proxy/auth/keeper.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <functional>
#include <memory>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "cache/log.h"
#include "tests/proxy/auth/world.h"

namespace staithe::proxy::auth {
namespace {

using namespace std::chrono_literals;
using Kept = std::shared_ptr<const Token>;

// What a test's source does, and what was asked of it.
struct Script {
  std::chrono::nanoseconds lasts = 1h;
  std::chrono::nanoseconds takes{0};
  fake::Gate* gate = nullptr;
  std::function<void()> before = [] {};  // may throw
  int fetches = 0;
  int in_flight = 0;
  int most_at_once = 0;
};

class ScriptedSource final : public TokenSource {
 public:
  ScriptedSource(Clock& clock, std::shared_ptr<Script> script)
      : clock_(clock), script_(std::move(script)) {}

  asio::awaitable<Token> fetch() override {
    const std::shared_ptr<Script> script = script_;
    struct InFlight {
      explicit InFlight(Script& s) : of(s) {
        of.most_at_once = std::max(of.most_at_once, ++of.in_flight);
      }
      ~InFlight() { --of.in_flight; }
      Script& of;
    } in_flight(*script);
    const std::string name = "token " + std::to_string(++script->fetches);
    const Instant since = clock_.now();
    const WallTime wall_since = clock_.wall();
    if (script->gate) co_await script->gate->pass();
    if (script->takes > 0s) co_await clock_.sleep_for(script->takes);
    script->before();
    co_return Token{.secret = Secret(name),
                    .life = {.since = since, .wall_since = wall_since, .lasts = script->lasts},
                    .scope = {}};
  }

 private:
  Clock& clock_;
  std::shared_ptr<Script> script_;
};

class KeeperTest : public testing::Test {
 protected:
  std::shared_ptr<TokenKeeper> make(Kind kind) {
    return std::make_shared<TokenKeeper>("a token", kind,
                                         std::make_unique<ScriptedSource>(world.clock, script),
                                         world.environment());
  }
  // The value that get() gives without waiting, or "error: ..." or "waits".
  std::string got(const std::shared_ptr<TokenKeeper>& keeper) {
    const auto caller = world.call(keeper->get());
    if (!caller->outcome) return "waits";
    const Result<Kept> outcome = std::move(*std::exchange(caller->outcome, std::nullopt));
    if (!outcome) return "error: " + outcome.error().detail;
    return std::string((*outcome)->secret.reveal());
  }
  static asio::awaitable<bool> renewed(std::shared_ptr<TokenKeeper> keeper) {
    co_await keeper->renew();
    co_return true;
  }
  void fail_from_now_on(Errc code = Errc::unreachable) {
    script->before = [code] { throw Failure(code, "no answer"); };
  }
  void work_from_now_on() {
    script->before = [] {};
  }

  World world;
  std::shared_ptr<Script> script = std::make_shared<Script>();
};

TEST_F(KeeperTest, CountsWhatWasFetchedAndWhatFailed) {
  const auto meter = std::make_shared<TokenMeter>();
  Environment environment = world.environment();
  environment.meter = meter;
  const auto keeper = std::make_shared<TokenKeeper>(
      "a token", Kind::refresh, std::make_unique<ScriptedSource>(world.clock, script), environment);
  EXPECT_EQ(got(keeper), "token 1");
  EXPECT_EQ(meter->fetched(Kind::refresh), 1U);
  fail_from_now_on();
  EXPECT_FALSE(world.now(renewed(keeper)));
  EXPECT_EQ(meter->fetched(Kind::refresh), 1U);
  EXPECT_EQ(meter->failed(Kind::refresh), 1U);
  EXPECT_EQ(meter->fetched(Kind::access) + meter->failed(Kind::access), 0U);
}

// What people read: a token that is there, and that one is not to be had, once.
TEST_F(KeeperTest, TellsOfARenewalAndOnceOfAFailure) {
  std::FILE* const file = std::tmpfile();
  log::start({.format = log::Format::text, .fd = ::fileno(file)});
  const auto keeper = make(Kind::refresh);
  EXPECT_EQ(got(keeper), "token 1");
  script->takes = 1s;  // Somebody waits for it.
  const auto renews = [&] {
    const auto caller = world.call(renewed(keeper));
    world.clock.advance(1s);
    return caller->outcome && *caller->outcome;
  };
  fail_from_now_on();
  for (int i = 0; i < 3; ++i) EXPECT_FALSE(renews());
  work_from_now_on();
  EXPECT_TRUE(renews());
  EXPECT_TRUE(renews());  // So soon after the other it is no news.
  log::stop();
  std::string text(1 << 16, '\0');
  std::rewind(file);
  text.resize(std::fread(text.data(), 1, text.size(), file));
  std::fclose(file);
  std::vector<std::string> lines;
  std::istringstream stream(text);
  for (std::string line; std::getline(stream, line);) lines.push_back(line.substr(25));
  ASSERT_EQ(lines.size(), 3U) << text;
  EXPECT_TRUE(lines[0].starts_with("info  token renewed token=\"a token\" kind=refresh first=true"))
      << lines[0];
  EXPECT_TRUE(lines[1].starts_with("warn  token not renewed token=\"a token\"")) << lines[1];
  EXPECT_NE(lines[1].find("still_valid=true"), std::string::npos) << lines[1];
  EXPECT_NE(lines[1].find("error=\"no answer\""), std::string::npos) << lines[1];
  EXPECT_NE(lines[2].find("failures_before=3"), std::string::npos) << lines[2];
  EXPECT_EQ(text.find("token 1"), std::string::npos) << "never what it is";
}

TEST_F(KeeperTest, FiveHundredCallersShareOneFetch) {
  fake::Gate gate(world.io.get_executor());
  script->gate = &gate;
  const auto keeper = make(Kind::access);
  std::vector<std::shared_ptr<Caller<Kept>>> callers;
  for (int i = 0; i < 500; ++i) callers.push_back(world.begin(keeper->get()));
  world.clock.settle();
  EXPECT_EQ(script->fetches, 1);
  EXPECT_TRUE(keeper->in_flight());
  gate.open();
  world.clock.settle();
  for (const auto& caller : callers) EXPECT_EQ(caller->value(), callers.front()->value());
  EXPECT_EQ(script->fetches, 1);
}

TEST_F(KeeperTest, WhileItIsFreshNobodyWaitsAndNothingIsFetched) {
  const auto keeper = make(Kind::access);
  EXPECT_EQ(got(keeper), "token 1");
  for (int i = 0; i < 40; ++i) {
    world.clock.advance(1min);
    EXPECT_EQ(got(keeper), "token 1");
  }
  EXPECT_EQ(script->fetches, 1);
}

TEST_F(KeeperTest, TheOldOneServesWhileTheNewOneIsOnItsWay) {
  const auto keeper = make(Kind::access);
  EXPECT_EQ(got(keeper), "token 1");
  EXPECT_EQ(got(keeper), "token 1");  // Used after it was fetched.
  script->takes = 30s;
  world.clock.advance(48min);
  EXPECT_EQ(script->fetches, 2);
  EXPECT_EQ(got(keeper), "token 2");
  world.clock.advance(44min);
  script->takes = 3min;
  while (script->in_flight == 0) {
    EXPECT_EQ(got(keeper), "token 2");
    world.clock.advance(10s);
  }
  EXPECT_EQ(got(keeper), "token 2");
  world.clock.advance(3min);
  EXPECT_EQ(got(keeper), "token 3");
}

TEST_F(KeeperTest, AnAccessTokenThatNobodyUsesIsNotRenewedAndWipedAtItsStop) {
  const auto keeper = make(Kind::access);
  EXPECT_EQ(got(keeper), "token 1");
  const std::weak_ptr<const Token> token = keeper->current();
  world.clock.advance(59min + 29s);
  EXPECT_FALSE(token.expired());
  world.clock.advance(1s);
  EXPECT_TRUE(token.expired());
  EXPECT_EQ(keeper->current(), nullptr);
  EXPECT_TRUE(keeper->is_idle());
  EXPECT_EQ(script->fetches, 1);
  EXPECT_EQ(world.tasks.size(), 0U);
}

TEST_F(KeeperTest, AnAccessTokenThatIsUsedLateIsRenewedThen) {
  const auto keeper = make(Kind::access);
  EXPECT_EQ(got(keeper), "token 1");
  world.clock.advance(55min);
  EXPECT_EQ(script->fetches, 1);
  script->takes = 1s;
  EXPECT_EQ(got(keeper), "token 1");
  EXPECT_EQ(script->fetches, 2);
  world.clock.advance(1s);
  EXPECT_EQ(got(keeper), "token 2");
}

TEST_F(KeeperTest, EntraAndRefreshTokensAreRenewedThoughNobodyAsks) {
  for (const Kind kind : {Kind::entra, Kind::refresh}) {
    script->fetches = 0;
    const auto keeper = make(kind);
    EXPECT_EQ(script->fetches, 0);  // But not before anybody has asked at all.
    EXPECT_EQ(got(keeper), "token 1");
    world.clock.advance(72h);
    EXPECT_GE(script->fetches, 72);
    EXPECT_LE(script->fetches, 150);
    EXPECT_LE(world.tasks.size(), 2U);  // One tends each keeper, however often it was renewed.
    const int before = script->fetches;
    EXPECT_EQ(got(keeper), "token " + std::to_string(before));
    EXPECT_EQ(script->fetches, before);
  }
}

TEST_F(KeeperTest, NoFailureIsSeenWhileSomethingValidIsKept) {
  const auto keeper = make(Kind::entra);
  EXPECT_EQ(got(keeper), "token 1");
  fail_from_now_on();
  world.clock.advance(58min + 59s);
  EXPECT_GT(script->fetches, 2);
  EXPECT_EQ(got(keeper), "token 1");
  EXPECT_EQ(keeper->last_error()->detail, "no answer");
  // Failures in the background are the supervisor's to hear.
  EXPECT_EQ(world.reports.size(), static_cast<std::size_t>(script->fetches) - 1);
  EXPECT_EQ(world.reports.front(), "a token: no answer");
  world.clock.advance(1s);
  EXPECT_EQ(got(keeper).substr(0, 6), "error:");
  work_from_now_on();
  world.clock.advance(3min);
  EXPECT_EQ(got(keeper), "token " + std::to_string(script->fetches));
  EXPECT_FALSE(keeper->last_error());
}

TEST_F(KeeperTest, RetriesBackOffFromSecondsToMinutes) {
  const auto keeper = make(Kind::refresh);
  script->lasts = 24h;
  EXPECT_EQ(got(keeper), "token 1");
  fail_from_now_on();
  world.clock.advance(15h);
  const int after_start = script->fetches;
  world.clock.advance(1h);
  // Once in 90 to 150 seconds.
  EXPECT_GE(script->fetches - after_start, 24);
  EXPECT_LE(script->fetches - after_start, 40);
}

TEST_F(KeeperTest, AFailedFetchFailsAllWhoWaitWithTheSameError) {
  fake::Gate gate(world.io.get_executor());
  script->gate = &gate;
  fail_from_now_on(Errc::upstream_failed);
  const auto keeper = make(Kind::access);
  std::vector<std::shared_ptr<Caller<Kept>>> callers;
  for (int i = 0; i < 20; ++i) callers.push_back(world.call(keeper->get()));
  gate.open();
  world.clock.settle();
  for (const auto& caller : callers) {
    EXPECT_EQ(caller->error().code, Errc::upstream_failed);
    EXPECT_EQ(caller->error().detail, "no answer");
  }
  EXPECT_EQ(script->fetches, 1);
  EXPECT_TRUE(world.reports.empty());  // They have heard of it themselves.
}

TEST_F(KeeperTest, AStormOfCallersIsNoStormUpstream) {
  fail_from_now_on();
  const auto keeper = make(Kind::access);
  int calls = 0;
  for (int second = 0; second < 600; ++second) {
    for (int i = 0; i < 10; ++i, ++calls) EXPECT_EQ(got(keeper), "error: no answer");
    world.clock.advance(1s);
  }
  EXPECT_EQ(calls, 6000);
  // 1 + 2 + 4 + ... + 64 s, then every two minutes.
  EXPECT_GE(script->fetches, 9);
  EXPECT_LE(script->fetches, 14);
}

TEST_F(KeeperTest, WhatWasDeniedIsNotAskedAgainForHalfAMinute) {
  fail_from_now_on(Errc::denied);
  const auto keeper = make(Kind::access);
  for (int i = 0; i < 30; ++i) {
    EXPECT_EQ(got(keeper), "error: no answer");
    world.clock.advance(1s);
  }
  EXPECT_EQ(script->fetches, 1);
  world.clock.advance(21s);
  work_from_now_on();
  EXPECT_EQ(got(keeper), "token 2");
}

TEST_F(KeeperTest, AServersRetryAfterIsKept) {
  script->before = [] { throw Postponed(Errc::throttled, "slow down", 90s); };
  const auto keeper = make(Kind::access);
  EXPECT_EQ(got(keeper), "error: slow down");
  world.clock.advance(89s);
  EXPECT_EQ(got(keeper), "error: slow down");
  EXPECT_EQ(script->fetches, 1);
  work_from_now_on();
  world.clock.advance(20s);
  EXPECT_EQ(got(keeper), "token 2");
}

TEST_F(KeeperTest, ACallerThatLeavesEndsNoFetch) {
  script->takes = 10s;
  const auto keeper = make(Kind::access);
  const auto first = world.call(keeper->get());
  const auto second = world.call(keeper->get());
  first->leave();
  world.clock.settle();
  EXPECT_TRUE(first->left);
  EXPECT_FALSE(second->done());
  world.clock.advance(10s);
  EXPECT_EQ(second->value()->secret.reveal(), "token 1");
  EXPECT_EQ(script->fetches, 1);
}

TEST_F(KeeperTest, AFetchThatAllHaveLeftEndsWellForTheNext) {
  script->takes = 10s;
  const auto keeper = make(Kind::access);
  const auto caller = world.call(keeper->get());
  caller->leave();
  world.clock.advance(10s);
  EXPECT_EQ(got(keeper), "token 1");
  EXPECT_EQ(script->fetches, 1);
}

TEST_F(KeeperTest, StoppingEndsTheFetchAndTellsThoseWhoWait) {
  script->takes = 10s;
  const auto keeper = make(Kind::entra);
  const auto caller = world.call(keeper->get());
  world.tasks.cancel();
  world.clock.settle();
  EXPECT_EQ(caller->error().code, Errc::cancelled);
  EXPECT_EQ(world.tasks.size(), 0U);
  // Later ones do not hang: their task is dropped unstarted.
  const auto later = world.call(keeper->get());
  EXPECT_EQ(later->error().code, Errc::cancelled);
  EXPECT_TRUE(world.reports.empty());
}

TEST_F(KeeperTest, StoppingWhileItTendsEndsTheTask) {
  const auto keeper = make(Kind::entra);
  EXPECT_EQ(got(keeper), "token 1");
  EXPECT_EQ(world.tasks.size(), 1U);
  world.tasks.cancel();
  world.clock.settle();
  EXPECT_EQ(world.tasks.size(), 0U);
  EXPECT_EQ(got(keeper), "token 1");
}

TEST_F(KeeperTest, TheOwnerMayDropItWhileCallersWait) {
  script->takes = 10s;
  auto keeper = make(Kind::entra);
  const auto caller = world.call(keeper->get());
  const std::weak_ptr<TokenKeeper> dropped = keeper;
  keeper.reset();
  world.clock.advance(10s);
  EXPECT_EQ(caller->value()->secret.reveal(), "token 1");
  EXPECT_TRUE(dropped.expired());
  // Its tending notices at the next waking, and nothing is renewed for nobody.
  world.clock.advance(24h);
  EXPECT_EQ(script->fetches, 1);
  EXPECT_EQ(world.tasks.size(), 0U);
}

TEST_F(KeeperTest, ARefusedTokenIsForgottenOnce) {
  const auto keeper = make(Kind::access);
  const Kept first = world.now(keeper->get()).value();
  EXPECT_TRUE(keeper->discard(first.get()));
  EXPECT_EQ(keeper->current(), nullptr);
  EXPECT_EQ(first->secret.reveal(), "token 1");  // Who holds it may finish.
  // Five hundred requests with the old token are refused: one new fetch.
  for (int i = 0; i < 500; ++i) EXPECT_TRUE(keeper->discard(first.get()));
  EXPECT_EQ(got(keeper), "token 2");
  for (int i = 0; i < 500; ++i) EXPECT_TRUE(keeper->discard(first.get()));
  EXPECT_EQ(got(keeper), "token 2");
  EXPECT_EQ(script->fetches, 2);
  EXPECT_TRUE(keeper->discard(nullptr));
}

TEST_F(KeeperTest, TokensThatAreRefusedAgainAndAgainAreNotFetchedAgainAndAgain) {
  const auto keeper = make(Kind::access);
  int worth_repeating = 0;
  for (int i = 0; i < 6000; ++i) {
    const Kept token = world.now(keeper->get()).value();
    worth_repeating += keeper->discard(token.get()) ? 1 : 0;
    world.clock.advance(100ms);
  }
  EXPECT_EQ(worth_repeating, script->fetches - (keeper->current() ? 1 : 0));
  EXPECT_LE(script->fetches, 15);
  EXPECT_GE(script->fetches, 9);
  // After half a minute in which it was not refused the story begins anew: at once, and after a
  // second again. The soak found that it did not: an upstream that refused every token for a few
  // seconds now and then was away for a minute each time.
  world.clock.advance(31s);
  EXPECT_TRUE(keeper->discard(world.now(keeper->get()).value().get()));
  EXPECT_FALSE(keeper->discard(world.now(keeper->get()).value().get()));
  world.clock.advance(1300ms);
  EXPECT_TRUE(keeper->discard(world.now(keeper->get()).value().get()));
}

TEST_F(KeeperTest, AnotherOneIsFetchedWhileTheRefusedOneServesOthers) {
  const auto keeper = make(Kind::entra);
  const Kept first = world.now(keeper->get()).value();
  script->takes = 5s;
  const auto other = world.call(keeper->get_other_than(first));
  EXPECT_FALSE(other->done());
  EXPECT_EQ(got(keeper), "token 1");
  world.clock.advance(5s);
  EXPECT_EQ(other->value()->secret.reveal(), "token 2");
  EXPECT_EQ(world.now(keeper->get_other_than(first)).value()->secret.reveal(), "token 2");
  EXPECT_EQ(script->fetches, 2);
  fail_from_now_on();
  script->takes = 0s;
  EXPECT_FALSE(world.now(keeper->get_other_than(other->value())));
  EXPECT_EQ(got(keeper), "token 2");
  EXPECT_FALSE(world.now(keeper->get_other_than(other->value())));
  EXPECT_EQ(script->fetches, 3);  // The second time was within the backoff.
}

TEST_F(KeeperTest, AWallClockThatIsSetBackChangesNothing) {
  const auto keeper = make(Kind::access);
  EXPECT_EQ(got(keeper), "token 1");
  for (const auto jump : {std::chrono::hours(-1), std::chrono::hours(-87'600)}) {
    world.clock.jump_wall(jump);
    EXPECT_EQ(got(keeper), "token 1");
  }
  world.clock.advance(61min);
  EXPECT_NE(got(keeper), "token 1");
}

TEST_F(KeeperTest, AWallClockPastTheEndAsksForARenewalBeforeTheTokenIsUsed) {
  const auto keeper = make(Kind::access);
  EXPECT_EQ(got(keeper), "token 1");
  world.clock.freeze(2h);  // Of which the boot clock knows nothing.
  script->takes = 5s;
  const auto first = world.call(keeper->get());
  const auto second = world.call(keeper->get());
  EXPECT_FALSE(first->done() || second->done());
  world.clock.advance(5s);
  EXPECT_EQ(first->value()->secret.reveal(), "token 2");
  EXPECT_EQ(second->value()->secret.reveal(), "token 2");
  script->takes = 0s;
  EXPECT_EQ(got(keeper), "token 2");
  EXPECT_EQ(got(keeper), "token 2");
  world.clock.jump_wall(std::chrono::hours(87'600));
  EXPECT_EQ(got(keeper), "token 3");
  EXPECT_EQ(got(keeper), "token 3");
}

TEST_F(KeeperTest, IfThatRenewalFailsTheBootClockIsBelieved) {
  const auto keeper = make(Kind::access);
  EXPECT_EQ(got(keeper), "token 1");
  fail_from_now_on();
  world.clock.jump_wall(2h);
  for (int i = 0; i < 58; ++i) {
    EXPECT_EQ(got(keeper), "token 1");
    world.clock.advance(1min);
  }
  EXPECT_GT(script->fetches, 20);
  world.clock.advance(90s);
  EXPECT_EQ(got(keeper), "error: no answer");
}

TEST_F(KeeperTest, AfterASuspendTheEndIsJudgedBeforeTheFirstUse) {
  const auto keeper = make(Kind::access);
  EXPECT_EQ(got(keeper), "token 1");
  fail_from_now_on();
  world.clock.suspend(4h);
  EXPECT_EQ(got(keeper), "error: no answer");
  EXPECT_EQ(keeper->current(), nullptr);
}

TEST_F(KeeperTest, WhatHasEndedOnArrivalIsNotHandedOut) {
  script->lasts = 20s;
  script->takes = 19s;
  const auto keeper = make(Kind::access);
  const auto caller = world.call(keeper->get());
  world.clock.advance(19s);
  EXPECT_EQ(caller->error().code, Errc::upstream_nonsense);
  EXPECT_EQ(caller->error().detail, "a token: it had ended on arrival");
}

TEST_F(KeeperTest, AnUnexpectedExceptionFailsTheFetchAndNothingElse) {
  script->before = [] { throw std::runtime_error("a bug\n of ours"); };
  const auto keeper = make(Kind::access);
  EXPECT_EQ(got(keeper), "error: a token: a bug\\n of ours");
  work_from_now_on();
  world.clock.advance(2s);
  EXPECT_EQ(got(keeper), "token 2");
}

TEST_F(KeeperTest, StatusTellsTimesAndNothingElse) {
  const auto keeper = make(Kind::refresh);
  EXPECT_FALSE(keeper->status());
  script->lasts = 3h;
  EXPECT_EQ(got(keeper), "token 1");
  world.clock.advance(1h);
  const TokenStatus status = keeper->status().value();
  EXPECT_EQ(status.kind, "refresh");
  EXPECT_EQ(status.age, 1h);
  EXPECT_EQ(status.expires_in, 2h);
  EXPECT_GE(status.renews_in, 30min);
  EXPECT_LE(status.renews_in, 48min);
}

TEST_F(KeeperTest, WithLivesOfTwentySecondsNobodyEverWaits) {
  script->lasts = 20s;
  script->takes = 1s;
  for (const Kind kind : {Kind::entra, Kind::refresh, Kind::access}) {
    const auto keeper = make(kind);
    const auto first = world.call(keeper->get());
    world.clock.advance(1s);
    EXPECT_TRUE(first->done());
    for (int i = 0; i < 900; ++i) {
      EXPECT_NE(got(keeper), "waits") << to_string(kind);
      world.clock.advance(100ms);
    }
  }
}

// Whatever fails, and however the clocks go: one fetch at a time, nothing past its stop, no error
// while something valid is kept.
TEST(KeeperSimulation, HoldsItsPromisesForAnySeed) {
  for (std::uint64_t seed = 1; seed <= 40; ++seed) {
    World world(seed);
    SeededRandom random(seed * 7919);
    const auto script = std::make_shared<Script>();
    bool broken = false;
    script->before = [&] {
      if (broken || random.next() % 4 == 0) throw Failure(Errc::unreachable, "no answer");
    };
    const auto kind = static_cast<Kind>(random.next() % 3);
    const auto keeper = std::make_shared<TokenKeeper>(
        "a token", kind, std::make_unique<ScriptedSource>(world.clock, script),
        world.environment());
    Kept last;
    int handed_out = 0;
    for (int step = 0; step < 400; ++step) {
      script->lasts = random.between(10s, random.next() % 2 ? 2min : 5h);
      script->takes = random.next() % 3 ? 0s : random.between(0s, 5s);
      if (random.next() % 20 == 0) broken = !broken;
      const Kept valid = keeper->current();
      const bool doubtful =
          valid && world.clock.wall() >= valid->life.wall_since + valid->life.lasts * 9 / 10;
      const auto caller = world.call(keeper->get());
      if (caller->outcome && *caller->outcome) {
        last = caller->value();
        ++handed_out;
        ASSERT_LT(world.clock.now(),
                  last->life.since + plan(kind, last->life.lasts, {}, 0).stop_after)
            << seed;
      }
      if (valid && caller->outcome) ASSERT_TRUE(*caller->outcome) << seed << " " << step;
      if (valid && !caller->outcome) ASSERT_TRUE(doubtful) << seed << " " << step;
      switch (random.next() % 12) {
        case 0:
          world.clock.jump_wall(random.between(-10h, 10h));
          break;
        case 1:
          world.clock.suspend(random.between(0s, 4h));
          break;
        case 2:
          if (last) keeper->discard(last.get());
          break;
        case 3:
          caller->leave();
          break;
        default:
          world.clock.advance(random.between(0s, random.next() % 2 ? 20s : 20min));
      }
    }
    EXPECT_LE(script->most_at_once, 1) << seed;
    EXPECT_GT(handed_out, 50) << seed;
  }
}

}  // namespace
}  // namespace staithe::proxy::auth
