#include "daemon/loopback.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <string>

namespace staithe::daemon {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

class LoopbackTest : public testing::Test {
 protected:
  LoopbackTest() {
    std::string pattern = testing::TempDir() + "/loopback_XXXXXX";
    proc_ = ::mkdtemp(pattern.data());
  }
  ~LoopbackTest() override { std::filesystem::remove_all(proc_); }

  void set(const std::string& interface, const std::string& value) {
    const auto directory = proc_ / "sys/net/ipv4/conf" / interface;
    std::filesystem::create_directories(directory);
    std::ofstream(directory / "route_localnet") << value;
  }

  std::filesystem::path proc_;
};

TEST_F(LoopbackTest, IsNotRoutedByDefault) {
  EXPECT_THAT(loopback_routes(proc_), IsEmpty()) << "as in the shipped unit";
  for (const char* const interface : {"all", "default", "lo", "eth0"}) set(interface, "0\n");
  EXPECT_THAT(loopback_routes(proc_), IsEmpty());
  EXPECT_FALSE(loopback_step({}));
}

TEST_F(LoopbackTest, IsRoutedWhereOneInterfaceOrAllDoSo) {
  set("lo", "1\n");  // without a meaning there
  set("eth0", "1\n");
  set("eth1", "0\n");
  set("broken", "");
  EXPECT_THAT(loopback_routes(proc_), ElementsAre("eth0"));
  set("all", "1\n");
  EXPECT_THAT(loopback_routes(proc_), ElementsAre("all", "eth0"));
}

TEST_F(LoopbackTest, IsAWarningWithARemedyThatNamesTheInterfaces) {
  const auto step = loopback_step({"all", "eth0"});
  ASSERT_TRUE(step);
  EXPECT_EQ(step->state, StepState::warning);
  EXPECT_EQ(step->subject, "all, eth0");
  EXPECT_THAT(step->mend, HasSubstr("route_localnet=0"));
  std::vector<std::string> many;
  for (int i = 0; i < 300; ++i) many.push_back("veth" + std::to_string(i) + "\n");
  EXPECT_THAT(loopback_step(many)->subject, testing::EndsWith(" and 295 more"));
  EXPECT_THAT(loopback_step(many)->subject, testing::Not(HasSubstr("\n")));
}

}  // namespace
}  // namespace staithe::daemon
