#include "proxy/pull_quota.h"

#include <gtest/gtest.h>

namespace staithe::proxy {
namespace {

std::optional<PullQuota> told(const std::string& limit, const std::string& remaining,
                              const std::string& source = {}) {
  Headers headers;
  headers.add("RateLimit-Limit", limit);
  headers.add("RateLimit-Remaining", remaining);
  if (!source.empty()) headers.add("docker-ratelimit-source", source);
  return pull_quota(headers);
}

TEST(PullQuota, IsWhatDockerHubTells) {
  EXPECT_EQ(told("100;w=21600", "76;w=21600", "203.0.113.7"),
            (PullQuota{.limit = 100,
                       .remaining = 76,
                       .window = std::chrono::hours(6),
                       .source = "203.0.113.7"}));
  EXPECT_EQ(told("100; w=21600", "0")->remaining, 0U);
}

TEST(PullQuota, NonsenseIsNothing) {
  EXPECT_FALSE(pull_quota(Headers()));
  for (const char* text : {"", "x", "-1;w=1", "100", "100;w=", "100;w=x", "100;q=3", ";w=21600",
                           "99999999999999999999999;w=1", "100;w=99999999999999999999999"}) {
    EXPECT_FALSE(told(text, "76;w=21600")) << text;
  }
  EXPECT_FALSE(told("100;w=21600", ""));
  EXPECT_FALSE(told("100;w=21600", "many"));
}

TEST(PullQuota, ItsSourceIsShownEscapedAndCut) {
  const auto quota = told("1;w=1", "1;w=1", "a\x1b[31m" + std::string(500, 'x'));
  ASSERT_TRUE(quota);
  EXPECT_EQ(quota->source.find('\x1b'), std::string::npos);
  EXPECT_LE(quota->source.size(), 70U);
}

}  // namespace
}  // namespace staithe::proxy
