#include "proxy/auth/programs.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <thread>

#include "cache/error.h"

namespace staithe::proxy::auth {
namespace {

namespace fs = std::filesystem;
using namespace std::chrono_literals;

// Real scripts in a directory of the PATH.
class RealPrograms : public testing::Test {
 protected:
  RealPrograms() {
    std::string pattern = testing::TempDir() + "/programs_testXXXXXX";
    directory = mkdtemp(pattern.data());
    const char* path = ::getenv("PATH");
    path_before = path ? path : "";
    ::setenv("PATH", (directory.string() + ":" + path_before).c_str(), 1);
    // As it is without a daemon that ignores it.
    std::signal(SIGPIPE, SIG_DFL);
  }
  ~RealPrograms() override {
    ::setenv("PATH", path_before.c_str(), 1);
    fs::remove_all(directory);
  }
  void script(const std::string& name, const std::string& text) const {
    const fs::path path = directory / name;
    std::ofstream(path) << "#!/bin/sh\n" << text << "\n";
    ASSERT_EQ(::chmod(path.c_str(), 0755), 0);
  }
  // Runs `text` as the program "helper".
  Result<ProgramResult> run_script(const std::string& text, ProgramRun run = {}) {
    script("helper", text);
    run.program = "helper";
    return run_now(std::move(run));
  }
  Result<ProgramResult> run_now(ProgramRun run) {
    asio::io_context io;
    begin(io, std::move(run));
    io.run();
    return std::move(result);
  }
  void begin(asio::io_context& io, ProgramRun run) {
    asio::co_spawn(io, programs->run(std::move(run)),
                   [this](const std::exception_ptr& error, ProgramResult done) {
                     try {
                       if (error) std::rethrow_exception(error);
                       result = std::move(done);
                     } catch (const Failure& failure) {
                       result = std::unexpected(failure.error());
                     }
                   });
  }
  std::string output(const std::string& text, ProgramRun run = {}) {
    const auto done = run_script(text, std::move(run));
    if (!done) return "error: " + done.error().detail;
    EXPECT_EQ(done->exit_status, 0) << done->errors;
    return std::string(done->output.reveal());
  }
  // A pipe with a name, which says "gone" when every process that held its other end has ended.
  fs::path make_fifo() const {
    const fs::path path = directory / "fifo";
    EXPECT_EQ(::mkfifo(path.c_str(), 0600), 0);
    return path;
  }
  static bool all_gone(int fd) {
    pollfd waiting{.fd = fd, .events = 0, .revents = 0};
    return ::poll(&waiting, 1, 10'000) == 1 && (waiting.revents & POLLHUP) != 0;
  }

  fs::path directory;
  std::string path_before;
  std::unique_ptr<PosixPrograms> programs = std::make_unique<PosixPrograms>();
  Result<ProgramResult> result = fail(Errc::in_use, "the call waits");
};

TEST_F(RealPrograms, AreGivenTheirInputAndArguments) {
  ProgramRun run;
  run.arguments = {"get", "a b", "$HOME", ""};
  run.input = "contoso.azurecr.io";
  EXPECT_EQ(output(R"(printf '%s|' "$#" "$@"; cat)", run), "4|get|a b|$HOME||contoso.azurecr.io");
}

TEST_F(RealPrograms, WithoutInputReadItsEndAtOnce) { EXPECT_EQ(output("cat; echo end"), "end\n"); }

TEST_F(RealPrograms, TellTheirExitStatusAndWhatTheySaid) {
  const auto done = run_script("echo out; echo why >&2; exit 3");
  ASSERT_TRUE(done) << done.error().detail;
  EXPECT_EQ(done->exit_status, 3);
  EXPECT_EQ(done->output.reveal(), "out\n");
  EXPECT_EQ(done->errors, "why\n");
  EXPECT_EQ(run_script("kill -9 $$")->exit_status, 128 + 9);
  // Complaints without end are cut, and nobody waits for who reads them.
  const auto loud = run_script("head -c 100000 /dev/zero >&2; echo out");
  EXPECT_EQ(loud->errors.size(), 2048U);
  EXPECT_EQ(loud->output.reveal(), "out\n");
}

TEST_F(RealPrograms, ThatAreMissingAreNamedWithARemedy) {
  for (const std::string program : {"docker-credential-no-such", "docker-credential-a\nb"}) {
    ProgramRun run;
    run.program = program;
    const auto done = run_now(run);
    ASSERT_FALSE(done);
    EXPECT_EQ(done.error().code, Errc::identity_missing);
    EXPECT_TRUE(done.error().detail.ends_with(
        "cannot be started: No such file or directory; install it where the PATH of staithed finds "
        "it"))
        << done.error().detail;
    EXPECT_FALSE(done.error().detail.contains('\n'));
  }
}

TEST_F(RealPrograms, AreNamesAndNoPaths) {
  script("helper", "echo ran");
  for (const std::string& program :
       {std::string(), (directory / "helper").string(), std::string("./helper"),
        std::string("docker-credential-x/../../helper")}) {
    ProgramRun run;
    run.program = program;
    const auto done = run_now(run);
    ASSERT_FALSE(done) << program;
    EXPECT_EQ(done.error().code, Errc::identity_missing);
  }
}

TEST_F(RealPrograms, MayTakeAndGiveMoreThanAPipeHolds) {
  ProgramRun run;
  run.input = std::string(300'000, 'x');
  run.max_output_bytes = 400'000;
  EXPECT_EQ(output("cat", run), run.input);
}

TEST_F(RealPrograms, ThatSayTooMuchAreEnded) {
  ProgramRun run;
  run.max_output_bytes = 1000;
  EXPECT_EQ(output("head -c 1000 /dev/zero", run).size(), 1000U);
  const auto done = run_script("exec yes", run);
  ASSERT_FALSE(done);
  EXPECT_EQ(done.error().code, Errc::upstream_nonsense);
  EXPECT_EQ(done.error().detail, "the program helper says more than 1000 bytes");
}

// The reader's end of the input closes first: neither a signal nor an error.
TEST_F(RealPrograms, NeedNotReadTheirInput) {
  ProgramRun run;
  run.input = std::string(300'000, 'x');
  EXPECT_EQ(output("exec <&-; echo fine", run), "fine\n");
  EXPECT_EQ(output("head -c 1; echo fine", run), "xfine\n");
}

TEST_F(RealPrograms, AreEndedAtTheirLimitWithAllTheyStarted) {
  const fs::path fifo = make_fifo();
  const int fd = ::open(fifo.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC);
  ASSERT_GE(fd, 0);
  ProgramRun run;
  run.limit = 1500ms;
  // It ignores what it may ignore, and its child holds the output open.
  const auto done = run_script(
      "trap '' TERM INT HUP; exec 9>" + fifo.string() + "; echo started >&9; sleep 1000 & wait",
      run);
  ASSERT_FALSE(done);
  EXPECT_EQ(done.error().code, Errc::unreachable);
  EXPECT_EQ(done.error().detail, "the program helper took longer than 1 s and was ended");
  char piece[16];
  EXPECT_EQ(::read(fd, piece, sizeof piece), 8) << "it did not come to run in time";
  EXPECT_TRUE(all_gone(fd));
  ::close(fd);
}

TEST_F(RealPrograms, AreEndedAtTheirLimitAlsoIfTheySayNothingAndClosedEverything) {
  ProgramRun run;
  run.limit = 200ms;
  const auto done = run_script("exec <&- >&- 2>&-; exec sleep 1000", run);
  ASSERT_FALSE(done);
  EXPECT_EQ(done.error().code, Errc::unreachable);
}

// Nobody waits a minute for a helper when the daemon stops.
TEST_F(RealPrograms, AreEndedWithTheirOwner) {
  const fs::path fifo = make_fifo();
  for (const std::string quiet : {"", "exec <&- >&- 2>&-; "}) {
    script("helper", quiet + "exec 9>" + fifo.string() + "; echo started >&9; sleep 1000 & wait");
    asio::io_context io;
    ProgramRun run;
    run.program = "helper";
    begin(io, run);
    std::thread loop([&] { io.run(); });
    const int fd = ::open(fifo.c_str(), O_RDONLY | O_CLOEXEC);  // Waits for the script.
    char piece[16];
    EXPECT_EQ(::read(fd, piece, sizeof piece), 8);
    programs.reset();
    loop.join();
    ASSERT_FALSE(result);
    EXPECT_EQ(result.error().code, Errc::cancelled);
    EXPECT_TRUE(all_gone(fd));
    ::close(fd);
    programs = std::make_unique<PosixPrograms>();
  }
}

TEST_F(RealPrograms, AreEndedByAWordAndNotBegunAfterIt) {
  const fs::path fifo = make_fifo();
  script("helper", "exec 9>" + fifo.string() + "; echo started >&9; sleep 1000");
  asio::io_context io;
  ProgramRun run;
  run.program = "helper";
  begin(io, run);
  std::thread loop([&] { io.run(); });
  const int fd = ::open(fifo.c_str(), O_RDONLY | O_CLOEXEC);  // Waits for the script.
  char piece[16];
  EXPECT_EQ(::read(fd, piece, sizeof piece), 8);
  programs->stop();
  loop.join();
  EXPECT_EQ(result.error().code, Errc::cancelled);
  EXPECT_TRUE(all_gone(fd));
  ::close(fd);
  EXPECT_EQ(run_script("sleep 1000").error().code, Errc::cancelled);
}

TEST_F(RealPrograms, DoNotSeeWhatOthersHaveToldUsAlone) {
  const char* const secrets[] = {"NOTIFY_SOCKET",         "LISTEN_FDS",   "LISTEN_PID",
                                 "LISTEN_FDNAMES",        "WATCHDOG_PID", "WATCHDOG_USEC",
                                 "CREDENTIALS_DIRECTORY", "MSI_SECRET",   "IDENTITY_HEADER"};
  for (const char* name : secrets) ::setenv(name, "kept-back", 1);
  ::setenv("STAITHE_TEST_AWS_PROFILE", "given-on", 1);
  const std::string all = output("env");
  EXPECT_TRUE(all.contains("given-on"));
  EXPECT_TRUE(all.contains("PATH="));
  EXPECT_FALSE(all.contains("kept-back")) << all;
  for (const char* name : secrets) ::unsetenv(name);
  ::unsetenv("STAITHE_TEST_AWS_PROFILE");
}

TEST_F(RealPrograms, InheritNoDescriptorOfOurs) {
  const int fd = ::fcntl(STDERR_FILENO, F_DUPFD, 100);  // Without close-on-exec.
  ASSERT_GE(fd, 100);
  const std::string open = output("ls /proc/self/fd");
  ::close(fd);
  EXPECT_EQ(open, "0\n1\n2\n3\n");  // The last one is the directory itself.
}

TEST_F(RealPrograms, HaveTheSignalsOfAFreshProcess) {
  std::signal(SIGPIPE, SIG_IGN);
  // Of the last one the lowest 16: two of the C library's own are ignored by some shells.
  const std::string signals =
      output("grep -E '^Sig(Blk|Ign)' /proc/self/status | cut -f 2 | cut -c 13-");
  std::signal(SIGPIPE, SIG_DFL);
  EXPECT_EQ(signals, "0000\n0000\n");
}

}  // namespace
}  // namespace staithe::proxy::auth
