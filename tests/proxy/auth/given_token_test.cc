#include "proxy/auth/given_token.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "proxy/auth/identities.h"
#include "tests/proxy/auth/fake_entra.h"
#include "tests/proxy/auth/world.h"

namespace staithe::proxy::auth {
namespace {

using namespace std::chrono_literals;
using fake::Asked;
using fake::Reply;

const std::string host = "contoso.azurecr.io";
const Origin contoso{"https", host, 443};
constexpr WallTime wall{std::chrono::seconds(1'760'000'000)};
constexpr Instant now{1000h};

TEST(GivenToken, IsATokenOrAzsJsonWithOne) {
  const std::string token = refresh_token_of(host, 1'760'010'800);
  for (const std::string& text :
       {token, token + "\n", token + "\r\n", token + " \n\n",
        R"({"accessToken":")" + token + R"(","loginServer":"contoso.azurecr.io"})",
        "{\n  \"accessToken\": \"" + token + "\",\n  \"expiresOn\": \"2026-01-01\"\n}\n"}) {
    const auto read = read_given_token(text, now, wall);
    ASSERT_TRUE(read) << read.error().detail;
    EXPECT_EQ(read->secret.reveal(), token);
    EXPECT_EQ(read->life.lasts, 10'800s);
    EXPECT_EQ(read->life.since, now);
    EXPECT_EQ(read->life.wall_since, wall);
  }
  // No issuer gives more than a day.
  EXPECT_EQ(read_given_token(entra_token(9'999'999'999), now, wall)->life.lasts, 24h);
  EXPECT_EQ(read_given_token(make_jwt(R"({"exp":9223372036854775807})"), now, wall)->life.lasts,
            24h);
}

TEST(GivenToken, IsNothingElseAndIsNotQuoted) {
  const std::string secret = "s3cr3t-s3cr3t-s3cr3t";
  const std::pair<std::string, std::string_view> table[] = {
      {"", "it is no token"},
      {"\n", "it is no token"},
      {" " + secret, "it is no token"},
      {secret + "\n" + secret, "it is no token"},
      {std::string(33'000, 'a'), "it is no token"},
      {secret, "it is no token by Entra or an Azure Container Registry (no JWT)"},
      {"a." + secret + ".b", "it is no token by Entra or an Azure Container Registry (no JWT)"},
      {make_jwt(R"({"secret":"s3cr3t"})"), "it does not say when it ends (no exp)"},
      {make_jwt(R"({"exp":null})"), "it does not say when it ends (no exp)"},
      {make_jwt(R"({"exp":"soon"})"),
       "it is no token by Entra or an Azure Container Registry (no JWT)"},
      {entra_token(1'760'000'000), "it has ended 0 minutes ago"},
      {entra_token(1'759'999'880), "it has ended 2 minutes ago"},
      {make_jwt(R"({"exp":-9223372036854775808})"), "it has ended 29333333 minutes ago"},
      {"{", "it is neither a token nor az's JSON with one"},
      {"{\"accessToken\":\"" + secret, "it is neither a token nor az's JSON with one"},
      {"{}", "az's JSON has no accessToken in it"},
      {R"({"accessToken":["s3cr3t"]})", "az's JSON has no accessToken in it"},
      {R"({"accessToken":""})", "az's JSON has no accessToken in it"},
      {R"({"accessToken":"s3cr3t s3cr3t"})", "it is no token"},
      {R"({"refreshToken":"s3cr3t"})", "az's JSON has no accessToken in it"},
  };
  for (const auto& [text, why] : table) {
    const auto read = read_given_token(text, now, wall);
    ASSERT_FALSE(read) << text.substr(0, 60);
    EXPECT_EQ(read.error().code, Errc::identity_missing);
    EXPECT_EQ(read.error().detail, why);
  }
}

class GivenByFile : public testing::Test {
 protected:
  GivenByFile() {
    settings.kind = IdentityKind::token;
    settings.token_file = "/token";
  }
  void write(const std::string& text) { world.files.write("/token", text); }
  void use(const Origin& origin = contoso) {
    authorizer = identities.make_authorizer(at(origin), settings);
  }
  std::int64_t ends_in(std::chrono::seconds left) const {
    return server_time(world.clock) + left.count();
  }
  std::string got(const std::string& repository = "app") {
    const auto outcome = world.now(authorizer->for_pull(repository));
    if (!outcome)
      return to_string(outcome.error().code) + std::string(": ") + outcome.error().detail;
    return "a token";
  }
  Result<int> renew() {
    return world.now([](Authorizer& of) -> asio::awaitable<int> {
      co_await of.renew();
      co_return 0;
    }(*authorizer));
  }

  World world;
  FakeAcr acr{world.http, world.clock, host};
  Identities identities{AzureSettings{}, {}, world.environment()};
  IdentitySettings settings;
  std::unique_ptr<Authorizer> authorizer;
};

TEST_F(GivenByFile, ARefreshTokenIsUsedAsItIs) {
  const std::string given = refresh_token_of(host, ends_in(3h));
  write(R"({"accessToken":")" + given + R"(","loginServer":"x"})");
  use();
  EXPECT_EQ(got(), "a token");
  EXPECT_EQ(acr.exchanges, 0);
  EXPECT_EQ(acr.last_refresh, given);
  const auto login = world.now(authorizer->login());
  EXPECT_EQ(login->secret->reveal(), given);
  EXPECT_EQ(login->username, "00000000-0000-0000-0000-000000000000");
  EXPECT_FALSE(login->renewable);
  EXPECT_EQ(login->expires_in, 3h);
}

TEST_F(GivenByFile, AnEntraTokenIsExchanged) {
  const std::string given = entra_token(ends_in(1h));
  write(given);
  use();
  EXPECT_EQ(got(), "a token");
  EXPECT_EQ(acr.exchanges, 1);
  EXPECT_EQ(acr.last_entra, given);
  for (const Asked& asked : world.http.asked()) {
    EXPECT_EQ(asked.origin, contoso);
    EXPECT_EQ(asked.everything().contains(given), asked.target == "/oauth2/exchange");
  }
}

TEST_F(GivenByFile, AnotherRegistrysRefreshTokenGoesNowhere) {
  for (const std::string other :
       {"fabrikam.azurecr.io", "contoso.azurecr.cn", "contoso.azurecr.io.evil.example",
        "contoso-1a2b.azurecr.io", "contoso.westeurope.data.azurecr.io", "azurecr.io", "contoso",
        ""}) {
    const std::string given = refresh_token_of(other, ends_in(3h));
    write(given);
    use();
    EXPECT_EQ(got(),
              "unauthorized: exchanging the Entra token for a refresh token at contoso.azurecr.io: "
              "the token that was given is a refresh token of " +
                  other +
                  ". Fetch a new one (az acr login --name NAME --expose-token), or use an identity "
                  "that renews itself");
    EXPECT_TRUE(world.http.leaks(given, "https://nobody").empty());
  }
}

TEST_F(GivenByFile, GlobalAndRegionalNamesAreOneRegistry) {
  write(refresh_token_of("contoso.westeurope.geo.azurecr.io", ends_in(3h)));
  use();
  EXPECT_EQ(got(), "a token");
  const std::string regional = "contoso.northeurope.geo.azurecr.io";
  FakeAcr replica(world.http, world.clock, regional);
  write(refresh_token_of(host, ends_in(3h)));
  use({"https", regional, 443});
  EXPECT_EQ(got(), "a token");
  EXPECT_EQ(replica.exchanges + acr.exchanges, 0);
}

TEST_F(GivenByFile, ThatHasEndedIsToldWithItsRemedy) {
  write(refresh_token_of(host, ends_in(-5min)));
  use();
  EXPECT_EQ(got(),
            "identity_missing: the token in /token: it has ended 5 minutes ago. Write a new one "
            "there (az acr login --name NAME --expose-token), or use an identity that renews "
            "itself");
  for (const Asked& asked : world.http.asked()) EXPECT_EQ(asked.target, "/v2/");
  ASSERT_TRUE(authorizer->last_error());
  EXPECT_EQ(authorizer->last_error()->code, Errc::identity_missing);
}

TEST_F(GivenByFile, ANewOneIsUsedWithinAMinute) {
  write(refresh_token_of(host, ends_in(3h), 1));
  use();
  EXPECT_EQ(got(), "a token");
  world.clock.advance(10min);
  const std::string newer = refresh_token_of(host, ends_in(3h), 2);
  write(newer);
  world.clock.advance(65s);
  EXPECT_EQ(got("another"), "a token");
  EXPECT_EQ(acr.last_refresh, newer);
  // It is looked at every half minute, no more.
  EXPECT_LE(world.files.asked.size(), 25U);
}

TEST_F(GivenByFile, RenewLooksAtOnce) {
  write(refresh_token_of(host, ends_in(3h), 1));
  use();
  EXPECT_EQ(got(), "a token");
  const std::string newer = refresh_token_of(host, ends_in(3h), 2);
  write(newer);
  EXPECT_TRUE(renew());
  EXPECT_EQ(got("another"), "a token");
  EXPECT_EQ(acr.last_refresh, newer);
  world.files.remove("/token");
  EXPECT_EQ(renew().error().detail, "the file /token cannot be read");
  EXPECT_EQ(got("a third"), "a token");
}

TEST_F(GivenByFile, TheOldOneServesToItsStopWhenTheFileGoesBad) {
  write(refresh_token_of(host, ends_in(3h)));
  use();
  EXPECT_EQ(got(), "a token");
  EXPECT_FALSE(authorizer->last_error());
  write("garbage");
  for (int minute = 0; minute < 3 * 60 - 2; ++minute) {
    ASSERT_EQ(got("app" + std::to_string(minute)), "a token") << minute;
    world.clock.advance(1min);
  }
  // The operator is told all along.
  ASSERT_TRUE(authorizer->last_error());
  EXPECT_TRUE(authorizer->last_error()->detail.contains("(no JWT)"));
  EXPECT_FALSE(world.reports.empty());
  EXPECT_LE(world.files.asked.size(), 400U);
  world.clock.advance(3min);
  EXPECT_TRUE(got("late").starts_with("identity_missing: the token in /token: it is no token by"));
  EXPECT_EQ(acr.used_after_end, 0);
  // A good one mends it without anybody's word.
  write(refresh_token_of(host, ends_in(3h)));
  world.clock.advance(3min);
  EXPECT_EQ(got("later"), "a token");
}

TEST_F(GivenByFile, StatusShowsItsEndAndThatNobodyRenewsIt) {
  write(refresh_token_of(host, ends_in(1h)));
  use();
  EXPECT_TRUE(authorizer->endings().empty());
  EXPECT_EQ(got(), "a token");
  ASSERT_EQ(authorizer->endings().size(), 1U);
  EXPECT_EQ(authorizer->endings()[0].what, "token in /token");
  EXPECT_EQ(authorizer->endings()[0].expires_in, 1h);
  EXPECT_FALSE(authorizer->endings()[0].is_near());
  ASSERT_EQ(authorizer->tokens().size(), 2U);
  EXPECT_EQ(authorizer->tokens()[0].kind, "refresh");
  EXPECT_FALSE(authorizer->tokens()[0].renews_in);
  world.clock.advance(35min);
  EXPECT_GE(authorizer->endings()[0].expires_in, 25min - 2s);
  EXPECT_LE(authorizer->endings()[0].expires_in, 25min);
  EXPECT_TRUE(authorizer->endings()[0].is_near());
}

// Of every length of life: looked at no more often than there is a reason to, never used after the
// end, and nothing spins.
TEST_F(GivenByFile, OfAnyLifeIsLookedAtInMeasureAndNotUsedAfterItsEnd) {
  for (const std::chrono::seconds life : {1s, 2s, 5s, 20s, 31s, 60s, 90s, 600s, 10800s}) {
    for (const bool goes_bad : {false, true}) {
      World fresh;
      FakeAcr registry(fresh.http, fresh.clock, host);
      Identities tested(AzureSettings{}, {}, fresh.environment());
      fresh.files.write("/token", refresh_token_of(host, server_time(fresh.clock) + life.count()));
      const auto used = tested.make_authorizer(at(contoso), settings);
      EXPECT_TRUE(fresh.now(used->for_pull("a"))) << life;
      if (goes_bad) fresh.files.remove("/token");
      const auto step = std::chrono::milliseconds(life) / 50;
      for (int i = 0; i < 60; ++i) {
        fresh.clock.advance(step);
        (void)fresh.now(used->for_pull("b" + std::to_string(i)));
      }
      EXPECT_EQ(registry.used_after_end, 0) << life;
      EXPECT_LE(fresh.files.asked.size(), 40U + static_cast<std::size_t>(life / 25s)) << life;
      EXPECT_FALSE(fresh.now(used->for_pull("c"))) << life;
    }
  }
}

}  // namespace
}  // namespace staithe::proxy::auth
