#include "proxy/auth/trust.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace staithe::proxy::auth {
namespace {

const std::vector<std::string> suffixes = {"azurecr.io", "azurecr.cn", "azurecr.us",
                                           "azurecr.sovcloud-azure.fr", "azurecr.localhost"};

Origin origin(std::string_view url) { return Url::parse(url).value().origin(); }

TEST(AcrHost, KnowsEveryFormOfALoginServer) {
  const struct {
    std::string_view host, name, region, suffix;
  } table[] = {
      {"contoso.azurecr.io", "contoso", "", "azurecr.io"},
      {"Contoso.AzureCR.IO", "contoso", "", "azurecr.io"},
      {"contoso.azurecr.cn", "contoso", "", "azurecr.cn"},
      {"contoso.azurecr.us", "contoso", "", "azurecr.us"},
      {"contoso-a1b2c3d4e5f6.azurecr.io", "contoso-a1b2c3d4e5f6", "", "azurecr.io"},
      {"contoso.westeurope.geo.azurecr.io", "contoso", "westeurope", "azurecr.io"},
      {"contoso-a1b2.eastus2.geo.azurecr.io", "contoso-a1b2", "eastus2", "azurecr.io"},
      {"contoso.azurecr.sovcloud-azure.fr", "contoso", "", "azurecr.sovcloud-azure.fr"},
      {"contoso.germany.geo.azurecr.sovcloud-azure.fr", "contoso", "germany",
       "azurecr.sovcloud-azure.fr"},
      {"r2d2.azurecr.io", "r2d2", "", "azurecr.io"},
  };
  for (const auto& row : table) {
    const auto host = parse_acr_host(row.host, suffixes);
    ASSERT_TRUE(host) << row.host;
    EXPECT_EQ(host->name, row.name);
    EXPECT_EQ(host->region, row.region);
    EXPECT_EQ(host->suffix, row.suffix);
  }
}

TEST(AcrHost, IsNothingElse) {
  const std::string_view table[] = {
      // The suffix itself, and what is not a label before it.
      "azurecr.io",
      ".azurecr.io",
      "..azurecr.io",
      "-.azurecr.io",
      "-a.azurecr.io",
      "a-.azurecr.io",
      "a--b.azurecr.io",
      "a-b-c.azurecr.io",
      "a_b.azurecr.io",
      "*.azurecr.io",
      "",
      // Look-alikes.
      "contosoazurecr.io",
      "contoso.azurecr.io.evil.example",
      "contoso.azurecr.io.evil.azurecr.ioo",
      "azurecr.io.evil.example",
      "contoso.azurecr.iо",
      "contoso.azurecr.io.",
      "contoso.azurecr,io",
      "contoso.azurecr.com",
      "contoso.azurecrio",
      "contoso.azurecr-io",
      "xazurecr.io",
      "contoso.notazurecr.io",
      "contoso.azurecr.de",
      "contoso.azurecr.io:443",
      "contoso.azurecr.io@evil",
      "contoso.sovcloud-azure.fr",
      "evil-azurecr.io",
      "contoso.azurecr.io%00.evil.example",
      "xn--contoso.azurecr.io",
      // Data endpoints, and forms that nobody has documented.
      "contoso.westeurope.data.azurecr.io",
      "contoso.geo.azurecr.io",
      "geo.azurecr.io.geo",
      "a.b.c.geo.azurecr.io",
      "contoso.westeurope.azurecr.io",
      "contoso.west-europe.geo.azurecr.io",
      "contoso..geo.azurecr.io",
      ".westeurope.geo.azurecr.io",
      "a.b.azurecr.io",
      "contoso.westeurope.xgeo.azurecr.io",
      // Storage, other registries, addresses.
      "store.blob.core.windows.net",
      "mcr.microsoft.com",
      "docker.io",
      "127.0.0.1",
      "[::1]",
      "localhost",
      "azurecr.localhost",
  };
  for (const std::string_view host : table) EXPECT_FALSE(parse_acr_host(host, suffixes)) << host;
  EXPECT_FALSE(parse_acr_host("contoso.azurecr.io", {}));
  EXPECT_FALSE(parse_acr_host("contoso.azurecr.io", {""}));
  EXPECT_FALSE(parse_acr_host(std::string(64, 'a') + ".azurecr.io", suffixes));
}

TEST(AcrOrigin, IsALoginServerOverTls) {
  EXPECT_TRUE(check_acr_origin(origin("https://contoso.azurecr.io"), suffixes));
  EXPECT_TRUE(check_acr_origin(origin("https://contoso.azurecr.io:8443"), suffixes));
  EXPECT_TRUE(check_acr_origin(origin("https://contoso.azurecr.localhost:8443"), suffixes));
  EXPECT_TRUE(check_acr_origin(origin("http://contoso.azurecr.localhost:8080"), suffixes));
  const auto plain = check_acr_origin(origin("http://contoso.azurecr.io"), suffixes);
  ASSERT_FALSE(plain);
  EXPECT_EQ(plain.error().code, Errc::config);
  EXPECT_EQ(plain.error().detail,
            "a managed identity is not used over plain http: write https://contoso.azurecr.io as "
            "upstream");
  const auto other = check_acr_origin(origin("https://ghcr.io"), {"azurecr.io", "azurecr.cn"});
  ASSERT_FALSE(other);
  EXPECT_EQ(other.error().code, Errc::config);
  EXPECT_EQ(other.error().detail,
            "a managed identity is for Azure Container Registry, and ghcr.io is not one of its "
            "login servers (below azurecr.io, azurecr.cn): use another identity for it, or add its "
            "suffix to azure.acr_suffixes");
}

TEST(AcrRealm, IsTheRegistryItself) {
  const struct {
    std::string_view registry, realm;
    bool trusted;
  } table[] = {
      {"https://contoso.azurecr.io", "https://contoso.azurecr.io/oauth2/token", true},
      {"https://contoso.azurecr.io", "https://CONTOSO.azurecr.io:443/oauth2/token", true},
      {"https://contoso.azurecr.io:8443", "https://contoso.azurecr.io:8443/oauth2/token", true},
      {"http://contoso.azurecr.localhost:80", "http://contoso.azurecr.localhost/oauth2/token",
       true},
      // The same registry, global and regional.
      {"https://contoso.westeurope.geo.azurecr.io", "https://contoso.azurecr.io/oauth2/token",
       true},
      {"https://contoso.azurecr.io", "https://contoso.westeurope.geo.azurecr.io/oauth2/token",
       true},
      {"https://contoso.eastus.geo.azurecr.io", "https://contoso.westus.geo.azurecr.io/x", true},
      // Another scheme, port, registry, suffix or host.
      {"https://contoso.azurecr.io", "http://contoso.azurecr.io/oauth2/token", false},
      {"https://contoso.azurecr.io", "https://contoso.azurecr.io:444/oauth2/token", false},
      {"https://contoso.azurecr.io:8443", "https://contoso.azurecr.io/oauth2/token", false},
      {"https://contoso.azurecr.io:8443", "https://contoso.eastus.geo.azurecr.io:8443/t", false},
      {"https://contoso.azurecr.io", "https://fabrikam.azurecr.io/oauth2/token", false},
      {"https://contoso.azurecr.io", "https://contoso-1a2b.azurecr.io/oauth2/token", false},
      {"https://contoso.azurecr.io", "https://contoso.azurecr.cn/oauth2/token", false},
      {"https://contoso.azurecr.io", "https://contoso.westeurope.data.azurecr.io/token", false},
      {"https://contoso.azurecr.io", "https://azurecr.io/oauth2/token", false},
      {"https://contoso.azurecr.io", "https://contoso.azurecr.io.evil.example/token", false},
      {"https://contoso.azurecr.io", "https://contosoazurecr.io/token", false},
      {"https://contoso.azurecr.io", "https://login.microsoftonline.com/token", false},
      {"https://contoso.azurecr.io", "https://127.0.0.1/token", false},
      {"https://contoso.azurecr.io", "https://localhost/token", false},
      {"https://contoso.azurecr.io", "https://user@contoso.azurecr.io/token", false},
      {"https://contoso.azurecr.io", "https://contoso.azurecr.io@evil.example/token", false},
      {"https://contoso.azurecr.io", "https://contoso.azurecr.io./token", false},
      {"https://contoso.azurecr.io", "//contoso.azurecr.io/token", false},
      {"https://contoso.azurecr.io", "/oauth2/token", false},
      {"https://contoso.azurecr.io", "", false},
      {"https://contoso.azurecr.io", "Azure Container Registry", false},
  };
  for (const auto& row : table) {
    const Result<Url> realm = check_acr_realm(origin(row.registry), row.realm, suffixes);
    EXPECT_EQ(realm.has_value(), row.trusted) << row.registry << " " << row.realm;
    if (!realm) {
      EXPECT_EQ(realm.error().code, Errc::upstream_nonsense);
    }
  }
}

TEST(PasswordRealm, IsTheRegistrysOwnOrOneThatIsKnownToBeIts) {
  const std::vector<std::string> none;
  const std::vector<std::string> named = {"Auth.Example", "other.example:8443"};
  const struct {
    std::string_view registry, realm;
    const std::vector<std::string>& token_hosts;
    bool trusted;
  } table[] = {
      {"https://ghcr.io", "https://ghcr.io/token", none, true},
      {"https://ghcr.io", "https://GHCR.io:443/token?a=b", none, true},
      {"https://r.example:5000", "https://r.example:5000/auth", none, true},
      {"http://localhost:5000", "http://localhost:5000/auth", none, true},
      {"https://registry-1.docker.io", "https://auth.docker.io/token", none, true},
      {"https://index.docker.io", "https://auth.docker.io/token", none, true},
      {"https://registry.gitlab.com", "https://gitlab.com/jwt/auth", none, true},
      {"https://r.example", "https://auth.example/token", named, true},
      {"https://r.example", "https://AUTH.example:443/token", named, true},
      {"https://r.example", "https://other.example:8443/token", named, true},
      // Known, but for another registry, in another direction, on another port or without TLS.
      {"https://ghcr.io", "https://auth.docker.io/token", none, false},
      {"https://auth.docker.io", "https://registry-1.docker.io/token", none, false},
      {"https://registry-1.docker.io:444", "https://auth.docker.io/token", none, false},
      {"https://registry-1.docker.io", "https://auth.docker.io:444/token", none, false},
      {"https://registry-1.docker.io", "http://auth.docker.io/token", none, false},
      {"https://registry-1.docker.io", "https://auth.docker.io.evil.example/token", none, false},
      {"https://registry-1.docker.io", "https://xauth.docker.io/token", none, false},
      {"https://registry-1.docker.io", "https://x.auth.docker.io/token", none, false},
      {"https://registry-1.docker.io.evil.example", "https://auth.docker.io/token", none, false},
      {"https://registry.gitlab.com", "https://gitlab.com.evil.example/jwt/auth", none, false},
      // The registry's host, but not its origin.
      {"https://ghcr.io", "https://ghcr.io:444/token", none, false},
      {"https://ghcr.io", "http://ghcr.io/token", none, false},
      {"https://r.example:5000", "https://r.example:5001/auth", none, false},
      {"https://r.example:5000", "https://r.example/auth", none, false},
      {"http://localhost:5000", "http://localhost:5001/auth", none, false},
      // What the operator names is a host, whole, and with its port.
      {"https://r.example", "https://auth.example:444/token", named, false},
      {"https://r.example", "https://other.example/token", named, false},
      {"https://r.example", "https://x.auth.example/token", named, false},
      {"https://r.example", "https://auth.example.evil.example/token", named, false},
      {"https://r.example", "http://auth.example/token", named, false},
      {"https://r.example", "http://other.example:8443/token", named, false},
      {"https://r.example", "https://auth.example/token", none, false},
      // No URL, or one with a trick in it.
      {"https://ghcr.io", "https://user:pw@ghcr.io/token", none, false},
      {"https://ghcr.io", "https://ghcr.io@evil.example/token", none, false},
      {"https://ghcr.io", "https://ghcr.io#@evil.example/", none, false},
      {"https://ghcr.io", "https://ghcr.io\\@evil.example/", none, false},
      {"https://ghcr.io", "//ghcr.io/token", none, false},
      {"https://ghcr.io", "/token", none, false},
      {"https://ghcr.io", "", none, false},
      {"https://ghcr.io", "https://ghcr.io/\r\nX: y", none, false},
      {"https://ghcr.io", "https://169.254.169.254/token", none, false},
      {"https://ghcr.io", "https://localhost/token", none, false},
  };
  for (const auto& row : table) {
    const Result<Url> realm =
        check_password_realm(origin(row.registry), row.realm, row.token_hosts);
    EXPECT_EQ(realm.has_value(), row.trusted) << row.registry << " " << row.realm;
    if (!realm) {
      EXPECT_EQ(realm.error().code, Errc::upstream_nonsense);
    }
  }
  EXPECT_EQ(check_password_realm(origin("https://ghcr.io"), "https://auth.example/t?q=1", none)
                .error()
                .detail,
            "ghcr.io names the token server https://auth.example/t, which is not used: a password "
            "goes to the registry's own origin only; if that server is the registry's, add its "
            "host to token_hosts of this [[registry]]");
}

TEST(PasswordOrigin, IsOverTlsOrOnThisMachine) {
  for (const std::string_view fine :
       {"https://ghcr.io", "https://r.example:5000", "https://10.0.0.5", "http://localhost:5000",
        "http://127.0.0.1:5000", "http://[::1]:5000", "http://r.localhost"})
    EXPECT_TRUE(check_password_origin(origin(fine))) << fine;
  for (const std::string_view plain :
       {"http://ghcr.io", "http://10.0.0.5:5000", "http://registry", "http://[::ffff:127.0.0.1]",
        "http://0.0.0.0", "http://localhost.example"}) {
    const auto refused = check_password_origin(origin(plain));
    ASSERT_FALSE(refused) << plain;
    EXPECT_EQ(refused.error().code, Errc::config);
  }
  EXPECT_EQ(check_password_origin(origin("http://ghcr.io")).error().detail,
            "a password is not sent over plain http: write https://ghcr.io as upstream, or use no "
            "identity for it");
}

TEST(ReachOf, SortsHostsByWhoCanReachThem) {
  const struct {
    std::string_view host;
    Reach reach;
  } table[] = {
      {"auth.docker.io", Reach::anywhere},
      {"ghcr.io", Reach::anywhere},
      {"localhost.example", Reach::anywhere},
      {"notlocalhost.io", Reach::anywhere},
      {"localhost", Reach::loopback},
      {"LOCALHOST", Reach::loopback},
      {"auth.localhost", Reach::loopback},
      {"127.0.0.1", Reach::loopback},
      {"127.1.2.3", Reach::loopback},
      {"[::1]", Reach::loopback},
      {"10.0.0.1", Reach::address},
      {"169.254.169.254", Reach::address},
      {"8.8.8.8", Reach::address},
      {"[fe80::1]", Reach::address},
      {"[::ffff:127.0.0.1]", Reach::address},
      {"[::]", Reach::address},
      {"0.0.0.0", Reach::address},
      {"registry", Reach::internal},
      {"metadata.google.internal", Reach::internal},
      {"nas.local", Reach::internal},
      {"a.home.arpa", Reach::internal},
      {"internal", Reach::internal},
      {"internal.example", Reach::anywhere},
      {"x.corp", Reach::internal},
  };
  for (const auto& row : table) EXPECT_EQ(reach_of(row.host), row.reach) << row.host;
}

TEST(AnonymousRealm, IsNoMorePrivateThanTheRegistry) {
  const struct {
    std::string_view registry, realm;
    bool trusted;
  } table[] = {
      {"https://registry-1.docker.io", "https://auth.docker.io/token", true},
      {"https://ghcr.io", "https://ghcr.io/token", true},
      {"https://registry.gitlab.com", "https://gitlab.com/jwt/auth", true},
      {"https://nvcr.io", "https://nvcr.io/proxy_auth?scope=x", true},
      {"https://registry.example:5000", "https://registry.example:5001/auth", true},
      // Plain http.
      {"https://ghcr.io", "http://ghcr.io/token", false},
      {"https://ghcr.io", "http://auth.example/token", false},
      {"http://registry.example:5000", "http://registry.example:5000/token", true},
      {"http://registry.example:5000", "http://registry.example:5001/token", false},
      {"http://registry.example:5000", "https://auth.example/token", true},
      {"http://localhost:5000", "http://localhost:5001/token", false},
      {"http://localhost:5000", "http://localhost:5000/token", true},
      // Addresses.
      {"https://ghcr.io", "https://127.0.0.1/token", false},
      {"https://ghcr.io", "https://169.254.169.254/metadata/identity", false},
      {"https://ghcr.io", "https://2852039166/metadata", false},
      {"https://ghcr.io", "https://0xa9fea9fe/metadata", false},
      {"https://ghcr.io", "https://10.0.0.1/token", false},
      {"https://ghcr.io", "https://8.8.8.8/token", false},
      {"https://ghcr.io", "https://[::1]/token", false},
      {"https://ghcr.io", "https://[::ffff:169.254.169.254]/", false},
      {"https://ghcr.io", "https://[fd00:ec2::254]/", false},
      {"https://10.0.0.5:5000", "https://10.0.0.5:5001/token", true},
      {"https://10.0.0.5:5000", "https://10.0.0.6/token", false},
      {"https://10.0.0.5:5000", "https://auth.example/token", true},
      {"https://127.0.0.1:5000", "https://127.0.0.2:5000/token", false},
      {"https://localhost:5000", "https://127.0.0.1:5000/token", false},
      // Names of this machine.
      {"https://ghcr.io", "https://localhost/token", false},
      {"https://ghcr.io", "https://auth.localhost/token", false},
      {"https://hub.localhost:5000", "https://auth.localhost:5001/token", true},
      {"https://localhost:5000", "https://auth.localhost:5001/token", true},
      {"https://127.0.0.1:5000", "https://localhost:5001/token", true},
      {"https://registry.local", "https://localhost/token", false},
      {"https://10.0.0.5", "https://localhost/token", false},
      // Names of a private network.
      {"https://ghcr.io", "https://metadata/token", false},
      {"https://ghcr.io", "https://metadata.google.internal/token", false},
      {"https://ghcr.io", "https://router.local/token", false},
      {"https://registry.local", "https://auth.local/token", true},
      {"https://registry:5000", "https://auth:5001/token", true},
      {"https://10.0.0.5", "https://auth.internal/token", true},
      {"https://hub.localhost", "https://auth.internal/token", true},
      // Not URLs.
      {"https://ghcr.io", "", false},
      {"https://ghcr.io", "token", false},
      {"https://ghcr.io", "/token", false},
      {"https://ghcr.io", "file:///etc/passwd", false},
      {"https://ghcr.io", "https://user:pw@auth.example/token", false},
      {"https://ghcr.io", "https://auth.example/token#f", false},
      {"https://ghcr.io", "https://auth.example/\r\nX: y", false},
  };
  for (const auto& row : table) {
    const Result<Url> realm = check_anonymous_realm(origin(row.registry), row.realm);
    EXPECT_EQ(realm.has_value(), row.trusted) << row.registry << " " << row.realm;
  }
  EXPECT_EQ(
      check_anonymous_realm(origin("https://ghcr.io"), "https://localhost/t?q=1").error().detail,
      "ghcr.io names the token server https://localhost/t, which is not used: its name belongs to "
      "this machine");
}

TEST(RealmHost, IsTheRegistrysWhereTheOperatorOrTheNetworkSaysSo) {
  const struct {
    std::string_view registry, realm;
    HostNamedBy by;
  } table[] = {
      {"https://r.example", "https://r.example/token", HostNamedBy::configuration},
      {"https://r.example", "https://r.example:8443/token", HostNamedBy::configuration},
      {"https://r.example", "https://auth.example/token", HostNamedBy::configuration},
      {"https://r.example", "https://auth.example:8443/token", HostNamedBy::upstream},
      {"https://r.example", "https://login.example:8443/token", HostNamedBy::configuration},
      {"https://registry-1.docker.io", "https://auth.docker.io/token", HostNamedBy::upstream},
      {"https://r.example", "https://evil.example/token", HostNamedBy::upstream},
      {"https://r.example", "https://auth.corp/token", HostNamedBy::upstream},
      {"https://r.corp", "https://auth.corp/token", HostNamedBy::configuration},
      {"https://r.corp", "https://evil.example/token", HostNamedBy::upstream},
      {"http://localhost:5000", "https://auth.localhost/token", HostNamedBy::configuration},
  };
  for (const auto& row : table)
    EXPECT_EQ(realm_named_by(origin(row.registry), origin(row.realm),
                             {"Auth.Example", "login.example:8443"}),
              row.by)
        << row.registry << " " << row.realm;
}

}  // namespace
}  // namespace staithe::proxy::auth
