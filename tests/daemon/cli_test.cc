#include "daemon/cli.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <algorithm>
#include <atomic>
#include <boost/json/parse.hpp>
#include <chrono>
#include <condition_variable>
#include <filesystem>
#include <functional>
#include <mutex>
#include <ostream>
#include <sstream>
#include <streambuf>
#include <string>
#include <thread>
#include <vector>

#include "daemon/control_client.h"
#include "tests/fake/control_daemon.h"

namespace staithe::daemon {
namespace {

using namespace std::chrono_literals;
using testing::EndsWith;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using testing::StartsWith;

using fake::answer;

// What a command writes, for another thread to wait for.
class Written final : public std::streambuf {
 public:
  std::string text() const {
    const std::scoped_lock lock(mutex_);
    return text_;
  }
  void clear() {
    const std::scoped_lock lock(mutex_);
    text_.clear();
  }
  // False if it does not come about.
  bool wait_until(const std::function<bool(const std::string& text)>& condition) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, 60s, [&] { return condition(text_); });
  }

 private:
  std::streamsize xsputn(const char* bytes, std::streamsize size) override {
    const std::scoped_lock lock(mutex_);
    text_.append(bytes, static_cast<std::size_t>(size));
    changed_.notify_all();
    return size;
  }
  int_type overflow(int_type c) override {
    if (c == traits_type::eof()) return traits_type::not_eof(c);
    const char byte = traits_type::to_char_type(c);
    xsputn(&byte, 1);
    return c;
  }

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::string text_;
};

class FakeDaemon : public testing::Test, protected fake::ControlDaemon {
 protected:
  struct Outcome {
    int status;
    std::string out;
    std::string err;
  };
  Outcome run(std::vector<std::string> arguments, Environment environment = {}) {
    arguments.insert(arguments.begin(), "staithe");
    std::vector<const char*> argv;
    for (const std::string& argument : arguments) argv.push_back(argument.c_str());
    written_.clear();
    std::ostream out(&written_);
    std::ostringstream err;
    const int status =
        run_cli(static_cast<int>(argv.size()), argv.data(), {out, err, environment, Terminal{}});
    return {status, written_.text(), err.str()};
  }
  Outcome run_here(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), {"--socket", socket_});
    return run(std::move(arguments));
  }

  Written written_;  // by the command that runs
};

constexpr const char* kStatus = R"({"version":"9.9.9","pid":7,"state":"ready","registries":[]})";

TEST_F(FakeDaemon, StatusIsAskedForInOneHttpRequestAndShown) {
  std::string head;
  serve([&](const std::string& request) {
    head = request;
    return answer(kStatus);
  });
  const Outcome outcome = run_here({"status"});
  EXPECT_EQ(outcome.status, kExitOk);
  EXPECT_THAT(outcome.out, StartsWith("staithed 9.9.9  ready  pid 7"));
  EXPECT_THAT(outcome.err, IsEmpty());
  stop();
  EXPECT_THAT(head, StartsWith("GET /v1/status HTTP/1.1\r\nHost: localhost\r\n"));
  EXPECT_THAT(head, EndsWith("\r\n\r\n"));
}

TEST_F(FakeDaemon, StatusInJsonIsOneLineOfWhatTheDaemonSaid) {
  serve(answer("{\"a\":\"\\u001b[31m\\u009b\",\n\"b\":[1,2]}"));
  const Outcome outcome = run_here({"status", "--json"});
  EXPECT_EQ(outcome.status, kExitOk);
  EXPECT_EQ(outcome.out.find('\n'), outcome.out.size() - 1);
  EXPECT_THAT(outcome.out, Not(HasSubstr("\x1b")));
  EXPECT_EQ(boost::json::parse(outcome.out).at("a").as_string(), "\x1b[31m\u009b");
}

TEST_F(FakeDaemon, ConfigIsShownAsTomlOrJson) {
  serve([](const std::string& head) {
    EXPECT_THAT(head, StartsWith("GET /v1/config "));
    return answer(
        R"({"toml":"[cache]\nmax_size = \"80%\"\n","json":{"cache":{"max_size":"80%"}}})");
  });
  EXPECT_EQ(run_here({"config"}).out, "[cache]\nmax_size = \"80%\"\n");
  EXPECT_EQ(run_here({"config", "--json"}).out, "{\"cache\":{\"max_size\":\"80%\"}}\n");
}

TEST_F(FakeDaemon, ConfigThatIsNotOneIsAFailure) {
  serve(answer("{}"));
  EXPECT_EQ(run_here({"config"}).status, kExitFailed);
  EXPECT_THAT(run_here({"config", "--json"}).err, HasSubstr("different versions"));
}

TEST_F(FakeDaemon, VersionIsKnownWithAndWithoutADaemon) {
  EXPECT_EQ(run_here({"version"}).out, "staithe " STAITHE_VERSION "\nstaithed not reachable\n");
  EXPECT_EQ(run_here({"version"}).status, kExitOk);
  EXPECT_EQ(run_here({"version", "--json"}).out,
            "{\"staithe\":\"" STAITHE_VERSION "\",\"staithed\":null}\n");
  serve(answer(kStatus));
  EXPECT_EQ(run_here({"version"}).out, "staithe " STAITHE_VERSION "\nstaithed 9.9.9\n");
  EXPECT_EQ(run({"--version"}).out, "staithe " STAITHE_VERSION "\n");
}

TEST_F(FakeDaemon, ThatIsNotThereIsSaidInOneSentenceWithItsRemedy) {
  for (const char* command : {"status", "config"}) {
    const Outcome outcome = run_here({command});
    EXPECT_EQ(outcome.status, kExitUnreachable);
    EXPECT_THAT(outcome.out, IsEmpty());
    EXPECT_THAT(outcome.err, HasSubstr("staithed does not listen on " + socket_.native() +
                                       ": start it (systemctl start staithed)"));
    EXPECT_EQ(outcome.err.find('\n'), outcome.err.size() - 1);
  }
  EXPECT_EQ(run_here({"status", "--watch"}).status, kExitUnreachable);
  EXPECT_EQ(run_here({"status", "--json"}).out, "");
}

TEST_F(FakeDaemon, ThatHasGoneLeavesASocketThatRefuses) {
  serve(answer(kStatus));
  stop();
  const Outcome outcome = run_here({"status"});
  EXPECT_EQ(outcome.status, kExitUnreachable);
  EXPECT_THAT(outcome.err, HasSubstr("nobody listens"));
}

TEST_F(FakeDaemon, ThatTalksNonsenseIsUnreachable) {
  const std::vector<std::string> nonsense{"",
                                          "SSH-2.0-OpenSSH_9.2\r\n",
                                          "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{}",
                                          "HTTP/1.1 200 OK\r\n",
                                          answer("not json"),
                                          answer("{\"a\":"),
                                          answer(std::string(5000, '[')),
                                          "HTTP/1.1 200 OK\r\nX: " + std::string(20'000, 'x')};
  std::size_t turn = 0;
  serve([&](const std::string&) { return nonsense.at(turn++); });
  for (const std::string& text : nonsense) {
    const Outcome outcome = run_here({"status"});
    EXPECT_EQ(outcome.status, kExitUnreachable) << text.substr(0, 50);
    EXPECT_THAT(outcome.err, HasSubstr("check --socket")) << text.substr(0, 50);
    EXPECT_EQ(outcome.err.find('\n'), outcome.err.size() - 1);
  }
}

TEST_F(FakeDaemon, ThatAnswersTooMuchIsNotReadToItsEnd) {
  serve("HTTP/1.1 200 OK\r\nContent-Length: " + std::to_string(kMaxControlAnswerBytes + 1) +
        "\r\n\r\n");
  EXPECT_EQ(run_here({"status"}).status, kExitUnreachable);
}

TEST_F(FakeDaemon, ThatIsSilentCostsTheTimeoutAndNoMore) {
  std::atomic<bool> done = false;
  serve([&](const std::string&) {
    while (!done) std::this_thread::sleep_for(1ms);
    return std::string();
  });
  const auto result = control_get(socket_, "/v1/status", 50ms);  // It would answer later only.
  done = true;
  stop();  // while `done` is there
  ASSERT_FALSE(result);
  EXPECT_TRUE(result.error().unreachable);
  EXPECT_THAT(result.error().message, HasSubstr("does not answer"));
}

TEST_F(FakeDaemon, ThatRefusesIsAFailureWithItsMessage) {
  const std::vector<std::pair<std::string, std::string>> cases{
      {answer(R"({"error":"not for you"})", "403 Forbidden"), "not for you"},
      {answer(R"({"message":"not\u001b[31m now"})", "503 Busy"), "not\\x1b[31m now"},
      {answer(R"({"errors":[{"code":"DENIED","message":"no"}]})", "403 No"), "no"},
      {answer("<html>", "500 Broken"), "staithed answered 500"},
      {answer("", "404 Not Found"), "staithed answered 404"}};
  std::size_t turn = 0;
  serve([&](const std::string&) { return cases.at(turn++).first; });
  for (const auto& [text, message] : cases) {
    const Outcome outcome = run_here({"status"});
    EXPECT_EQ(outcome.status, kExitFailed);
    EXPECT_EQ(outcome.err, "staithe: " + message + "\n");
  }
}

TEST_F(FakeDaemon, IsWatchedUntilTheUserInterrupts) {
  serve(answer(kStatus));
  std::thread interrupter([this, watcher = pthread_self()] {
    EXPECT_TRUE(written_.wait_until(
        [](const std::string& text) { return std::ranges::count(text, '\n') >= 2; }));
    pthread_kill(watcher, SIGINT);
  });
  const Outcome outcome = run_here({"status", "--watch", "--json"});
  interrupter.join();
  EXPECT_EQ(outcome.status, kExitOk);
  EXPECT_GE(std::ranges::count(outcome.out, '\n'), 2);
}

TEST_F(FakeDaemon, ThatGoesAwayWhileItIsWatchedIsSaidAndWatchedFor) {
  std::thread interrupter([this, watcher = pthread_self()] {
    const auto shows = [](const char* what) {
      return [what](const std::string& text) { return text.find(what) != text.npos; };
    };
    EXPECT_TRUE(written_.wait_until(shows("staithed 9.9.9")));
    stop();
    EXPECT_TRUE(written_.wait_until(shows("nobody listens")));
    pthread_kill(watcher, SIGTERM);
  });
  serve(answer(kStatus));
  const Outcome outcome = run_here({"status", "--watch"});
  interrupter.join();
  EXPECT_EQ(outcome.status, kExitOk);
  EXPECT_THAT(outcome.out, HasSubstr("staithed 9.9.9"));
  EXPECT_THAT(outcome.out, HasSubstr("nobody listens"));
}

TEST_F(FakeDaemon, IsFoundByOptionThenEnvironmentThenDefault) {
  serve(answer(kStatus));
  const Environment environment{{{"STAITHE_SOCKET", socket_}}, 0, {}};
  EXPECT_EQ(run({"status"}, environment).status, kExitOk);
  EXPECT_EQ(run({"--socket", directory_ / "other", "status"}, environment).status,
            kExitUnreachable);
  EXPECT_EQ(run({"status", "--socket", directory_ / "other"}, environment).status,
            kExitUnreachable);
  EXPECT_EQ(control_socket_of({{}, 0, {}}), "/run/staithe/control.sock");
  EXPECT_EQ(run({"--socket", "/" + std::string(200, 'x'), "status"}).status, kExitUnreachable);
}

TEST_F(FakeDaemon, IsNotAskedWhenTheUsageIsWrong) {
  serve(answer(kStatus));
  const std::vector<std::pair<std::vector<std::string>, std::string>> cases{
      {{}, "a command is missing"},
      {{"statsu"}, "there is no command \"statsu\"; did you mean \"status\"?"},
      {{"frobnicate"}, "there is no command \"frobnicate\""},
      {{"\x1b[31m"}, "\\x1b[31m"},
      {{"status", "now"}, "not expected: now"},
      {{"status", "--wach"}, "--wach"},
      {{"config", "--watch"}, "--watch"},
      {{"status", "version"}, "version"},
      {{"--socket"}, "--socket"}};
  for (const auto& [arguments, what] : cases) {
    const Outcome outcome = run(arguments, {{{"STAITHE_SOCKET", socket_}}, 0, {}});
    EXPECT_EQ(outcome.status, kExitBadUsage) << what;
    EXPECT_THAT(outcome.out, IsEmpty());
    EXPECT_THAT(outcome.err, HasSubstr(what));
    EXPECT_EQ(outcome.err.find('\n'), outcome.err.size() - 1) << outcome.err;
  }
  EXPECT_EQ(requests_, 0);
}

TEST(Cli, HelpListsTheCommandsThatThereAre) {
  std::ostringstream out;
  std::ostringstream err;
  const char* argv[] = {"staithe", "--help"};
  EXPECT_EQ(run_cli(2, argv, {out, err, Environment{}, Terminal{}}), kExitOk);
  for (const char* text : {"status", "config", "version", "token", "pull-secret", "renew", "login",
                           "logout", "ls", "pin", "unpin", "purge", "warm", "explain", "doctor",
                           "setup", "completion", "--socket", "$STAITHE_SOCKET"}) {
    EXPECT_THAT(out.str(), HasSubstr(text));
  }
}

TEST(Cli, FailsIfItsOutputCannotBeWritten) {
  std::ostringstream out;
  out.setstate(std::ios::badbit);
  std::ostringstream err;
  const char* argv[] = {"staithe", "--help"};
  EXPECT_EQ(run_cli(2, argv, {out, err, Environment{}, Terminal{}}), kExitFailed);
}

}  // namespace
}  // namespace staithe::daemon
