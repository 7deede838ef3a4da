// Tokens that people and pods bring while the daemon runs.
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
const Place contoso = at({"https", host, 443});

class SignIn : public testing::Test {
 protected:
  std::int64_t ends_in(std::chrono::seconds left) const {
    return server_time(world.clock) + left.count();
  }
  void use() {
    authorizer = identities.make_authorizer(contoso, std::string(Identities::signed_in));
  }
  Result<Authorization> pull(const std::string& repository = "app") {
    return world.now(authorizer->for_pull(repository));
  }

  World world;
  FakeAcr acr{world.http, world.clock, host};
  Identities identities{AzureSettings{}, {}, world.environment()};
  std::unique_ptr<Authorizer> authorizer;
};

TEST_F(SignIn, WithARefreshTokenPullsAndGivesItOn) {
  const std::string token = refresh_token_of(host, ends_in(3h));
  EXPECT_FALSE(identities.is_signed_in(host));
  const auto made = identities.sign_in(contoso, Secret(token));
  ASSERT_TRUE(made) << made.error().detail;
  EXPECT_EQ(made->kind, "refresh");
  EXPECT_EQ(made->expires_in, 3h);
  EXPECT_TRUE(identities.is_signed_in(host));
  use();
  EXPECT_TRUE(pull());
  EXPECT_EQ(acr.last_refresh, token);
  EXPECT_EQ(acr.exchanges, 0);
  const auto login = world.now(authorizer->login());
  EXPECT_EQ(login->secret->reveal(), token);
  EXPECT_FALSE(login->renewable);
  ASSERT_EQ(authorizer->endings().size(), 1U);
  EXPECT_EQ(authorizer->endings()[0].what, "sign-in for contoso.azurecr.io");
  EXPECT_TRUE(world.files.asked.empty());
}

TEST_F(SignIn, WithAnEntraTokenExchangesIt) {
  const std::string token = entra_token(ends_in(1h));
  EXPECT_EQ(identities.sign_in(contoso, Secret(token))->kind, "entra");
  use();
  EXPECT_TRUE(pull());
  EXPECT_EQ(acr.last_entra, token);
  EXPECT_TRUE(world.http.leaks(token, "https://" + host).empty());
}

TEST_F(SignIn, IsRefusedWithAReason) {
  const std::pair<Place, std::string> table[] = {
      {at({"https", "ghcr.io", 443}), refresh_token_of("ghcr.io", ends_in(1h))},
      {at({"http", host, 80}), refresh_token_of(host, ends_in(1h))},
      {at({"https", host + ".evil.example", 443}), refresh_token_of(host, ends_in(1h))},
      {contoso, refresh_token_of(host, ends_in(-1s))},
      {contoso, "s3cr3t"},
      {contoso, ""}};
  for (const auto& [place, token] : table) {
    const auto made = identities.sign_in(place, Secret(token));
    ASSERT_FALSE(made);
    EXPECT_EQ(made.error().code, Errc::bad_request);
    EXPECT_FALSE(made.error().detail.contains("s3cr3t"));
    EXPECT_FALSE(identities.is_signed_in(place.name));
  }
  EXPECT_EQ(identities.sign_in(contoso, Secret("s3cr3t")).error().detail,
            "the token is not used: it is no token by Entra or an Azure Container Registry (no "
            "JWT)");
}

TEST_F(SignIn, OfAnotherRegistryIsRefusedAndGoesNowhere) {
  const std::string token = refresh_token_of("fabrikam.azurecr.io", ends_in(1h));
  const auto refused = identities.sign_in(contoso, Secret(token));
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, Errc::bad_request);
  EXPECT_EQ(refused.error().detail,
            "the token is not used for contoso.azurecr.io: it is a refresh token of "
            "fabrikam.azurecr.io");
  EXPECT_FALSE(identities.is_signed_in("contoso.azurecr.io"));
  EXPECT_TRUE(world.http.asked().empty());
}

TEST_F(SignIn, AgainReplacesTheFirst) {
  ASSERT_TRUE(identities.sign_in(contoso, Secret(refresh_token_of(host, ends_in(1h), 1))));
  const std::string second = refresh_token_of(host, ends_in(2h), 2);
  ASSERT_TRUE(identities.sign_in(contoso, Secret(second)));
  use();
  EXPECT_TRUE(pull());
  EXPECT_EQ(acr.last_refresh, second);
}

TEST_F(SignIn, EndsByItsTimeUsedOrNot) {
  ASSERT_TRUE(identities.sign_in(contoso, Secret(refresh_token_of(host, ends_in(1h)))));
  const Place other = at({"https", "fabrikam.azurecr.io", 443});
  ASSERT_TRUE(identities.sign_in(other, Secret(refresh_token_of(other.name, ends_in(1h)))));
  use();
  EXPECT_TRUE(pull());
  for (int minute = 0; minute < 58; ++minute) {
    EXPECT_TRUE(identities.drop_ended_sign_ins().empty()) << minute;
    EXPECT_TRUE(pull("app" + std::to_string(minute))) << minute;
    world.clock.advance(1min);
  }
  world.clock.advance(3min);
  EXPECT_EQ(acr.used_after_end, 0);
  const auto ended = pull("late");
  EXPECT_EQ(ended.error().code, Errc::identity_missing);
  EXPECT_TRUE(ended.error().detail.starts_with("the token of the sign-in: it has ended "));
  EXPECT_TRUE(ended.error().detail.ends_with(
      " minutes ago. Sign in again: staithe login contoso.azurecr.io --token-stdin"))
      << ended.error().detail;
  EXPECT_EQ(identities.drop_ended_sign_ins(), (std::vector<std::string>{host, other.name}));
  EXPECT_FALSE(identities.is_signed_in(host));
  EXPECT_TRUE(identities.drop_ended_sign_ins().empty());
  try {
    use();
    FAIL();
  } catch (const Failure& failure) {
    EXPECT_EQ(failure.code(), Errc::identity_missing);
    EXPECT_STREQ(failure.what(), "the sign-in for contoso.azurecr.io has ended");
  }
}

TEST_F(SignIn, OutForgetsIt) {
  ASSERT_TRUE(identities.sign_in(contoso, Secret(refresh_token_of(host, ends_in(1h)))));
  EXPECT_TRUE(identities.sign_out(host));
  EXPECT_FALSE(identities.sign_out(host));
  EXPECT_FALSE(identities.is_signed_in(host));
  EXPECT_THROW(use(), Failure);
}

class ServiceAccounts : public SignIn {
 protected:
  static ServiceAccount account(std::string_view token = "pod-token-1",
                                const std::string& client = "app",
                                const std::string& tenant = "tenant") {
    return {.client_id = client, .tenant_id = tenant, .token = Secret(token)};
  }
  Result<Login> login(ServiceAccount of, const Place& place = contoso) {
    return world.now(identities.service_account_login(place, std::move(of)));
  }

  FakeEntra entra{world.http, world.clock};
};

TEST_F(ServiceAccounts, GetALoginByTheirOwnToken) {
  const auto got = login(account());
  ASSERT_TRUE(got) << got.error().detail;
  EXPECT_EQ(got->username, "00000000-0000-0000-0000-000000000000");
  EXPECT_TRUE(is_acr_refresh_token(got->secret->reveal()));
  EXPECT_EQ(got->expires_in, 3h);
  ASSERT_EQ(entra.asked.size(), 1U);
  EXPECT_EQ(entra.asked[0].target, "/tenant/oauth2/v2.0/token");
  EXPECT_EQ(entra.asked[0].field("client_id"), "app");
  EXPECT_EQ(entra.asked[0].field("client_assertion"), "pod-token-1");
  EXPECT_EQ(acr.exchanges, 1);
  EXPECT_EQ(acr.last_tenant, "tenant");
  EXPECT_TRUE(world.http.leaks("pod-token-1", std::string(FakeEntra::authority)).empty());
}

TEST_F(ServiceAccounts, ShareOnlyWithTheVerySameToken) {
  EXPECT_TRUE(login(account()));
  EXPECT_TRUE(login(account()));
  EXPECT_EQ(entra.calls, 1);
  for (ServiceAccount (*other)() :
       {+[] { return account("pod-token-2"); }, +[] { return account("pod-token-1", "app2"); },
        +[] { return account("pod-token-1", "app", "tenant2"); }}) {
    const int before = entra.calls;
    EXPECT_TRUE(login(other()));
    EXPECT_EQ(entra.calls, before + 1);
  }
  const Place other = at({"https", "fabrikam.azurecr.io", 443});
  FakeAcr fabrikam(world.http, world.clock, other.name);
  EXPECT_TRUE(login(account(), other));
  EXPECT_EQ(fabrikam.exchanges, 1);
  EXPECT_EQ(entra.calls, 5);
}

TEST_F(ServiceAccounts, FiveHundredAtOnceAreOneCallAndOneExchange) {
  fake::Gate gate(world.io.get_executor());
  entra.gate = &gate;
  std::vector<std::shared_ptr<Caller<Login>>> calls;
  for (int i = 0; i < 500; ++i)
    calls.push_back(world.begin(identities.service_account_login(contoso, account())));
  world.clock.settle();
  gate.open();
  world.clock.settle();
  for (const auto& call : calls)
    EXPECT_EQ(call->value().secret->reveal(), calls[0]->value().secret->reveal());
  EXPECT_EQ(entra.calls, 1);
  EXPECT_EQ(acr.exchanges, 1);
}

TEST_F(ServiceAccounts, AreForgottenAfterTenMinutes) {
  EXPECT_TRUE(login(account()));
  world.clock.advance(10min - 1s);
  EXPECT_TRUE(login(account()));
  EXPECT_EQ(entra.calls, 1);
  world.clock.advance(2s);
  EXPECT_TRUE(login(account()));
  EXPECT_EQ(entra.calls, 2);
  // And not renewed behind anybody's back for ever.
  world.clock.advance(24h);
  EXPECT_EQ(entra.calls, 2);
}

TEST_F(ServiceAccounts, ARefusedOneIsToldAndNotAskedForByEveryPod) {
  entra.next = {
      FakeEntra::refusal("invalid_client", "AADSTS70021: no matching federated identity")};
  for (int i = 0; i < 100; ++i) {
    const auto refused = login(account());
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, Errc::unauthorized);
    EXPECT_TRUE(refused.error().detail.ends_with(
        "Check that the application has a federated credential for the service account's issuer, "
        "subject and audience"))
        << refused.error().detail;
    EXPECT_FALSE(refused.error().detail.contains("pod-token-1"));
  }
  EXPECT_EQ(entra.calls, 1);
}

// Tokens that are no good take no place from those that are.
TEST_F(ServiceAccounts, ManyRefusedOnesKeepNobodyOut) {
  world.http.on(std::string(FakeEntra::authority), [&](const Asked& asked) {
    if (asked.field("client_assertion").starts_with("bad"))
      return FakeEntra::refusal("invalid_client", "no");
    return Reply::json(R"({"access_token":"e","expires_in":3599,"token_type":"Bearer"})");
  });
  for (int i = 0; i < 600; ++i) EXPECT_FALSE(login(account("bad-" + std::to_string(i))));
  EXPECT_TRUE(login(account("good")));
  for (int i = 0; i < 255; ++i) EXPECT_TRUE(login(account("good-" + std::to_string(i)))) << i;
  EXPECT_EQ(login(account("one-more")).error().code, Errc::throttled);
  world.clock.advance(11min);
  EXPECT_TRUE(login(account("one-more")));
}

TEST_F(ServiceAccounts, AreForAzureAndForProperTenants) {
  EXPECT_EQ(login(account(), at({"https", "ghcr.io", 443})).error().code, Errc::config);
  EXPECT_EQ(login(account("pod-token-1", "app", "../common")).error().code, Errc::config);
  EXPECT_TRUE(world.http.asked().empty());
}

TEST_F(ServiceAccounts, MayBeForgottenAfterTheIdentitiesAreGone) {
  auto own = std::make_unique<Identities>(
      AzureSettings{}, std::map<std::string, IdentitySettings>{}, world.environment());
  EXPECT_TRUE(world.now(own->service_account_login(contoso, account())));
  own.reset();
  world.clock.advance(11min);
}

}  // namespace
}  // namespace staithe::proxy::auth
