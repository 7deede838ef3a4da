#include "daemon/cgroup.h"

#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fstream>
#include <string>

#include "proxy/peer.h"

namespace staithe::daemon {
namespace {

std::uint64_t inode_of(const std::filesystem::path& path) {
  struct stat status{};
  EXPECT_EQ(::stat(path.c_str(), &status), 0) << path;
  return status.st_ino;
}

class CgroupTest : public testing::Test {
 protected:
  CgroupTest() {
    std::string pattern = testing::TempDir() + "/cgroup_XXXXXX";
    root_ = ::mkdtemp(pattern.data());
  }
  ~CgroupTest() override { std::filesystem::remove_all(root_); }

  std::filesystem::path root_;
};

TEST_F(CgroupTest, IsFoundByTheInodeOfItsDirectory) {
  std::filesystem::create_directories(root_ / "system.slice/nomad.service");
  std::filesystem::create_directories(root_ / "user.slice/user-1000.slice/session-2.scope");
  std::ofstream(root_ / "cgroup.procs") << "1\n";
  for (const char* const path : {"/system.slice", "/system.slice/nomad.service",
                                 "/user.slice/user-1000.slice/session-2.scope"})
    EXPECT_EQ(cgroup_path(root_, inode_of(root_.string() + path)), path);
  EXPECT_EQ(cgroup_path(root_, inode_of(root_)), "/");
}

TEST_F(CgroupTest, IsNothingWhereThereIsNone) {
  std::ofstream(root_ / "cgroup.procs") << "1\n";
  EXPECT_EQ(cgroup_path(root_, inode_of(root_ / "cgroup.procs")), "") << "a file is no cgroup";
  EXPECT_EQ(cgroup_path(root_, 0), "");
  EXPECT_EQ(cgroup_path(root_ / "absent", 1), "");
}

TEST_F(CgroupTest, IsNotFoundThroughALink) {
  std::filesystem::create_directory(root_ / "a");
  std::filesystem::create_directory_symlink(root_.parent_path(), root_ / "a/out");
  EXPECT_EQ(cgroup_path(root_ / "a", inode_of(root_.parent_path())), "");
}

// The kernel's word for a connection of our own, and where the kernel says that we are.
TEST(Cgroup, OfAConnectionIsThatOfTheProcessThatMadeIt) {
  std::ifstream own("/proc/self/cgroup");
  std::string path;
  for (std::string line; std::getline(own, line);)
    if (line.starts_with("0::")) path = line.substr(3);
  const std::filesystem::path directory = cgroup_root().string() + path;
  if (path.empty() || !std::filesystem::exists(directory / "cgroup.controllers"))
    GTEST_SKIP() << "control groups of version 2 are not mounted here";

  const int listener = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  ASSERT_EQ(::bind(listener, reinterpret_cast<sockaddr*>(&address), size), 0);
  ASSERT_EQ(::listen(listener, 1), 0);
  ASSERT_EQ(::getsockname(listener, reinterpret_cast<sockaddr*>(&address), &size), 0);
  const int client = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  ASSERT_EQ(::connect(client, reinterpret_cast<sockaddr*>(&address), size), 0);
  const int accepted = ::accept4(listener, nullptr, nullptr, SOCK_CLOEXEC);
  const std::uint64_t id = proxy::cgroup_of(accepted);
  ::close(client);
  EXPECT_EQ(proxy::cgroup_of(accepted), 0U) << "who has gone is nowhere";
  EXPECT_EQ(proxy::cgroup_of(-1), 0U);
  ::close(accepted);
  ::close(listener);
  EXPECT_EQ(id, inode_of(directory));
  EXPECT_EQ(cgroup_path(cgroup_root(), id), path);
}

}  // namespace
}  // namespace staithe::daemon
