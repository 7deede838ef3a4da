#include "proxy/redirect.h"

#include <gtest/gtest.h>

namespace staithe::proxy {
namespace {

Url url(const std::string& text) { return value_or_throw(Url::parse(text)); }

bool follows(const std::string& registry, const std::string& to,
             std::vector<std::string> data_hosts = {}) {
  const Url from = url(registry + "/v2/a/blobs/x");
  const RedirectPolicy policy{.registry = from.origin(),
                              .data_hosts = std::move(data_hosts),
                              .acr_suffixes = {"azurecr.io", "azurecr.cn"}};
  return may_follow(policy, from, url(to)).has_value();
}

TEST(Redirect, LeadsFromAcrToItsStorage) {
  const std::string acr = "https://contoso.azurecr.io";
  EXPECT_TRUE(follows(acr, "https://contoso.azurecr.io/other"));
  EXPECT_TRUE(follows(acr, "https://eusman12.blob.core.windows.net/x?sig=1"));
  EXPECT_TRUE(follows(acr, "https://contoso.westeurope.data.azurecr.io/x"));
}

TEST(Redirect, LeadsNowhereElse) {
  const std::string acr = "https://contoso.azurecr.io";
  for (const char* to :
       {"https://evil.example/x", "http://eusman12.blob.core.windows.net/x",
        "https://blob.core.windows.net.evil.example/x", "https://xblob.core.windows.net/x",
        "https://blob.core.windows.net/x", "https://other.azurecr.io/x",
        "https://fabrikam.westeurope.data.azurecr.io/x", "https://a.b.contoso.data.azurecr.io/x",
        "https://127.0.0.1/x", "https://169.254.169.254/metadata",
        "http://169.254.169.254/metadata", "https://localhost/x",
        "https://contoso.azurecr.io:8443/x", "https://production.cloudflare.docker.com/x"})
    EXPECT_FALSE(follows(acr, to)) << to;
}

TEST(Redirect, OfDockerHubLeadsToItsOwnContentNetworkOnly) {
  const std::string hub = "https://registry-1.docker.io";
  EXPECT_TRUE(follows(hub, "https://production.cloudflare.docker.com/x"));
  EXPECT_FALSE(follows(hub, "https://eusman12.blob.core.windows.net/x"));
}

TEST(Redirect, LeadsToConfiguredHosts) {
  EXPECT_TRUE(follows("https://r.example", "https://cdn.example/x", {"cdn.example"}));
  EXPECT_TRUE(follows("https://r.example", "https://a.cdn.example/x", {"*.cdn.example"}));
  EXPECT_FALSE(follows("https://r.example", "https://cdn.example/x", {"*.cdn.example"}));
  EXPECT_FALSE(follows("https://r.example", "http://cdn.example/x", {"cdn.example"}));
  EXPECT_TRUE(follows("http://r.example", "http://cdn.example/x", {"cdn.example"}));
}

TEST(Redirect, HostsOfPrivateEndpointsAndConfiguredOnesMayHavePrivateAddresses) {
  const auto who = [](const std::string& registry, std::string_view host) {
    return named_by({.registry = url(registry).origin(),
                     .data_hosts = {"cdn.example", "*.s3.example"},
                     .acr_suffixes = {"azurecr.io"}},
                    host);
  };
  const std::string acr = "https://contoso.azurecr.io";
  const std::string hub = "https://registry-1.docker.io";
  for (const char* host : {"contoso.azurecr.io", "contoso.westeurope.data.azurecr.io",
                           "eusman12.blob.core.windows.net", "cdn.example", "a.s3.example"})
    EXPECT_EQ(who(acr, host), HostNamedBy::configuration) << host;
  for (const char* host : {"registry-1.docker.io", "cdn.example"})
    EXPECT_EQ(who(hub, host), HostNamedBy::configuration) << host;
  for (const char* host : {"production.cloudflare.docker.com", "eusman12.blob.core.windows.net",
                           "contoso.azurecr.io", "evil.example", "localhost", "127.0.0.1"})
    EXPECT_EQ(who(hub, host), HostNamedBy::upstream) << host;
  for (const char* host : {"evil.example", "fabrikam.azurecr.io", "xcdn.example", "s3.example"})
    EXPECT_EQ(who(acr, host), HostNamedBy::upstream) << host;
}

TEST(Redirect, NamesTheHostAndTheKeyButNotTheSignedQuery) {
  const Url from = url("https://contoso.azurecr.io/v2/a/blobs/x");
  const RedirectPolicy policy{.registry = from.origin(), .data_hosts = {}, .acr_suffixes = {}};
  const auto refused = may_follow(policy, from, url("https://cdn.example/x?sig=geheim"));
  ASSERT_FALSE(refused);
  EXPECT_NE(refused.error().detail.find("https://cdn.example"), std::string::npos);
  EXPECT_NE(refused.error().detail.find("data_hosts"), std::string::npos);
  EXPECT_EQ(refused.error().detail.find("geheim"), std::string::npos);
}

}  // namespace
}  // namespace staithe::proxy
