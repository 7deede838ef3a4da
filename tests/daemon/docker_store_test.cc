#include "daemon/docker_store.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <memory>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "daemon/child.h"

namespace staithe::daemon {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using testing::Pair;
using testing::StartsWith;

Server server(const std::string& text) { return {text, parse_server_url(text).value()}; }

Login login(const std::string& username, const std::string& secret) {
  return {username, proxy::auth::Secret(secret)};
}

std::string contents(const fs::path& path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), {}};
}

// Seals by base64 with the name before it, and writes down what it was called with.
constexpr const char* kFakeCreds = R"(#!/bin/sh
echo "$@" >> "$(dirname "$0")/calls"
[ -e "$(dirname "$0")/broken" ] && exit 1
case "$*" in *--name=staithe-docker*) ;; *) exit 2 ;; esac
case "$*" in
  *"encrypt - -") { echo sealed-for-this-machine; cat; } | base64 ;;
  *"decrypt - -") base64 -d > "$(dirname "$0")/plain" || exit 1
    read -r first < "$(dirname "$0")/plain"
    [ "$first" = sealed-for-this-machine ] || exit 1
    tail -n +2 "$(dirname "$0")/plain"; rm "$(dirname "$0")/plain" ;;
  *) exit 3 ;;
esac
)";

class Store : public testing::Test {
 protected:
  Store() {
    std::string pattern = testing::TempDir() + "/storeXXXXXX";
    root_ = mkdtemp(pattern.data());
    directory_ = root_ / "state" / "staithe";
    file_ = directory_ / "docker-logins";
  }
  ~Store() override { fs::remove_all(root_); }

  DockerStore store() { return {directory_, Sealer(sealer_, true), notes_}; }

  void install_sealer() {
    sealer_ = root_ / "systemd-creds";
    std::ofstream(sealer_) << kFakeCreds;
    fs::permissions(sealer_, fs::perms::owner_all);
  }
  void write_file(const std::string& text, mode_t mode = 0600) {
    fs::create_directories(directory_);
    chmod(directory_.c_str(), 0700);
    std::ofstream(file_) << text;
    chmod(file_.c_str(), mode);
  }
  // "username secret", or what went wrong.
  std::string get(const std::string& url) {
    const auto found = store().get(server(url));
    if (!found) return "error: " + found.error().detail;
    if (!*found) return "";
    return (*found)->username + " " + std::string((*found)->secret.reveal());
  }
  void put(const std::string& url, const std::string& username, const std::string& secret) {
    const auto done = store().put(server(url), login(username, secret));
    ASSERT_TRUE(done) << done.error().detail;
  }
  std::vector<std::string> files() const {
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(directory_)) {
      names.push_back(entry.path().filename());
    }
    std::ranges::sort(names);
    return names;
  }

  fs::path root_;
  fs::path directory_;
  fs::path file_;
  fs::path sealer_;
  std::ostringstream notes_;
};

TEST_F(Store, IsEmptyBeforeTheFirstLoginAndMakesNothing) {
  EXPECT_EQ(get("ghcr.io"), "");
  EXPECT_TRUE(store().erase(server("ghcr.io")));
  EXPECT_THAT(store().list().value(), IsEmpty());
  EXPECT_FALSE(fs::exists(root_ / "state"));
}

TEST_F(Store, GivesBackWhatItWasGivenForTheSameServerInAnyForm) {
  put("ghcr.io", "ann", "one");
  put("https://index.docker.io/v1/", "bob", "two \u00e9\n");
  EXPECT_EQ(get("https://ghcr.io/"), "ann one");
  EXPECT_EQ(get("GHCR.IO:443"), "ann one");
  EXPECT_EQ(get("docker.io"), "bob two \u00e9\n");
  EXPECT_EQ(get("quay.io"), "");
  put("ghcr.io", "ann", "three");
  EXPECT_EQ(get("ghcr.io"), "ann three");
  EXPECT_THAT(store().list().value(), ElementsAre(Pair("https://ghcr.io", "ann"),
                                                  Pair("https://index.docker.io/v1/", "bob")));
  EXPECT_TRUE(store().erase(server("https://ghcr.io")));
  EXPECT_EQ(get("ghcr.io"), "");
  EXPECT_EQ(get("docker.io"), "bob two \u00e9\n");
}

TEST_F(Store, AnswersForARepositoryWithTheServersLogin) {
  put("ghcr.io", "ann", "one");
  EXPECT_EQ(get("https://ghcr.io/team/app"), "ann one");
  put("https://ghcr.io/team/app", "ann", "for-app");
  EXPECT_EQ(get("https://ghcr.io/team/app"), "ann for-app");
  EXPECT_EQ(get("ghcr.io"), "ann one");
}

TEST_F(Store, KeepsDockersNotesBesideThePasswordOfDockerHub) {
  put("https://index.docker.io/v1/", "bob", "password");
  EXPECT_EQ(get("https://index.docker.io/v1/access-token"), "");
  put("https://index.docker.io/v1/access-token", "bob", "access");
  put("https://index.docker.io/v1/refresh-token", "bob", "refresh");
  EXPECT_EQ(get("https://index.docker.io/v1/"), "bob password");
  EXPECT_EQ(get("https://index.docker.io/v1/access-token"), "bob access");
  for (const auto& [url, username] : store().list().value()) EXPECT_NE(get(url), "") << url;
}

TEST_F(Store, IsPrivateAndWhole) {
  put("ghcr.io", "ann", "one");
  struct stat status{};
  ASSERT_EQ(stat(directory_.c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 07777, 0700u);
  ASSERT_EQ(stat(file_.c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 07777, 0600u);
  EXPECT_THAT(files(), ElementsAre("docker-logins", "docker-logins.lock"));
}

TEST_F(Store, RefusesWhatOthersMayRead) {
  put("ghcr.io", "ann", "one");
  chmod(file_.c_str(), 0644);
  EXPECT_THAT(get("ghcr.io"), HasSubstr("chmod 600 " + file_.native()));
  chmod(file_.c_str(), 0600);
  chmod(directory_.c_str(), 0755);
  EXPECT_THAT(get("ghcr.io"), HasSubstr("chmod 700 " + directory_.native()));
  EXPECT_FALSE(store().put(server("quay.io"), login("a", "b")));
  chmod(directory_.c_str(), 0700);
  EXPECT_EQ(get("ghcr.io"), "ann one");
}

TEST_F(Store, FollowsNoLink) {
  put("ghcr.io", "ann", "one");
  fs::rename(file_, root_ / "elsewhere");
  fs::create_symlink(root_ / "elsewhere", file_);
  EXPECT_THAT(get("ghcr.io"), HasSubstr("is a link"));
  EXPECT_FALSE(store().put(server("quay.io"), login("a", "b")));
  EXPECT_THAT(contents(root_ / "elsewhere"), HasSubstr("ann"));
  fs::remove(file_);
  fs::rename(directory_, root_ / "moved");
  fs::create_directory_symlink(root_ / "moved", directory_);
  EXPECT_THAT(get("ghcr.io"), HasSubstr("is a link"));
}

TEST_F(Store, RefusesAnotherUsersFile) {
  if (geteuid() != 0) GTEST_SKIP() << "only root can give a file away";
  put("ghcr.io", "ann", "one");
  ASSERT_EQ(chown(file_.c_str(), 12'345, 12'345), 0);
  EXPECT_THAT(get("ghcr.io"), HasSubstr("belongs to another user"));
}

TEST_F(Store, SetsADamagedFileAsideWithAllThatIsInIt) {
  const std::vector<std::string> damage{
      "",
      "{\"version\":1,\"logins\":{\"https://ghcr.io\"",
      "{}",
      R"({"version":1,"logins":[]})",
      R"({"version":1,"logins":{"https://ghcr.io":"x"}})",
      R"({"version":1,"logins":{"a":{"username":1,"secret":""}}})",
      "\x01\x02 binary",
      std::string(2 << 20, '{')};
  int n = 0;
  for (const std::string& text : damage) {
    write_file(text);
    const std::string name = file_.native() + ".damaged-" + std::to_string(++n);
    EXPECT_THAT(get("ghcr.io"), testing::AllOf(HasSubstr("cannot be used"), HasSubstr(name)));
    EXPECT_TRUE(contents(name) == text) << name;
    EXPECT_EQ(get("ghcr.io"), "") << "it is said once";
  }
  write_file("{");
  put("quay.io", "ann", "one");
  EXPECT_THAT(notes_.str(), HasSubstr(".damaged-" + std::to_string(n + 1)));
  EXPECT_EQ(get("quay.io"), "ann one");
}

TEST_F(Store, LeavesAFileOfANewerVersionAlone) {
  const std::string text = R"({"version":2,"logins":{}})";
  write_file(text);
  EXPECT_THAT(get("ghcr.io"), HasSubstr("newer staithe"));
  EXPECT_FALSE(store().put(server("quay.io"), login("a", "b")));
  EXPECT_EQ(contents(file_), text);
}

TEST_F(Store, LosesNothingWhenManyLogInAtOnce) {
  constexpr int most = 8;
  constexpr int each = 6;
  std::vector<std::thread> threads;
  for (int i = 0; i < most; ++i) {
    threads.emplace_back([this, i] {
      std::ostringstream notes;
      DockerStore mine(directory_, Sealer("", true), notes);
      for (int n = 0; n < each; ++n) {
        const std::string host = "r" + std::to_string(i) + "-" + std::to_string(n) + ".example";
        const auto done = mine.put(server(host), login("user", host));
        EXPECT_TRUE(done) << done.error().detail;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  const auto all = store().list();
  ASSERT_TRUE(all);
  EXPECT_EQ(all->size(), static_cast<std::size_t>(most * each));
}

// A process that dies while it writes leaves its half behind, under a name of no meaning.
TEST_F(Store, PassesOverWhatAKilledWriterLeft) {
  put("ghcr.io", "ann", "one");
  std::ofstream(directory_ / "docker-logins.new") << "{\"ver";
  EXPECT_EQ(get("ghcr.io"), "ann one");
  put("quay.io", "bob", "two");
  EXPECT_EQ(get("ghcr.io"), "ann one");
  EXPECT_EQ(get("quay.io"), "bob two");
  EXPECT_THAT(files(), ElementsAre("docker-logins", "docker-logins.lock"));
}

TEST_F(Store, KeepsTheOldFileIfTheNewOneCannotBeWritten) {
  put("ghcr.io", "ann", "one");
  fs::create_directory(directory_ / "docker-logins.new");
  std::ofstream(directory_ / "docker-logins.new" / "in-the-way") << "";
  const auto done = store().put(server("quay.io"), login("bob", "two"));
  ASSERT_FALSE(done);
  EXPECT_THAT(done.error().detail, HasSubstr("cannot be written"));
  EXPECT_EQ(get("ghcr.io"), "ann one");
}

TEST_F(Store, RefusesMoreThanItCanSeal) {
  const std::string big(60 << 10, 's');
  Result<void> done;
  for (int i = 0; i < 12 && done; ++i) {
    done = store().put(server("r" + std::to_string(i) + ".example"), login("user", big));
  }
  ASSERT_FALSE(done);
  EXPECT_THAT(done.error().detail, HasSubstr("512 KiB"));
  EXPECT_EQ(get("r0.example"), "user " + big);
}

TEST_F(Store, IsSealedWhereTheMachineCan) {
  install_sealer();
  put("ghcr.io", "ann", "topsecret");
  EXPECT_THAT(contents(file_), Not(HasSubstr("ann")));
  EXPECT_EQ(get("ghcr.io"), "ann topsecret");
  const std::string calls = contents(root_ / "calls");
  EXPECT_THAT(calls, Not(HasSubstr("topsecret"))) << "secrets go by stdin";
  EXPECT_THAT(calls, HasSubstr("--with-key=host encrypt - -"));
}

TEST_F(Store, IsPlainWhereTheMachineCannotSealAndSealedOnceItCan) {
  install_sealer();
  std::ofstream(root_ / "broken") << "";
  put("ghcr.io", "ann", "one");
  EXPECT_THAT(contents(file_), StartsWith("{"));
  EXPECT_EQ(get("ghcr.io"), "ann one");
  fs::remove(root_ / "broken");
  put("quay.io", "bob", "two");
  EXPECT_THAT(contents(file_), Not(StartsWith("{")));
  EXPECT_EQ(get("ghcr.io"), "ann one");
}

TEST_F(Store, WaitsForASealerThatIsBrokenAndLosesNothing) {
  install_sealer();
  put("ghcr.io", "ann", "one");
  const std::string sealed = contents(file_);
  std::ofstream(root_ / "broken") << "";
  EXPECT_THAT(get("ghcr.io"), HasSubstr("mend systemd-creds"));
  EXPECT_FALSE(store().put(server("quay.io"), login("a", "b")));
  EXPECT_EQ(contents(file_), sealed);
  sealer_.clear();
  EXPECT_THAT(get("ghcr.io"), HasSubstr("systemd-creds is not on this machine's PATH"));
  EXPECT_EQ(contents(file_), sealed);
}

TEST_F(Store, SetsAsideWhatWasSealedByAnotherMachine) {
  install_sealer();
  write_file("c29tZXRoaW5nIGVsc2UK\n");
  EXPECT_THAT(get("ghcr.io"), testing::AllOf(HasSubstr("cannot open it"), HasSubstr(".damaged-1")));
  EXPECT_EQ(contents(file_.native() + ".damaged-1"), "c29tZXRoaW5nIGVsc2UK\n");
}

TEST_F(Store, IsSealedByTheRealSystemdCreds) {
  const fs::path real = find_program("systemd-creds", "/usr/bin:/bin");
  // A key of the test's own, so that none is left on the machine.
  setenv("SYSTEMD_CREDENTIAL_SECRET", (root_ / "key").lexically_normal().c_str(), 1);
  const bool works = !real.empty() && Sealer(real, geteuid() == 0).works();
  if (works) {
    sealer_ = real;
    put("ghcr.io", "ann", "topsecret");
    EXPECT_THAT(contents(file_), Not(HasSubstr("ann")));
    EXPECT_THAT(contents(file_), Not(StartsWith("{")));
    EXPECT_EQ(get("ghcr.io"), "ann topsecret");
  }
  unsetenv("SYSTEMD_CREDENTIAL_SECRET");
  if (!works) GTEST_SKIP() << "this machine's systemd-creds cannot seal";
}

class Child : public Store {
 protected:
  fs::path script(const std::string& text) {
    const fs::path path = root_ / "script";
    std::ofstream(path) << "#!/bin/sh\n" << text << "\n";
    fs::permissions(path, fs::perms::owner_all);
    return path;
  }
};

TEST_F(Child, GetsItsInputAndGivesItsOutputAndStatus) {
  const std::string input(300'000, 'x');
  auto result = run_child({.program = script("wc -c; exit 7"), .arguments = {}, .input = input});
  ASSERT_TRUE(result) << result.error().detail;
  EXPECT_EQ(result->status, 7);
  EXPECT_THAT(result->output, HasSubstr("300000"));
}

TEST_F(Child, GetsItsArgumentsAsTheyAreAndNotTheVariable) {
  setenv("STAITHE_TEST_VARIABLE", "there", 1);
  auto result = run_child({.program = script("echo \"$1,$2,$STAITHE_TEST_VARIABLE\""),
                           .arguments = {"a b; $(id)", "*"},
                           .input = "",
                           .without_variable = "STAITHE_TEST_VARIABLE"});
  unsetenv("STAITHE_TEST_VARIABLE");
  ASSERT_TRUE(result);
  EXPECT_EQ(result->output, "a b; $(id),*,\n");
}

TEST_F(Child, IsEndedWhenItTakesTooLongOrSaysTooMuch) {
  auto result = run_child({.program = script("exec sleep 60"),
                           .arguments = {},
                           .input = "",
                           .timeout = std::chrono::milliseconds(50)});
  ASSERT_FALSE(result);
  EXPECT_THAT(result.error().detail, HasSubstr("took longer"));
  // Its output is closed; it runs on all the same.
  result = run_child({.program = script("exec sleep 60 >&-"),
                      .arguments = {},
                      .input = "",
                      .timeout = std::chrono::milliseconds(200)});
  ASSERT_FALSE(result);
  EXPECT_THAT(result.error().detail, HasSubstr("took longer"));
  result = run_child(
      {.program = script("exec yes"), .arguments = {}, .input = "", .most_bytes = 10'000});
  ASSERT_FALSE(result);
  EXPECT_THAT(result.error().detail, HasSubstr("wrote more"));
}

TEST_F(Child, ThatIsKilledHasTheShellsStatus) {
  const auto result = run_child({.program = script("kill -9 $$"), .arguments = {}, .input = ""});
  ASSERT_TRUE(result);
  EXPECT_EQ(result->status, 137);
}

TEST_F(Child, IsFoundOnlyInAbsoluteDirectories) {
  script("");
  EXPECT_EQ(find_program("script", "relative:" + root_.native()), root_ / "script");
  EXPECT_EQ(find_program("script", ".::" + root_.native() + "/none"), "");
  EXPECT_EQ(find_program("state", root_.native()), "");
  EXPECT_EQ(find_program("script", ""), "");
  EXPECT_FALSE(run_child({.program = root_ / "none", .arguments = {}, .input = ""}));
}

}  // namespace
}  // namespace staithe::daemon
