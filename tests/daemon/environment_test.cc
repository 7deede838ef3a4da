#include "daemon/environment.h"

#include <gtest/gtest.h>

#include <cstdlib>

namespace staithe::daemon {
namespace {

TEST(DockerStoreDirectory, FollowsFromTheEnvironment) {
  EXPECT_EQ(docker_store_directory({{}, 0, {}}), "/var/lib/staithe-docker");
  EXPECT_EQ(docker_store_directory({{{"HOME", "/root"}}, 0, {}}), "/var/lib/staithe-docker");
  EXPECT_EQ(docker_store_directory({{{"HOME", "/home/u"}}, 1000, {}}),
            "/home/u/.local/state/staithe");
  EXPECT_EQ(docker_store_directory({{{"HOME", "/home/u"}, {"XDG_STATE_HOME", "/s"}}, 1000, {}}),
            "/s/staithe");
  EXPECT_EQ(docker_store_directory({{{"HOME", "/home/u"}, {"XDG_STATE_HOME", "rel"}}, 1000, {}}),
            "/home/u/.local/state/staithe");
  // A unit's own directory (Nomad's, for instance) keeps its owner's files apart from ours.
  EXPECT_EQ(docker_store_directory({{{"STATE_DIRECTORY", "/var/lib/nomad:/var/lib/b"}}, 0, {}}),
            "/var/lib/nomad/staithe-docker");
  EXPECT_EQ(docker_store_directory({{}, 1000, {}}), "");
}

TEST(Environment, OfTheProcessHoldsOnlyWhatIsAskedFor) {
  setenv("STAITHE_DOCKER_STORE", "pass", 1);
  setenv("STAITHE_TEST_SECRET", "secret", 1);
  const Environment environment = Environment::of_process();
  unsetenv("STAITHE_DOCKER_STORE");
  unsetenv("STAITHE_TEST_SECRET");
  EXPECT_EQ(environment.get("STAITHE_DOCKER_STORE"), "pass");
  EXPECT_EQ(environment.get("STAITHE_TEST_SECRET"), "");
  EXPECT_FALSE(environment.get("PATH").empty());
}

}  // namespace
}  // namespace staithe::daemon
