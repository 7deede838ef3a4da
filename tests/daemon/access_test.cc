#include "daemon/access.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <pwd.h>
#include <unistd.h>

#include <algorithm>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <cstdio>
#include <latch>
#include <random>
#include <string>
#include <vector>

#include "cache/log.h"
#include "tests/fake/clock.h"

namespace staithe::daemon {
namespace {

using namespace std::chrono_literals;
using proxy::Peer;
using testing::ElementsAre;
using testing::IsEmpty;

constexpr unsigned own = 900;
constexpr unsigned own_group = 901;
const proxy::AccessSettings everybody;
constexpr Right all_rights[] = {Right::pull, Right::look, Right::credential, Right::own};

TEST(Judge, LetsRootAndTheOwnUserDoEverything) {
  for (const Right right : all_rights) {
    for (const bool restricted : {false, true}) {
      const AccessIds access{.restricted = restricted, .users = {}, .groups = {}};
      EXPECT_EQ(judge(right, 0U, access, own), Verdict::allowed);
      EXPECT_EQ(judge(right, own, access, own), Verdict::allowed);
    }
  }
}

TEST(Judge, LetsEverybodyPullWhileNobodyIsNamed) {
  const AccessIds open;
  for (const Peer& caller : {Peer(1000U), Peer()}) {
    EXPECT_EQ(judge(Right::pull, caller, open, own), Verdict::allowed);
    EXPECT_EQ(judge(Right::look, caller, open, own), Verdict::allowed);
    EXPECT_EQ(judge(Right::credential, caller, open, own), Verdict::refused);
    EXPECT_EQ(judge(Right::own, caller, open, own), Verdict::refused);
  }
}

TEST(Judge, LetsThoseWhoAreNamedDoAllButWhatIsTheOwnUsers) {
  const AccessIds users{.restricted = true, .users = {1000, 1001}, .groups = {}};
  const AccessIds groups{.restricted = true, .users = {1000}, .groups = {50}};
  const AccessIds nobody{.restricted = true, .users = {}, .groups = {}};  // names nobody knows
  for (const Right right : {Right::pull, Right::look, Right::credential}) {
    EXPECT_EQ(judge(right, 1001U, users, own), Verdict::allowed);
    EXPECT_EQ(judge(right, 1002U, users, own), Verdict::refused);
    EXPECT_EQ(judge(right, 1000U, groups, own), Verdict::allowed);
    EXPECT_EQ(judge(right, 1002U, groups, own), Verdict::by_groups);
    EXPECT_EQ(judge(right, 1000U, nobody, own), Verdict::refused);
  }
  for (const AccessIds& access : {users, groups, nobody}) {
    EXPECT_EQ(judge(Right::own, 1000U, access, own), Verdict::refused);
    for (const Right right : all_rights)
      EXPECT_EQ(judge(right, Peer(), access, own), Verdict::refused) << "unknown is nobody";
  }
}

TEST(Member, OfAnyNamedGroupIsOne) {
  const AccessIds access{.restricted = true, .users = {}, .groups = {50, 60}};
  EXPECT_TRUE(is_member(std::vector<unsigned>{1, 60}, access));
  EXPECT_FALSE(is_member(std::vector<unsigned>{1, 61}, access));
  EXPECT_FALSE(is_member({}, access));
}

class AccessTest : public testing::Test {
 protected:
  ~AccessTest() override {
    bool done = false;
    asio::co_spawn(io_, tasks_.join(), [&](std::exception_ptr) { done = true; });
    run_until([&] { return done; });
  }

  void run_until(auto condition) {
    while (!condition()) {
      if (io_.stopped()) io_.restart();
      io_.run_one_for(10s);
    }
  }
  void load(AccessLists lists) {
    bool done = false;
    asio::co_spawn(io_, access_.load(std::move(lists)), [&](std::exception_ptr) { done = true; });
    run_until([&] { return done; });
  }
  void load(proxy::AccessSettings settings) { load(AccessLists{.all = std::move(settings)}); }
  bool allows(Right right, Peer caller, std::optional<std::string> registry = {}) {
    std::optional<bool> answer;
    asio::co_spawn(io_, access_.allows(right, caller, std::move(registry)),
                   [&](std::exception_ptr, bool allowed) { answer = allowed; });
    run_until([&] { return answer.has_value(); });
    return *answer;
  }

  asio::io_context io_{1};
  fake::ManualClock clock_{io_};
  TaskGroup tasks_{io_.get_executor(), [](std::string_view, std::string_view) {}};
  std::vector<unsigned> groups_{7, 50};
  std::vector<unsigned> looked_up_;   // by the pool's thread, read when it has answered
  std::latch* hold_ = nullptr;        // before a lookup of groups
  std::latch* hold_names_ = nullptr;  // before a lookup of a name
  Access access_{io_.get_executor(),
                 clock_,
                 tasks_,
                 own,
                 Accounts{.user = [this](const std::string& name) -> std::optional<unsigned> {
                            if (hold_names_) hold_names_->wait();
                            return name == "alice" ? std::optional(1000U) : std::nullopt;
                          },
                          .group = [](const std::string& name) -> std::optional<unsigned> {
                            return name == "docker" ? std::optional(50U) : std::nullopt;
                          },
                          .groups_of =
                              [this](unsigned uid) {
                                if (hold_) hold_->wait();
                                looked_up_.push_back(uid);
                                return groups_;
                              }},
                 own_group};
};

TEST_F(AccessTest, RefusesEverybodyElseUntilItIsLoaded) {
  EXPECT_FALSE(allows(Right::pull, 1000U));
  EXPECT_TRUE(allows(Right::pull, 0U));
  load(AccessLists());
  EXPECT_TRUE(allows(Right::pull, 1000U));
  EXPECT_FALSE(access_.restricted());
}

TEST_F(AccessTest, TurnsNamesIntoNumbers) {
  load({.users = {"alice", "2000"}, .groups = {}});
  EXPECT_TRUE(access_.restricted());
  EXPECT_TRUE(allows(Right::pull, 1000U));
  EXPECT_TRUE(allows(Right::credential, 2000U));
  EXPECT_FALSE(allows(Right::pull, 2001U));
  EXPECT_FALSE(allows(Right::pull, Peer()));
  EXPECT_THAT(looked_up_, IsEmpty()) << "no group is named";
}

TEST_F(AccessTest, WithNamesThatNobodyKnowsIsForNobody) {
  load({.users = {"bob"}, .groups = {"wheel"}});
  EXPECT_TRUE(access_.restricted());
  EXPECT_FALSE(allows(Right::pull, 1000U));
  EXPECT_TRUE(allows(Right::pull, own));
}

TEST_F(AccessTest, LooksUpAUsersGroupsOnceAMinute) {
  load({.users = {}, .groups = {"docker"}});
  EXPECT_TRUE(allows(Right::pull, 1002U));
  EXPECT_TRUE(allows(Right::credential, 1002U));
  EXPECT_THAT(looked_up_, ElementsAre(1002));
  groups_ = {7};
  EXPECT_TRUE(allows(Right::pull, 1002U));
  clock_.advance(61s);
  EXPECT_FALSE(allows(Right::pull, 1002U));
  EXPECT_FALSE(allows(Right::pull, 1002U));
  EXPECT_THAT(looked_up_, ElementsAre(1002, 1002));
}

TEST_F(AccessTest, LooksUpOnceForAllWhoAskAtTheSameTime) {
  load({.users = {}, .groups = {"50"}});
  std::latch hold(1);
  hold_ = &hold;
  int allowed = 0;
  for (int i = 0; i < 20; ++i) {
    asio::co_spawn(io_, access_.allows(Right::pull, Peer(1003U)),
                   [&](std::exception_ptr, bool yes) { allowed += yes ? 1 : 0; });
  }
  io_.restart();
  io_.poll();
  EXPECT_EQ(allowed, 0);
  hold.count_down();
  run_until([&] { return allowed == 20; });
  EXPECT_THAT(looked_up_, ElementsAre(1003));
}

TEST_F(AccessTest, RemembersABoundedNumberOfUsers) {
  load({.users = {}, .groups = {"docker"}});
  for (unsigned uid = 10'000; uid < 13'000; ++uid) EXPECT_TRUE(allows(Right::pull, uid));
  EXPECT_THAT(looked_up_, testing::SizeIs(3000));
}

TEST_F(AccessTest, CountsRefusalsAndLogsThemOnceForAUserAndMinute) {
  load({.users = {"alice"}, .groups = {}});
  std::FILE* const file = std::tmpfile();
  log::start({.format = log::Format::text, .fd = ::fileno(file)});
  for (int i = 0; i < 5; ++i) EXPECT_FALSE(allows(Right::pull, 1005U));
  EXPECT_FALSE(allows(Right::look, 1006U));
  EXPECT_FALSE(allows(Right::pull, Peer()));
  clock_.advance(61s);
  EXPECT_FALSE(allows(Right::pull, 1005U));
  log::stop();
  std::string text(65536, '\0');
  std::rewind(file);
  text.resize(std::fread(text.data(), 1, text.size(), file));
  std::fclose(file);
  EXPECT_EQ(access_.denied(), 8U);
  EXPECT_EQ(std::ranges::count(text, '\n'), 4) << text;
  EXPECT_THAT(text, testing::HasSubstr("a user was refused user=1005 right=pull"));
  EXPECT_THAT(text, testing::HasSubstr("user=1006"));
  EXPECT_THAT(text, testing::HasSubstr("user=unknown"));
}

// A registry with lists of its own: they decide for it, and they alone.
TEST_F(AccessTest, OfARegistryWithListsOfItsOwnIsJudgedByTheseAlone) {
  load({.all = {.users = {"alice"}, .groups = {}},
        .own = {{"tight", {.users = {"2000"}, .groups = {}}},
                {"loose", everybody},
                {"group", {.users = {}, .groups = {"docker"}}}}});
  struct Row {
    Peer caller;
    bool of_all, tight, loose, group;
  };
  for (const Row& row :
       {Row{Peer(0U), true, true, true, true},      //
        Row{Peer(own), true, true, true, true},     //
        Row{Peer(1000U), true, false, true, true},  // by the group
        Row{Peer(2000U), false, true, true, true},  // likewise
        Row{Peer(3000U), false, false, true, true}, Row{Peer(), false, false, true, false}}) {
    EXPECT_EQ(allows(Right::pull, row.caller, "another"), row.of_all) << row.caller.value_or(0);
    EXPECT_EQ(allows(Right::pull, row.caller, "tight"), row.tight) << row.caller.value_or(0);
    EXPECT_EQ(allows(Right::pull, row.caller, "loose"), row.loose) << row.caller.value_or(0);
    EXPECT_EQ(allows(Right::pull, row.caller, "group"), row.group) << row.caller.value_or(0);
    EXPECT_TRUE(allows(Right::pull, row.caller)) << "there is something for everybody";
  }
  groups_ = {7};
  clock_.advance(61s);
  EXPECT_FALSE(allows(Right::pull, 3000U, "group"));
}

TEST_F(AccessTest, GivesPasswordsOfARegistryToWhomItNames) {
  load({.all = {.users = {"alice"}, .groups = {}},
        .own = {{"tight", {.users = {"2000"}, .groups = {}}}, {"loose", everybody}}});
  EXPECT_TRUE(allows(Right::credential, 1000U, "another"));
  EXPECT_FALSE(allows(Right::credential, 1000U, "tight"));
  EXPECT_TRUE(allows(Right::credential, 2000U, "tight"));
  EXPECT_FALSE(allows(Right::credential, 2000U, "another"));
  for (const unsigned uid : {1000U, 2000U})
    EXPECT_FALSE(allows(Right::credential, uid, "loose")) << "open for pulls, never for passwords";
  EXPECT_TRUE(allows(Right::credential, 2000U)) << "of some registry";
  EXPECT_FALSE(allows(Right::credential, 3000U));
}

// A registry that names somebody opens the control socket to all users, so that requests have to be
// judged that its mode kept away before.
TEST_F(AccessTest, LetsLookWhoIsNamedAnywhereAndWhoCouldBefore) {
  const AccessLists lists{.all = {}, .own = {{"tight", {.users = {"2000"}, .groups = {}}}}};
  load(lists);
  EXPECT_TRUE(access_.restricted());
  EXPECT_TRUE(allows(Right::look, 2000U));
  EXPECT_FALSE(allows(Right::look, 3000U)) << "not of the own group";
  EXPECT_TRUE(allows(Right::pull, 3000U, "another")) << "[access] still names nobody";
  groups_ = {own_group};
  clock_.advance(61s);
  EXPECT_TRUE(allows(Right::look, 3000U));
  // Where [access] names somebody, the own group is nothing special.
  load({.all = {.users = {"alice"}, .groups = {}}, .own = lists.own});
  EXPECT_FALSE(allows(Right::look, 3000U));
  EXPECT_TRUE(allows(Right::look, 1000U));
  EXPECT_TRUE(allows(Right::look, 2000U));
}

// With rules that were drawn at random: what the daemon says is what the rule of the page says.
TEST_F(AccessTest, JudgesAsItIsDocumented) {
  std::mt19937 random(5);
  const auto one_of_two = [&] { return random() % 2 == 0; };
  for (int round = 0; round < 60; ++round) {
    const auto draw = [&] {
      proxy::AccessSettings lists;
      if (one_of_two()) lists.users.push_back(std::to_string(1000 + random() % 4));
      if (one_of_two()) lists.groups.push_back(std::to_string(50 + random() % 3));
      return lists;
    };
    AccessLists lists{.all = draw(), .own = {}};
    for (const char* const registry : {"a", "b"})
      if (one_of_two()) lists.own.emplace(registry, draw());
    load(lists);
    for (const char* const registry : {"a", "b", "c"}) {
      const auto own_lists = lists.own.find(registry);
      const proxy::AccessSettings& decides =
          own_lists == lists.own.end() ? lists.all : own_lists->second;
      for (unsigned uid = 1000; uid < 1005; ++uid) {
        const auto contains = [](const std::vector<std::string>& list, unsigned id) {
          return std::ranges::find(list, std::to_string(id)) != list.end();
        };
        // groups_ are everybody's.
        const bool named =
            contains(decides.users, uid) || std::ranges::any_of(groups_, [&](unsigned group) {
              return contains(decides.groups, group);
            });
        EXPECT_EQ(allows(Right::pull, uid, registry), decides.empty() || named);
        EXPECT_EQ(allows(Right::credential, uid, registry), named);
        EXPECT_FALSE(allows(Right::own, uid, registry));
      }
      EXPECT_EQ(allows(Right::pull, Peer(), registry), decides.empty()) << "unknown is nobody";
      EXPECT_FALSE(allows(Right::credential, Peer(), registry));
    }
  }
}

// A reload that takes its time must not leave open for a moment what it closes.
TEST_F(AccessTest, ClosesARegistryWithNewListsBeforeItsNamesAreLookedUp) {
  load(AccessLists());
  EXPECT_TRUE(allows(Right::pull, 1000U, "tight"));
  std::latch hold(1);
  hold_names_ = &hold;
  bool done = false;
  auto loading = access_.load({.all = {}, .own = {{"tight", {.users = {"alice"}, .groups = {}}}}});
  EXPECT_TRUE(access_.restricted());
  asio::co_spawn(io_, std::move(loading), [&](std::exception_ptr) { done = true; });
  EXPECT_FALSE(allows(Right::pull, 1000U, "tight")) << "nobody knows yet who alice is";
  EXPECT_FALSE(allows(Right::pull, Peer(), "tight"));
  EXPECT_TRUE(allows(Right::pull, 0U, "tight"));
  EXPECT_TRUE(allows(Right::pull, 1000U, "another"));
  EXPECT_FALSE(done);
  hold.count_down();
  run_until([&] { return done; });
  EXPECT_TRUE(allows(Right::pull, 1000U, "tight"));
  EXPECT_FALSE(allows(Right::pull, 1001U, "tight"));
}

TEST_F(AccessTest, KeepsTheListsOfTheLastReloadWhicheverEndsLast) {
  std::latch hold(1);
  hold_names_ = &hold;
  int done = 0;
  const auto spawn = [&](AccessLists lists) {
    asio::co_spawn(io_, access_.load(std::move(lists)), [&](std::exception_ptr) { ++done; });
  };
  spawn({.all = {.users = {"alice"}, .groups = {}}, .own = {}});
  spawn(AccessLists());  // has no name to look up, and ends first
  run_until([&] { return done == 1; });
  EXPECT_TRUE(allows(Right::pull, 3000U));
  hold.count_down();
  run_until([&] { return done == 2; });
  EXPECT_TRUE(allows(Right::pull, 3000U));
  EXPECT_FALSE(access_.restricted());
}

TEST_F(AccessTest, SaysForHowLongItKnows) {
  load({.all = {.users = {"alice"}, .groups = {"docker"}}, .own = {}});
  const auto until = [&](unsigned uid) {
    std::optional<Instant> answer;
    bool done = false;
    asio::co_spawn(io_, access_.allows_until(Right::pull, Peer(uid), std::nullopt),
                   [&](std::exception_ptr, std::optional<Instant> found) {
                     answer = found;
                     done = true;
                   });
    run_until([&] { return done; });
    return answer;
  };
  EXPECT_EQ(until(1000), Instant::max());
  const auto first = until(1002);
  ASSERT_TRUE(first);
  EXPECT_EQ(*first, clock_.now() + 60s) << "groups are remembered for a minute";
  clock_.advance(40s);
  EXPECT_EQ(until(1002), first) << "and no longer, whoever asks meanwhile";
}

TEST_F(AccessTest, TellsWhoWasRefusedLately) {
  load({.all = {.users = {"alice"}, .groups = {}}, .own = {}});
  EXPECT_FALSE(allows(Right::pull, 1005U, "r"));
  clock_.advance(5s);
  for (int i = 0; i < 3; ++i) EXPECT_FALSE(allows(Right::look, Peer()));
  for (unsigned uid = 5000; uid < 5020; ++uid) EXPECT_FALSE(allows(Right::pull, uid));
  clock_.advance(5s);
  EXPECT_FALSE(allows(Right::credential, 1005U));
  const auto refused = access_.refused_lately();
  ASSERT_EQ(refused.size(), 10U);
  EXPECT_EQ(refused[0].user, Peer(1005U));
  EXPECT_EQ(refused[0].times, 2U);
  EXPECT_EQ(refused[0].right, Right::credential);
  EXPECT_EQ(refused[0].registry, "");
  EXPECT_EQ(refused[0].last, clock_.now());
}

TEST(Accounts, OfTheSystemKnowRootAndNotWhoIsNot) {
  const Accounts accounts = Accounts::of_system();
  EXPECT_EQ(accounts.user("root"), 0U);
  EXPECT_EQ(accounts.group("root"), 0U);
  EXPECT_EQ(accounts.user("no-such-user-here"), std::nullopt);
  EXPECT_EQ(accounts.group("no-such-group-here"), std::nullopt);
  EXPECT_THAT(accounts.groups_of(0), testing::Contains(0U));
  EXPECT_THAT(accounts.groups_of(3'999'999'999U), IsEmpty());
  // Every group that the user database names for somebody is found.
  if (const passwd* nobody = ::getpwnam("nobody"))
    EXPECT_THAT(accounts.groups_of(nobody->pw_uid), testing::Contains(nobody->pw_gid));
}

}  // namespace
}  // namespace staithe::daemon
