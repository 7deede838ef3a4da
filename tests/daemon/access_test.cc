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
  void load(proxy::AccessSettings settings) {
    bool done = false;
    asio::co_spawn(io_, access_.load(std::move(settings)),
                   [&](std::exception_ptr) { done = true; });
    run_until([&] { return done; });
  }
  bool allows(Right right, Peer caller) {
    std::optional<bool> answer;
    asio::co_spawn(io_, access_.allows(right, caller),
                   [&](std::exception_ptr, bool allowed) { answer = allowed; });
    run_until([&] { return answer.has_value(); });
    return *answer;
  }

  asio::io_context io_{1};
  fake::ManualClock clock_{io_};
  TaskGroup tasks_{io_.get_executor(), [](std::string_view, std::string_view) {}};
  std::vector<unsigned> groups_{7, 50};
  std::vector<unsigned> looked_up_;  // by the pool's thread, read when it has answered
  std::latch* hold_ = nullptr;       // before a lookup of groups
  Access access_{io_.get_executor(), clock_, tasks_, own,
                 Accounts{.user = [](const std::string& name) -> std::optional<unsigned> {
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
                              }}};
};

TEST_F(AccessTest, RefusesEverybodyElseUntilItIsLoaded) {
  EXPECT_FALSE(allows(Right::pull, 1000U));
  EXPECT_TRUE(allows(Right::pull, 0U));
  load({});
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
    asio::co_spawn(io_, access_.allows(Right::pull, 1003U),
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
