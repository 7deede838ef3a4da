#include "proxy/crowd.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <random>
#include <vector>

namespace staithe::proxy {
namespace {

using Decided = Crowd::Verdict;

// Connections of one user that rest, the first for the longest.
std::vector<std::unique_ptr<Crowd::Guest>> resting(Crowd& crowd, Peer user, std::size_t count) {
  std::vector<std::unique_ptr<Crowd::Guest>> guests;
  for (std::size_t i = 0; i < count; ++i) {
    guests.push_back(std::make_unique<Crowd::Guest>());
    crowd.enter(*guests.back(), user);
    guests.back()->rest();
  }
  return guests;
}

TEST(Crowd, RefusesAUserBeyondHisShareAndNobodyElse) {
  Crowd crowd({.connections = 10, .connections_per_user = 3});
  const auto his = resting(crowd, 1000, 3);
  EXPECT_EQ(crowd.decide(1000).verdict, Decided::user_has_all);
  EXPECT_EQ(crowd.decide(1001).verdict, Decided::welcome);
  EXPECT_EQ(crowd.decide(std::nullopt).verdict, Decided::welcome);
}

TEST(Crowd, CountsThoseWhomTheKernelDoesNotTellAsOneUser) {
  Crowd crowd({.connections = 10, .connections_per_user = 2});
  const auto theirs = resting(crowd, std::nullopt, 2);
  EXPECT_EQ(crowd.decide(std::nullopt).verdict, Decided::user_has_all);
  EXPECT_EQ(crowd.decide(0).verdict, Decided::welcome);
  EXPECT_EQ(crowd.users(), 1U);
}

TEST(Crowd, MakesRoomWithTheLongestIdleOfTheUserWithMost) {
  Crowd crowd({.connections = 8, .connections_per_user = 8});
  const auto few = resting(crowd, 1, 2);
  const auto many = resting(crowd, 2, 6);
  const auto decision = crowd.decide(3);
  EXPECT_EQ(decision.verdict, Decided::in_place_of);
  EXPECT_EQ(decision.gives_way, many.front().get());
  // A request later it is the one that has rested least.
  many.front()->work();
  many.front()->rest();
  EXPECT_EQ(crowd.decide(3).gives_way, many[1].get());
  // His own newcomer takes his own place.
  EXPECT_EQ(crowd.decide(2).gives_way, many[1].get());
}

TEST(Crowd, TakesNothingFromAUserWithNoMoreThanTheNewcomers) {
  Crowd crowd({.connections = 4, .connections_per_user = 4});
  const auto one = resting(crowd, 1, 2);
  const auto other = resting(crowd, 2, 2);
  for (const auto& guest : other) guest->work();
  EXPECT_EQ(crowd.decide(2).verdict, Decided::full) << "its own are at work, the others' are safe";
  EXPECT_EQ(crowd.decide(1).gives_way, one.front().get());
  EXPECT_EQ(crowd.decide(3).gives_way, one.front().get());
}

TEST(Crowd, RefusesWhenAllAreAtWork) {
  Crowd crowd({.connections = 2, .connections_per_user = 2});
  const auto busy = resting(crowd, 1, 2);
  for (const auto& guest : busy) guest->work();
  EXPECT_EQ(crowd.decide(2).verdict, Decided::full);
  busy.front()->leave();
  EXPECT_EQ(crowd.decide(2).verdict, Decided::welcome);
}

TEST(Crowd, MakesRoomWheneverItIsToldThatThereIsNone) {
  Crowd crowd({.connections = 100, .connections_per_user = 100});
  EXPECT_EQ(crowd.decide(1, true).verdict, Decided::full);
  const auto some = resting(crowd, 1, 2);
  EXPECT_EQ(crowd.decide(2, true).gives_way, some.front().get());
}

// Against a model that looks at everybody each time.
TEST(Crowd, DecidesAsAModelThatCountsAnew) {
  struct Modelled {
    Crowd::Guest guest;
    Peer user;
    bool rests = true;
    std::uint64_t since = 0;
  };
  for (unsigned seed = 0; seed < 20; ++seed) {
    std::mt19937 random(seed);
    Crowd crowd({.connections = 12, .connections_per_user = 7});
    std::vector<std::unique_ptr<Modelled>> all;
    std::uint64_t time = 0;
    const auto count = [&](Peer user) {
      return std::ranges::count_if(all, [&](const auto& m) { return m->user == user; });
    };
    for (int step = 0; step < 2000; ++step) {
      const Peer user = random() % 5 == 0 ? Peer() : Peer(random() % 3);
      const auto decision = crowd.decide(user);
      ASSERT_EQ(crowd.size(), all.size());
      if (count(user) >= 7) {
        ASSERT_EQ(decision.verdict, Decided::user_has_all);
      } else if (all.size() < 12) {
        ASSERT_EQ(decision.verdict, Decided::welcome);
      } else {
        // The most that anybody has who rests and has more than the newcomer's user, or is he.
        std::ptrdiff_t most = 0;
        for (const auto& m : all)
          if (m->rests && (count(m->user) > count(user) || m->user == user))
            most = std::max(most, count(m->user));
        ASSERT_EQ(decision.verdict, most > 0 ? Decided::in_place_of : Decided::full);
        if (most > 0) {
          const auto gone = std::ranges::find_if(
              all, [&](const auto& m) { return &m->guest == decision.gives_way; });
          ASSERT_NE(gone, all.end());
          ASSERT_TRUE((*gone)->rests);
          ASSERT_EQ(count((*gone)->user), most);
          for (const auto& m : all)
            if (m->user == (*gone)->user && m->rests) ASSERT_LE((*gone)->since, m->since);
          all.erase(gone);
        }
      }
      if (decision.verdict == Decided::welcome || decision.verdict == Decided::in_place_of) {
        all.push_back(std::make_unique<Modelled>());
        all.back()->user = user;
        all.back()->since = ++time;
        crowd.enter(all.back()->guest, user);
        all.back()->guest.rest();
      }
      Modelled& some = *all[random() % all.size()];
      some.rests = random() % 2 == 0;
      some.since = ++time;
      some.rests ? some.guest.rest() : some.guest.work();
      if (random() % 4 == 0) all.erase(all.begin() + static_cast<long>(random() % all.size()));
    }
  }
}

}  // namespace
}  // namespace staithe::proxy
