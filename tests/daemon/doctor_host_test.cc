#include "daemon/doctor_host.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <filesystem>
#include <fstream>
#include <string>

#include "daemon/doctor_disk.h"
#include "daemon/doctor_walk.h"

namespace staithe::daemon {
namespace {

using testing::HasSubstr;

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
