#include "proxy/host_policy.h"

#include <gtest/gtest.h>

namespace staithe::proxy {
namespace {

TEST(HostPolicy, AcceptsThisMachinesLoopbackNames) {
  const HostPolicy policy({"127.0.0.1:5050", "[::1]:5050"}, {});
  for (const char* host :
       {"127.0.0.1:5050", "127.0.0.1", "localhost:5050", "LOCALHOST", "[::1]:5050", "[::1]"})
    EXPECT_TRUE(policy.accepts(host)) << host;
}

TEST(HostPolicy, RefusesNamesThatAnAttackerMayRebind) {
  const HostPolicy policy({"127.0.0.1:5050"}, {});
  for (const char* host :
       {"evil.example", "evil.example:5050", "127.0.0.1.evil.example:5050",
        "localhost.evil.example", "0.0.0.0:5050", "", "127.0.0.2:5050", "[::ffff:127.0.0.1]:5050"})
    EXPECT_FALSE(policy.accepts(host)) << host;
}

TEST(HostPolicy, AcceptsConfiguredNames) {
  const HostPolicy policy({"unix:/run/x.sock"}, {"mirror.local", "cache.local:80"});
  EXPECT_TRUE(policy.accepts("mirror.local:5050"));
  EXPECT_TRUE(policy.accepts("cache.local:80"));
  EXPECT_FALSE(policy.accepts("cache.local:81"));
}

TEST(CrossSite, IsWhatBrowsersMark) {
  EXPECT_TRUE(is_cross_site("cross-site", ""));
  EXPECT_TRUE(is_cross_site("same-site", ""));
  EXPECT_TRUE(is_cross_site("", "https://evil.example"));
  EXPECT_TRUE(is_cross_site("", "null"));
  EXPECT_FALSE(is_cross_site("", ""));
  EXPECT_FALSE(is_cross_site("none", ""));
  EXPECT_FALSE(is_cross_site("same-origin", ""));
}

}  // namespace
}  // namespace staithe::proxy
