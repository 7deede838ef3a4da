#include "daemon/setup_apply.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <string>
#include <vector>

#include "cache/random.h"
#include "tests/daemon/setup_tree.h"

namespace staithe::daemon {
namespace {

using fake::Tree;
using fake::usual_service;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

constexpr const char* kConfig = "/etc/containerd/config.toml";
constexpr const char* kDocker = "/etc/docker/daemon.json";

struct Killed {};

class SetupApplyTest : public testing::Test, protected fake::SetupTree {
 protected:
  SetupApplyTest() {
    programs()
        .program("containerd", "containerd github.com/containerd/containerd v2.1.9")
        .program("dockerd", "Docker version 20.10.24, build x")
        .program("podman", "podman version 4.3.1")
        .program("buildkitd", "buildkitd github.com/moby/buildkit v0.13.2")
        .program("k3s", "k3s version v1.30.0+k3s1");
  }
  Plan plan(Client client = Client::containerd, const Served& service = usual_service()) const {
    return plan_setup(client, *this, service);
  }
  void apply(Client client = Client::containerd, const Served& service = usual_service()) {
    const auto applied = apply_setup(disk(), plan(client, service));
    ASSERT_TRUE(applied) << applied.error().detail;
  }
  Undone undo(Client client = Client::containerd, bool force = false) {
    auto undone = undo_setup(disk(), client, force);
    EXPECT_TRUE(undone) << undone.error().detail;
    return undone ? *undone : Undone{};
  }
  void lay_out() {
    clear();
    write(kConfig, "# mine\nversion = 3 # yes\n", 0600);
    write("/etc/containerd/certs.d/docker.io/hosts.toml",
          "server = \"https://registry-1.docker.io\"\n[host.\"https://m\"]\n");
  }
  // What stands outside the record.
  static Tree without_record(Tree tree) {
    std::erase_if(tree,
                  [](const auto& item) { return item.first.starts_with("var/lib/staithe-setup"); });
    return tree;
  }
  // A disk that is killed before its `at`-th step.
  SetupDisk killed_at(int at) {
    left_ = at;
    return SetupDisk(root(), [this](std::string_view) {
      if (left_-- == 0) throw Killed();
    });
  }
  bool survives(const std::function<void()>& work) {
    try {
      work();
      return true;
    } catch (const Killed&) {
      return false;
    }
  }
  int left_ = 0;
};

TEST_F(SetupApplyTest, WritesThePlanAndTakesItBack) {
  lay_out();
  const Tree before = tree();
  apply();
  EXPECT_THAT(text(kConfig), HasSubstr("config_path = \"/etc/containerd/certs.d\""));
  EXPECT_THAT(text(kConfig), HasSubstr("# mine\nversion = 3 # yes\n"));
  EXPECT_EQ(std::get<0>(tree().at("etc/containerd/config.toml")) & 07777, 0600u);
  EXPECT_EQ(std::get<0>(tree().at("etc/containerd/certs.d/quay.io/hosts.toml")) & 07777, 0644u);
  EXPECT_TRUE(is_set_up(disk(), Client::containerd));
  const Undone undone = undo();
  EXPECT_TRUE(undone.anything);
  EXPECT_THAT(undone.restarts.at(0).command, HasSubstr("restart containerd"));
  EXPECT_EQ(tree(), before);
}

TEST_F(SetupApplyTest, KeepsTheCopiesFromOtherUsers) {
  lay_out();
  apply();
  for (const auto& [name, entry] : tree())
    if (name.starts_with("var/lib/staithe-setup")) EXPECT_EQ(std::get<0>(entry) & 077, 0u) << name;
}

TEST_F(SetupApplyTest, GivesTheOwnerBack) {
  if (geteuid() != 0) GTEST_SKIP() << "only root changes owners";
  lay_out();
  const std::string file = (root() / "etc/containerd/config.toml").native();
  ASSERT_EQ(chown(file.c_str(), 12, 34), 0);
  apply();
  struct stat status{};
  ASSERT_EQ(stat(file.c_str(), &status), 0);
  EXPECT_EQ(status.st_uid, 12u);
  undo();
  ASSERT_EQ(stat(file.c_str(), &status), 0);
  EXPECT_EQ(status.st_uid, 12u);
  EXPECT_EQ(status.st_gid, 34u);
}

TEST_F(SetupApplyTest, TwiceIsOnce) {
  lay_out();
  apply();
  const Tree once = tree();
  EXPECT_THAT(plan().changes, IsEmpty());
  apply();
  EXPECT_EQ(tree(), once);
}

TEST_F(SetupApplyTest, AddsToWhatItDidAndTakesAllOfItBack) {
  lay_out();
  const Tree before = tree();
  Served few = usual_service();
  few.registries.resize(1);
  few.seen.clear();
  apply(Client::containerd, few);
  apply();
  EXPECT_TRUE(exists("/etc/containerd/certs.d/quay.io/hosts.toml"));
  undo();
  EXPECT_EQ(tree(), before);
}

TEST_F(SetupApplyTest, UndoWithoutAnApplyDoesNothing) {
  lay_out();
  const Tree before = tree();
  EXPECT_FALSE(undo().anything);
  EXPECT_EQ(tree(), before);
}

TEST_F(SetupApplyTest, KeepsWhatTheUserHasChangedElsewhere) {
  lay_out();
  apply();
  write(kConfig, "# added\n" + text(kConfig), 0644);
  const Undone undone = undo();
  EXPECT_THAT(undone.merged, ElementsAre(kConfig));
  EXPECT_EQ(text(kConfig), "# added\n# mine\nversion = 3 # yes\n");
}

TEST_F(SetupApplyTest, RefusesWhereTheUserHasChangedOurLines) {
  lay_out();
  apply();
  std::string changed = text(kConfig);
  changed += "  more = 1\n";
  write(kConfig, changed);
  const Tree before = tree();
  const Undone refused = undo();
  ASSERT_EQ(refused.conflicts.size(), 1u);
  EXPECT_EQ(refused.conflicts[0].path, kConfig);
  EXPECT_EQ(refused.conflicts[0].found, changed);
  EXPECT_THAT(*refused.conflicts[0].ours, Not(HasSubstr("more")));
  EXPECT_EQ(tree(), before);

  const Undone forced = undo(Client::containerd, true);
  EXPECT_EQ(text(kConfig), "# mine\nversion = 3 # yes\n");
  ASSERT_EQ(forced.replaced.size(), 1u);
  EXPECT_EQ(text(forced.replaced[0].second), changed);
  // The kept text does not stand in the way of the next time.
  apply();
  undo();
  EXPECT_EQ(text(kConfig), "# mine\nversion = 3 # yes\n");
  EXPECT_EQ(text(forced.replaced[0].second), changed);
}

TEST_F(SetupApplyTest, RefusesToGuessAFileThatWasRemoved) {
  lay_out();
  apply();
  std::filesystem::remove(root() / "etc/containerd/config.toml");
  EXPECT_EQ(undo().conflicts.size(), 1u);
  undo(Client::containerd, true);
  EXPECT_EQ(text(kConfig), "# mine\nversion = 3 # yes\n");
}

TEST_F(SetupApplyTest, LeavesADirectoryThatOthersUseNow) {
  lay_out();
  apply();
  write("/etc/containerd/certs.d/quay.io/ca.crt", "theirs");
  EXPECT_THAT(undo().left, ElementsAre("/etc/containerd/certs.d/quay.io"));
  EXPECT_EQ(text("/etc/containerd/certs.d/quay.io/ca.crt"), "theirs");
  EXPECT_FALSE(exists("/etc/containerd/certs.d/quay.io/hosts.toml"));
}

TEST_F(SetupApplyTest, AppliesAgainOverTheUsersChangesAndUndoKeepsThem) {
  clear();
  write(kDocker, "{\n  \"debug\": true,\n  \"log-driver\": \"local\"\n}\n");
  apply(Client::docker);
  std::string changed = text(kDocker);
  changed.replace(changed.find("\"local\""), 7, "\"local\",\n  \"iptables\": false");
  write(kDocker, changed);
  // Another port now: the new one is put before the old one.
  Served moved = usual_service();
  moved.address = "127.0.0.1:6060";
  apply(Client::docker, moved);
  EXPECT_THAT(text(kDocker), HasSubstr("[\"http://127.0.0.1:6060\", \"http://127.0.0.1:5050\"]"));
  EXPECT_THAT(undo(Client::docker).restored, ElementsAre(kDocker));
  EXPECT_EQ(text(kDocker),
            "{\n  \"debug\": true,\n  \"log-driver\": \"local\",\n  \"iptables\": false\n}\n");
}

TEST_F(SetupApplyTest, RefusesToApplyOverOurLinesThatWereChanged) {
  clear();
  write(kDocker, "{\n  \"debug\": true\n}\n");
  apply(Client::docker);
  write(kDocker,
        "{\n  \"registry-mirrors\": [ \"http://127.0.0.1:5050\" ],\n  \"debug\": true\n}\n");
  Served moved = usual_service();
  moved.address = "127.0.0.1:6060";
  const Tree before = tree();
  const auto applied = apply_setup(disk(), plan(Client::docker, moved));
  ASSERT_FALSE(applied);
  EXPECT_THAT(applied.error().detail, HasSubstr("was changed since in the lines that setup has"));
  EXPECT_EQ(tree(), before);
}

TEST_F(SetupApplyTest, RefusesAFileThatChangedUnderThePlan) {
  lay_out();
  const Plan planned = plan();
  write(kConfig, "version = 2\n");
  const Tree before = without_record(tree());
  const auto applied = apply_setup(disk(), planned);
  ASSERT_FALSE(applied);
  EXPECT_THAT(applied.error().detail, HasSubstr("was changed while setup looked at it"));
  EXPECT_EQ(without_record(tree()), before);
  undo();
  EXPECT_EQ(without_record(tree()), before);
}

TEST_F(SetupApplyTest, WaitsForNobody) {
  lay_out();
  const Plan planned = plan();
  std::filesystem::create_directories(root() / "var/lib/staithe-setup");
  const int other = open((root() / "var/lib/staithe-setup").c_str(), O_RDONLY | O_DIRECTORY);
  ASSERT_EQ(flock(other, LOCK_EX), 0);
  const auto applied = apply_setup(disk(), planned);
  ASSERT_FALSE(applied);
  EXPECT_EQ(applied.error().code, Errc::in_use);
  EXPECT_FALSE(undo_setup(disk(), Client::containerd, false));
  close(other);
  apply();
}

TEST_F(SetupApplyTest, RefusesADamagedRecordAndADamagedCopy) {
  lay_out();
  apply();
  const std::filesystem::path record = setup_directory(Client::containerd) / "record.json";
  const std::string good = text(record);
  for (const char* bad : {"", "{}", "[]", "{\"version\":2}",
                          "{\"version\":1,\"files\":[1],\"directories\":[],\"restarts\":[]}"}) {
    write(record, bad);
    const auto undone = undo_setup(disk(), Client::containerd, true);
    ASSERT_FALSE(undone) << bad;
    EXPECT_THAT(undone.error().detail, HasSubstr("record.json cannot be used"));
  }
  write(record, good);
  for (const std::string& name : disk().list(setup_directory(Client::containerd)))
    if (name.starts_with("config.toml.") &&
        text(setup_directory(Client::containerd) / name) == "# mine\nversion = 3 # yes\n")
      write(setup_directory(Client::containerd) / name, "forged");
  const auto undone = undo_setup(disk(), Client::containerd, true);
  ASSERT_FALSE(undone);
  EXPECT_THAT(undone.error().detail, HasSubstr("is not what setup has put there"));
}

TEST_F(SetupApplyTest, FollowsNoLinkOutOfItsTree) {
  clear();
  fake::SetupTree outside;
  outside.write("/etc/mine", "x");
  std::filesystem::create_directory_symlink(outside.root() / "etc", root() / "etc/containerd");
  const auto applied = apply_setup(disk(), plan());
  EXPECT_FALSE(applied && exists(kConfig));
  EXPECT_EQ(outside.tree().size(), 4u);  // etc, etc/mine, var, var/lib
}

TEST_F(SetupApplyTest, ReplacesNoLink) {
  clear();
  write("/etc/elsewhere.json", "{}");
  std::filesystem::create_directories(root() / "etc/docker");
  std::filesystem::create_symlink("../elsewhere.json", root() / "etc/docker/daemon.json");
  EXPECT_THAT(plan(Client::docker).refusals.at(0).why, HasSubstr("symbolic link"));
}

TEST_F(SetupApplyTest, KilledAnywhereTheNextApplyEndsIt) {
  lay_out();
  apply();
  const Tree full = tree();
  int steps = 0;
  for (bool done = false; !done; ++steps) {
    lay_out();
    const Tree before = tree();
    const Plan planned = plan();
    const SetupDisk broken = killed_at(steps);
    done = survives([&] { (void)apply_setup(broken, planned); });
    apply();
    EXPECT_EQ(without_record(tree()), without_record(full)) << "killed before step " << steps;
    undo();
    EXPECT_EQ(without_record(tree()), without_record(before)) << "killed before step " << steps;
    EXPECT_FALSE(exists("/var/lib/staithe-setup"));
  }
  EXPECT_GT(steps, 40);
}

TEST_F(SetupApplyTest, KilledAnywhereUndoTakesItBack) {
  for (int steps = 0;; ++steps) {
    lay_out();
    const Tree before = tree();
    const Plan planned = plan();
    const SetupDisk broken = killed_at(steps);
    const bool done = survives([&] { (void)apply_setup(broken, planned); });
    undo();
    EXPECT_EQ(tree(), before) << "killed before step " << steps;
    if (done) break;
  }
}

TEST_F(SetupApplyTest, ASecondApplyKilledAnywhereIsTakenBackToo) {
  Served few = usual_service();
  few.registries.resize(1);
  Served moved = usual_service();
  moved.address = "127.0.0.1:6060";
  for (int steps = 0;; ++steps) {
    lay_out();
    const Tree before = tree();
    apply(Client::containerd, few);
    const Plan planned = plan(Client::containerd, moved);
    const SetupDisk broken = killed_at(steps);
    const bool done = survives([&] { (void)apply_setup(broken, planned); });
    if (steps % 2 == 0) apply(Client::containerd, moved);
    undo();
    EXPECT_EQ(tree(), before) << "killed before step " << steps;
    if (done) break;
  }
}

TEST_F(SetupApplyTest, AnUndoKilledAnywhereIsEndedByEither) {
  for (int steps = 0;; ++steps) {
    lay_out();
    const Tree before = tree();
    apply();
    const Tree full = tree();
    const SetupDisk broken = killed_at(steps);
    const bool done = survives([&] { (void)undo_setup(broken, Client::containerd, false); });
    if (steps % 2 == 0) {
      apply();
      EXPECT_EQ(without_record(tree()), without_record(full)) << "killed before step " << steps;
    }
    undo();
    EXPECT_EQ(tree(), before) << "killed before step " << steps;
    if (done) break;
  }
}

// ---- any configuration that people may have -----------------------------------------------------

std::string some_of(Random& random, std::vector<std::string> parts, std::size_t keep_first = 0) {
  for (std::size_t i = parts.size(); i > keep_first + 1; --i)
    std::swap(parts[i - 1], parts[keep_first + random.next() % (i - keep_first)]);
  std::string text;
  for (std::size_t i = 0; i < parts.size(); ++i)
    if (i < keep_first || random.next() % 2 == 0) text += parts[i];
  if (random.next() % 5 == 0) {
    std::string crlf;
    for (const char c : text) crlf += c == '\n' ? std::string("\r\n") : std::string(1, c);
    text = crlf;
  }
  if (random.next() % 4 == 0 && text.ends_with('\n') && !text.ends_with("\r\n")) text.pop_back();
  return text;
}

TEST_F(SetupApplyTest, AnyConfigurationComesBackAsItWas) {
  SeededRandom random(2026);
  int applied_count = 0;
  for (int round = 0; round < 50; ++round) {
    clear();
    const std::string plugin =
        random.next() % 2 == 0 ? "\"io.containerd.grpc.v1.cri\"" : "'io.containerd.grpc.v1.cri'";
    if (random.next() % 4 != 0) {
      write(kConfig,
            some_of(random,
                    {"version = 2\n", "# ümläut\n\n", "[debug] # d\n  level = \"info\"\n",
                     "[plugins." + plugin + "]\n  sandbox_image = \"p:1\" # [x]\n",
                     "[plugins." + plugin + ".registry]\n  # here\n  config_path = \"\" # none\n",
                     "[plugins." + plugin + ".containerd]\n  snapshotter = \"overlayfs\"\n",
                     "[timeouts]\n  \"a.b\" = \"2s\"\n", "# [plugins]\n", "\n\n"},
                    1),
            random.next() % 2 == 0 ? 0600 : 0644);
    }
    if (random.next() % 2 == 0) {
      write("/etc/containerd/certs.d/docker.io/hosts.toml",
            some_of(random,
                    {"server = \"https://registry-1.docker.io\" # hub\n", "# note\n",
                     "[host.\"https://m.example\"]\n  capabilities = [\"pull\"]\n",
                     "\n[host.\"https://n.example\".header]\n  x = [\"a\", \"b\"]\n", "# end\n"},
                    1));
    }
    if (random.next() % 4 != 0) {
      write(kDocker, random.next() % 2 == 0
                         ? "{}"
                         : "{" + std::string(random.next() % 2 == 0 ? "\n\t" : " ") +
                               "\"labels\": [\"a,b]\", \"c\\\"}\"],\n \"registry-mirrors\" : [ "
                               "\"https://m\" ] , \"x\": {\"registry-mirrors\": null} }\n");
    }
    if (random.next() % 2 == 0) {
      write("/etc/containers/registries.conf.d/50-staithe.conf",
            some_of(random, {"# mine\n", "[[registry]]\nlocation = \"r.example\"\n# x\n"}));
    }
    if (random.next() % 2 == 0) {
      write("/etc/buildkit/buildkitd.toml",
            some_of(random, {"debug = true\n", "[worker.oci]\n  gc = true # g\n",
                             "[registry.\"docker.io\"]\n  mirrors = [\n    \"m\", # first\n  ]\n",
                             "[registry.\"quay.io\"]\n  http = false\n"}));
    }
    if (random.next() % 2 == 0) {
      write("/etc/rancher/k3s/registries.yaml",
            some_of(random,
                    {"# mine\n",
                     "mirrors:\n      r.example:\n        endpoint:\n          - \"https://m\"\n"
                     "      # last\n",
                     "configs:\n  r.example:\n    auth: {username: u}\n", "\n"}));
    }
    const Tree before = tree();
    for (const Client client :
         {Client::containerd, Client::docker, Client::podman, Client::buildkit, Client::k3s}) {
      const Plan planned = plan(client);
      if (!planned.refusals.empty()) continue;
      ++applied_count;
      apply(client);
      EXPECT_THAT(plan(client).changes, IsEmpty()) << to_string(client) << " round " << round;
      EXPECT_THAT(plan(client).refusals, IsEmpty()) << to_string(client) << " round " << round;
      const Tree once = tree();
      apply(client);
      EXPECT_EQ(tree(), once) << to_string(client) << " round " << round;
    }
    for (const Client client : all_clients) undo(client);
    ASSERT_EQ(tree(), before) << "round " << round;
  }
  // Most forms are edited, not refused.
  EXPECT_GT(applied_count, 200);
}

}  // namespace
}  // namespace staithe::daemon
