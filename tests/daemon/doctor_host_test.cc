#include "daemon/doctor_host.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>

#include "daemon/doctor_disk.h"
#include "daemon/doctor_walk.h"

namespace staithe::daemon {
namespace {

using testing::HasSubstr;

// A port of loopback that somebody listens on; what it says is `answer`, to one caller.
class Port {
 public:
  explicit Port(std::string answer) : fd_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    EXPECT_EQ(::bind(fd_, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
    EXPECT_EQ(::listen(fd_, 1), 0);
    socklen_t size = sizeof address;
    ::getsockname(fd_, reinterpret_cast<sockaddr*>(&address), &size);
    number_ = ntohs(address.sin_port);
    if (answer.empty()) return;
    thread_ = std::thread([this, answer = std::move(answer)] {
      const int client = ::accept(fd_, nullptr, nullptr);
      char question[4096];
      (void)!::recv(client, question, sizeof question, 0);
      (void)!::send(client, answer.data(), answer.size(), MSG_NOSIGNAL);
      ::close(client);
    });
  }
  ~Port() {
    if (thread_.joinable()) thread_.join();
    ::close(fd_);
  }
  Port(const Port&) = delete;
  Port& operator=(const Port&) = delete;
  unsigned number() const { return number_; }
  std::string address() const { return "127.0.0.1:" + std::to_string(number_); }

 private:
  int fd_;
  unsigned number_ = 0;
  std::thread thread_;
};

TEST(DoctorListener, IsStaithedByWhatItAnswers) {
  const Port ours("HTTP/1.1 200 OK\r\nCache-Status: staithe\r\nContent-Length: 2\r\n\r\n{}");
  const ListenerFinding answer = ask_listener(ours.address());
  EXPECT_TRUE(answer.is_staithed);
  EXPECT_EQ(answer.status, 200);
  EXPECT_EQ(listener_step(ours.address(), answer, true, "").state, StepState::ok);
  EXPECT_EQ(listener_step(ours.address(), answer, false, "").state, StepState::warning);
}

TEST(DoctorListener, OfAnotherProgramIsAFailureWithItsName) {
  for (const char* said : {"HTTP/1.0 501 Nothing\r\n\r\n", "SSH-2.0-OpenSSH_9.2\r\n"}) {
    const Port other(said);
    const ListenerFinding answer = ask_listener(other.address());
    EXPECT_FALSE(answer.is_staithed);
    const DoctorStep step = listener_step(other.address(), answer, false, "sshd (pid 7)");
    EXPECT_EQ(step.state, StepState::failed);
    EXPECT_THAT(step.finding, HasSubstr("sshd (pid 7)"));
    EXPECT_THAT(step.mend, HasSubstr("listen.registry"));
  }
}

TEST(DoctorListener, ThatNobodyHasIsATroubleOnlyIfStaithedRuns) {
  ListenerFinding refused{.error = ECONNREFUSED};
  EXPECT_EQ(listener_step("127.0.0.1:5050", refused, true, "").state, StepState::failed);
  EXPECT_EQ(listener_step("127.0.0.1:5050", refused, false, "").state, StepState::skipped);
  EXPECT_EQ(ask_listener("unix:/nonexistent.sock").error, ENOENT);
}

TEST(DoctorListener, ThatSaysNothingIsNotWaitedForLong) {
  const Port silent("");
  EXPECT_EQ(ask_listener(silent.address(), std::chrono::milliseconds(50)).error, ETIMEDOUT);
}

TEST(DoctorListener, WhoHasAPortIsFoundOut) {
  const Port ours("");
  EXPECT_THAT(who_listens("/", ours.number()),
              HasSubstr("(pid " + std::to_string(::getpid()) + ")"));
  EXPECT_EQ(who_listens("/nonexistent", ours.number()), "");
}

DoctorStep unit(const std::string& text) { return unit_step(parse_unit(text)); }

TEST(DoctorUnit, SaysWhyItDoesNotRun) {
  EXPECT_THAT(unit("LoadState=not-found\nActiveState=inactive\n").finding,
              HasSubstr("not installed"));
  EXPECT_THAT(unit("LoadState=loaded\nActiveState=inactive\n").mend,
              HasSubstr("systemctl enable --now staithed"));
  const DoctorStep failed =
      unit("LoadState=loaded\nActiveState=failed\nResult=exit-code\nExecMainStatus=2\n");
  EXPECT_THAT(failed.finding, HasSubstr("its configuration is bad"));
  EXPECT_THAT(failed.mend, HasSubstr("journalctl"));
  EXPECT_EQ(unit("LoadState=loaded\nActiveState=active\n").state, StepState::warning);
}

TEST(DoctorConfiguration, GivesEveryFaultAsAFinding) {
  const auto config =
      parse_config("[cache]\nmax_sise = 1\n[log]\nlevel = \"loud\"\n", "x.toml", Environment());
  const auto steps = configuration_steps("x.toml", config);
  ASSERT_EQ(steps.size(), 2u);
  for (const DoctorStep& step : steps) {
    EXPECT_EQ(step.state, StepState::failed);
    EXPECT_THAT(step.finding, testing::StartsWith("x.toml:"));
  }
}

DiskFacts facts(std::string filesystem) {
  return {
      .directory = "/var/cache/staithe",
      .filesystem = std::move(filesystem),
      .space = {.total_bytes = std::uint64_t{100} << 30, .free_bytes = std::uint64_t{50} << 30}};
}

TEST(DoctorDisk, IsJudgedByWhatItIsAndTakes) {
  DiskUse use{.max_bytes = std::uint64_t{40} << 30, .mode = "read-write"};
  EXPECT_EQ(disk_step(facts("ext4"), &use).state, StepState::ok);
  EXPECT_EQ(disk_step(facts("tmpfs"), &use).state, StepState::warning);
  EXPECT_EQ(disk_step(facts("overlay"), &use).state, StepState::warning);
  use.max_bytes = 1 << 20;
  EXPECT_THAT(disk_step(facts("ext4"), &use).mend, HasSubstr("cache.max_size"));
  use.mode = "pass-through";
  use.mode_reason = "no room";
  EXPECT_EQ(disk_step(facts("ext4"), &use).state, StepState::failed);
  DiskFacts refused = facts("ext4");
  refused.refused = "no space left on device";
  refused.refused_class = Errc::storage_full;
  EXPECT_THAT(disk_step(refused, nullptr).mend, HasSubstr("df -h"));
  refused.space.read_only = true;
  EXPECT_THAT(disk_step(refused, nullptr).mend, HasSubstr("remount,rw"));
}

TEST(DoctorDisk, IsTriedByWritingAndLeavesNothing) {
  std::string pattern = testing::TempDir() + "/disk_XXXXXX";
  const std::filesystem::path directory = mkdtemp(pattern.data());
  cache::PosixDisk disk;
  std::ofstream(directory / ".doctor") << "of one that was killed";
  EXPECT_EQ(examine_disk(disk, directory).refused, "");
  EXPECT_TRUE(std::filesystem::is_empty(directory));
  std::filesystem::remove_all(directory);
  EXPECT_NE(examine_disk(disk, directory).refused, "");
}

TEST(DoctorDisk, KnowsFileSystemsByTheirNumbers) {
  EXPECT_EQ(filesystem_name(0xef53), "ext4");
  EXPECT_EQ(filesystem_name(0x58465342), "xfs");
  EXPECT_EQ(filesystem_name(0x12), "0x12");
  EXPECT_NE(filesystem_of("/"), "");
}

TEST(DoctorClock, IsWrongFromFiveMinutesOn) {
  using namespace std::chrono_literals;
  EXPECT_EQ(clock_step(0s, "a").state, StepState::ok);
  EXPECT_EQ(clock_step(-59s, "a").state, StepState::ok);
  EXPECT_EQ(clock_step(90s, "a").state, StepState::warning);
  EXPECT_EQ(clock_step(-300s, "a").state, StepState::failed);
  EXPECT_THAT(clock_step(-300s, "a").finding, HasSubstr("behind a"));
  EXPECT_THAT(clock_step(3600s, "a").finding, HasSubstr("ahead of a"));
}

}  // namespace
}  // namespace staithe::daemon
