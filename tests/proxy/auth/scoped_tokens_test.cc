#include "proxy/auth/scoped_tokens.h"

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "tests/proxy/auth/world.h"

namespace staithe::proxy::auth {
namespace {

using namespace std::chrono_literals;
using Kept = std::shared_ptr<const Token>;

class GatedSource final : public TokenSource {
 public:
  GatedSource(Clock& clock, fake::Gate& gate, int& fetches)
      : clock_(clock), gate_(gate), fetches_(fetches) {}
  asio::awaitable<Token> fetch() override {
    ++fetches_;
    co_await gate_.pass();
    co_return Token{.secret = Secret("t"),
                    .life = {.since = clock_.now(), .wall_since = clock_.wall(), .lasts = 1h},
                    .scope = {}};
  }

 private:
  Clock& clock_;
  fake::Gate& gate_;
  int& fetches_;
};

class Scopes : public testing::Test {
 protected:
  std::shared_ptr<Caller<Kept>> ask(const std::string& repository) {
    return world.call(tokens.at(repository)->get());
  }

  World world;
  fake::Gate gate{world.io.get_executor()};
  int fetches = 0;
  ScopedTokens tokens{"h",
                      [this](const std::string&) {
                        return std::make_unique<GatedSource>(world.clock, gate, fetches);
                      },
                      world.environment(), 3};
};

TEST_F(Scopes, EachHasOneKeeper) {
  EXPECT_EQ(tokens.find("a"), nullptr);
  const auto keeper = tokens.at("a");
  EXPECT_EQ(tokens.at("a"), keeper);
  EXPECT_EQ(tokens.find("a"), keeper.get());
  EXPECT_NE(tokens.at("b"), keeper);
  EXPECT_EQ(tokens.size(), 2U);
}

TEST_F(Scopes, TheOneUnusedForLongestMakesRoom) {
  gate.open();
  for (const auto* name : {"a", "b", "c"}) {
    EXPECT_TRUE(ask(name)->done());
    world.clock.advance(1s);
  }
  EXPECT_TRUE(ask("a")->done());
  EXPECT_TRUE(ask("d")->done());
  EXPECT_EQ(tokens.size(), 3U);
  EXPECT_EQ(tokens.find("b"), nullptr);
  EXPECT_NE(tokens.find("a"), nullptr);
}

TEST_F(Scopes, WhatIsInFlightIsNotDropped) {
  const auto first = ask("a");  // In flight, and used before the others.
  world.clock.advance(1s);
  const auto second = ask("b");
  world.clock.advance(1s);
  const auto third = ask("c");
  try {
    (void)tokens.at("d");
    FAIL() << "all places are taken by fetches in flight";
  } catch (const Failure& failure) {
    EXPECT_EQ(failure.code(), Errc::throttled);
  }
  gate.open();
  world.clock.settle();
  EXPECT_TRUE(first->done() && second->done() && third->done());
  gate.close();
  const auto fourth = ask("d");  // Instead of "a", the oldest; in flight now.
  EXPECT_EQ(tokens.find("a"), nullptr);
  world.clock.advance(1s);
  const auto fifth = ask("b");
  const auto sixth = ask("c");
  const auto seventh = ask("e");  // "d" is the oldest by now, but in flight.
  EXPECT_NE(tokens.find("d"), nullptr);
  EXPECT_NE(tokens.find("e"), nullptr);
  EXPECT_EQ(tokens.size(), 3U);
}

TEST_F(Scopes, WhatHasEndedGoesFirst) {
  gate.open();
  for (const auto* name : {"a", "b", "c"}) EXPECT_TRUE(ask(name)->done());
  world.clock.advance(2h);
  EXPECT_TRUE(ask("d")->done());
  EXPECT_EQ(tokens.size(), 1U);
}

}  // namespace
}  // namespace staithe::proxy::auth
