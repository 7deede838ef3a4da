// Every kind of identity of the configuration, from its settings to a pull, a login and its errors.
#include <gtest/gtest.h>

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "proxy/auth/identities.h"
#include "tests/proxy/auth/fake_entra.h"
#include "tests/proxy/auth/make_certificate.h"
#include "tests/proxy/auth/world.h"

namespace staithe::proxy::auth {
namespace {

using namespace std::chrono_literals;
using fake::Asked;
using fake::FakePrograms;
using fake::Reply;

const std::string host = "contoso.azurecr.io";
const std::string null_id = "00000000-0000-0000-0000-000000000000";

class Kinds : public testing::Test {
 protected:
  Kinds() {
    world.files.write("/secret", "s3cr3t");
    world.http.on("http://169.254.169.254", [this](const Asked& asked) {
      ++imds_calls;
      imds_resource = asked.field("resource");
      return Reply::json(R"({"access_token":")" + entra_token(server_time(world.clock) + 3600) +
                         R"(","expires_in":"3600","token_type":"Bearer"})");
    });
  }
  static IdentitySettings application() {
    IdentitySettings settings;
    settings.kind = IdentityKind::service_principal;
    settings.tenant_id = "tenant";
    settings.client_id = "app";
    settings.client_secret_file = "/secret";
    return settings;
  }
  std::unique_ptr<Authorizer> make(const IdentitySettings& settings,
                                   const Origin& origin = {"https", host, 443}) {
    return identities.make_authorizer(at(origin), settings);
  }
  Result<Authorization> pull(Authorizer& authorizer, const std::string& repository = "app") {
    const auto call = world.call(authorizer.for_pull(repository));
    world.clock.advance(10s);  // For tries that are repeated.
    if (!call->outcome) return fail(Errc::in_use, "the call waits");
    return std::move(*call->outcome);
  }

  World world;
  FakeAcr acr{world.http, world.clock, host};
  FakeEntra entra{world.http, world.clock};
  AzureSettings azure = [] {
    AzureSettings settings;
    settings.arc_agent = "/no/such/agent";
    return settings;
  }();
  Identities identities{azure, {{"vm", machine()}}, world.environment()};
  static IdentitySettings machine() {
    IdentitySettings settings;
    settings.kind = IdentityKind::managed_identity;
    return settings;
  }
  int imds_calls = 0;
  std::string imds_resource;
};

TEST_F(Kinds, AllOfEntraPullAndGiveTheNullIdWithARefreshToken) {
  const Pair pair = make_pair();
  world.files.write("/app.pem", pair.key + pair.certificate);
  world.files.write("/token", "assertion");
  IdentitySettings certificate = application();
  certificate.client_secret_file.clear();
  certificate.certificate_file = "/app.pem";
  IdentitySettings workload = application();
  workload.kind = IdentityKind::workload_identity;
  workload.client_secret_file.clear();
  workload.token_file = "/token";
  IdentitySettings federated = workload;
  federated.token_file.clear();
  federated.federated_identity = "vm";
  for (const IdentitySettings& settings :
       {application(), certificate, workload, federated, machine()}) {
    const auto authorizer = make(settings);
    EXPECT_EQ(authorizer->login_name(), null_id);
    ASSERT_TRUE(pull(*authorizer)) << to_string(settings.kind);
    const auto login = world.now(authorizer->login());
    EXPECT_EQ(login->username, null_id);
    EXPECT_EQ(login->secret->reveal(), acr.last_refresh);
    EXPECT_TRUE(login->renewable);
    EXPECT_GT(login->expires_in, 2h);
    EXPECT_EQ(acr.last_tenant, settings.tenant_id);
    ASSERT_EQ(authorizer->tokens().size(), 3U);
    EXPECT_EQ(authorizer->tokens()[0].kind, "entra");
    EXPECT_TRUE(authorizer->tokens()[0].renews_in);
  }
  EXPECT_TRUE(world.reports.empty());
}

TEST_F(Kinds, PasswordsAreGivenAsTheyAreAndAnonymousHasNone) {
  IdentitySettings basic;
  basic.kind = IdentityKind::basic;
  basic.username = "admin";
  basic.password_file = "/secret";
  IdentitySettings config;
  config.kind = IdentityKind::docker_config;
  config.file = "/config.json";
  world.files.write("/config.json",
                    R"({"auths":{"contoso.azurecr.io":{"username":"u","password":"s3cr3t"}}})");
  IdentitySettings helper;
  helper.kind = IdentityKind::helper;
  helper.helper = "pass";
  world.programs.play = [](const ProgramRun& run) {
    EXPECT_EQ(run.input, host);
    return FakePrograms::Said{.output = R"({"Username":"h","Secret":"s3cr3t"})"};
  };
  const std::tuple<IdentitySettings, std::string, bool> table[] = {
      {basic, "admin", false}, {config, "u", true}, {helper, "h", true}};
  for (const auto& [settings, user, renewable] : table) {
    const auto authorizer = make(settings);
    const auto login = world.now(authorizer->login());
    ASSERT_TRUE(login) << login.error().detail;
    EXPECT_EQ(login->username, user);
    EXPECT_EQ(login->secret->reveal(), "s3cr3t");
    EXPECT_EQ(login->renewable, renewable);
    EXPECT_EQ(authorizer->login_name(), user);
  }
  const auto nobody = make(IdentitySettings());
  EXPECT_EQ(world.now(nobody->login()).error().code, Errc::not_found);
  EXPECT_EQ(nobody->login_name(), "");
  EXPECT_TRUE(world.http.asked().empty());
}

TEST_F(Kinds, OfEntraAreForAzureAlone) {
  for (const Origin& origin :
       {Origin{"https", "ghcr.io", 443}, Origin{"https", "contoso.azurecr.io.evil.example", 443},
        Origin{"http", host, 80}}) {
    IdentitySettings token;
    token.kind = IdentityKind::token;
    token.token_file = "/token";
    for (const IdentitySettings& settings : {application(), machine(), token})
      EXPECT_THROW((void)make(settings, origin), Failure) << origin.to_string();
  }
  EXPECT_TRUE(world.http.asked().empty());
  EXPECT_TRUE(world.files.asked.empty());
}

TEST_F(Kinds, AFederatedManagedIdentityIsAskedForTheExchangesAudience) {
  IdentitySettings federated = application();
  federated.kind = IdentityKind::workload_identity;
  federated.client_secret_file.clear();
  federated.federated_identity = "vm";
  const auto authorizer = make(federated);
  ASSERT_TRUE(pull(*authorizer));
  EXPECT_EQ(imds_calls, 1);
  EXPECT_EQ(imds_resource, "api://AzureADTokenExchange");
  EXPECT_EQ(entra.asked.at(0).field("client_assertion"),
            entra_token(server_time(world.clock) - 10 + 3600));
  // The assertion goes to Entra, and what Entra gives goes to the registry.
  EXPECT_TRUE(
      world.http.leaks(entra.asked[0].field("client_assertion"), std::string(FakeEntra::authority))
          .empty());
  federated.federated_identity = "gone";
  EXPECT_THROW((void)make(federated), Failure);
}

TEST_F(Kinds, TwoRegistriesOfOneApplicationShareItsEntraToken) {
  FakeAcr other(world.http, world.clock, "fabrikam.azurecr.io");
  const auto first = make(application());
  const auto second = make(application(), {"https", "fabrikam.azurecr.io", 443});
  IdentitySettings stranger = application();
  stranger.client_id = "stranger";
  const auto third = make(stranger);
  ASSERT_TRUE(pull(*first));
  ASSERT_TRUE(pull(*second));
  EXPECT_EQ(entra.calls, 1);
  EXPECT_EQ(acr.exchanges + other.exchanges, 2);
  ASSERT_TRUE(pull(*third));
  EXPECT_EQ(entra.calls, 2);
}

TEST_F(Kinds, RenewFetchesWhatAccessTokensAreMadeFrom) {
  const auto authorizer = make(application());
  ASSERT_TRUE(pull(*authorizer));
  const auto renew = [&] {
    return world.now([](Authorizer& of) -> asio::awaitable<int> {
      co_await of.renew();
      co_return 0;
    }(*authorizer));
  };
  EXPECT_TRUE(renew());
  EXPECT_EQ(entra.calls, 2);
  EXPECT_EQ(acr.exchanges, 2);
  entra.next = {FakeEntra::refusal("invalid_client", "ended")};
  EXPECT_EQ(renew().error().code, Errc::unauthorized);
  // What is kept stays.
  EXPECT_TRUE(pull(*authorizer, "other"));
  ASSERT_TRUE(authorizer->last_error());
  EXPECT_TRUE(renew());
  EXPECT_FALSE(authorizer->last_error());
}

TEST_F(Kinds, WhatAPersonHasToRenewIsSeenAMonthAhead) {
  world.clock.set_wall(std::chrono::sys_days(std::chrono::year(2026) / 3 / 1));
  IdentitySettings settings = application();
  settings.secret_expires = std::chrono::year(2026) / 3 / 31;
  auto authorizer = make(settings);
  ASSERT_EQ(authorizer->endings().size(), 1U);
  EXPECT_EQ(authorizer->endings()[0].what, "secret in /secret");
  EXPECT_EQ(authorizer->endings()[0].expires_in, 30 * 24h);
  EXPECT_FALSE(authorizer->endings()[0].is_near());
  world.clock.advance(1s);
  EXPECT_TRUE(authorizer->endings()[0].is_near());
  settings.secret_expires = std::chrono::year(9999) / 12 / 31;
  EXPECT_FALSE(make(settings)->endings()[0].is_near());
  EXPECT_GT(make(settings)->endings()[0].expires_in, std::chrono::years(7000));
  IdentitySettings basic;
  basic.kind = IdentityKind::basic;
  basic.username = "token";
  basic.password_file = "/secret";
  basic.secret_expires = std::chrono::year(2026) / 3 / 2;
  EXPECT_TRUE(make(basic)->endings()[0].is_near());
  // Of a certificate it is known once it has been read.
  const Pair pair = make_pair({.not_after = "20260320000000Z"});
  world.files.write("/app.pem", pair.key + pair.certificate);
  settings = application();
  settings.client_secret_file.clear();
  settings.certificate_file = "/app.pem";
  authorizer = make(settings);
  EXPECT_TRUE(authorizer->endings().empty());
  ASSERT_TRUE(pull(*authorizer));
  ASSERT_EQ(authorizer->endings().size(), 1U);
  EXPECT_EQ(authorizer->endings()[0].what, "certificate /app.pem");
  EXPECT_TRUE(authorizer->endings()[0].is_near());
}

// Each class of failure with its sentence: the step, the cause, the remedy.
TEST(KindsOfFailure, AreToldApart) {
  struct Setting {
    World world;
    FakeAcr acr{world.http, world.clock, host};
    FakeEntra entra{world.http, world.clock};
    Setting() { world.files.write("/secret", "s3cr3t"); }
  };
  const std::string entra_step =
      "getting an Entra token for the application app from "
      "https://login.microsoftonline.com/tenant/oauth2/v2.0/token: ";
  const std::string exchange_step =
      "exchanging the Entra token for a refresh token at contoso.azurecr.io: ";
  const std::string token_step = "getting an access token for contoso.azurecr.io/app: ";
  const auto oci = [](int status, const std::string& code, const std::string& message) {
    return Reply::json(R"({"errors":[{"code":")" + code + R"(","message":")" + message + "\"}]}",
                       status);
  };
  const struct {
    std::function<void(Setting&)> go_wrong;
    Errc code;
    std::string detail;
  } table[] = {
      {[](Setting& s) { s.world.files.remove("/secret"); }, Errc::identity_missing,
       entra_step + "the file /secret cannot be read"},
      {[](Setting& s) { s.entra.secret = "another"; }, Errc::unauthorized,
       entra_step +
           "401 invalid_client: AADSTS7000215: Invalid client secret provided. Make a new secret "
           "(az ad app credential reset --id APP) and put it into /secret"},
      {[](Setting& s) {
         s.entra.next = {Reply{.status = 429, .headers = {{"Retry-After", "30"}}}};
       },
       Errc::throttled, entra_step + "429"},
      {[](Setting& s) {
         s.world.http.on(std::string(FakeEntra::authority),
                         {Reply::failure(Errc::unreachable, "no route to host")});
       },
       Errc::unreachable, entra_step + "no route to host"},
      {[](Setting& s) { s.entra.next = {Reply{.body = "<html>portal</html>"}}; },
       Errc::upstream_nonsense, entra_step + "the answer is not JSON: syntax error"},
      {[&](Setting& s) { s.acr.exchange_refusal = oci(401, "UNAUTHORIZED", "not accepted"); },
       Errc::unauthorized,
       exchange_step +
           "401 UNAUTHORIZED: not accepted. Give the identity the role AcrPull on this registry "
           "(Container Registry Repository Reader where it uses ABAC), wait up to 10 minutes, and "
           "check that the registry accepts tokens for azure.audience"},
      {[&](Setting& s) {
         s.acr.exchange_refusal =
             oci(403, "DENIED", "client with IP '203.0.113.7' is not allowed access.");
       },
       Errc::firewall,
       exchange_step +
           "403 DENIED: client with IP '203.0.113.7' is not allowed access. Let this machine "
           "through the registry's network rules (public access, firewall, private endpoint); the "
           "tokens are kept"},
      {[&](Setting& s) { s.acr.token_refusal = oci(403, "DENIED", "no"); }, Errc::denied,
       token_step +
           "403 DENIED: no. Let this machine through the registry's network rules (public access, "
           "firewall, private endpoint); the tokens are kept"},
      {[&](Setting& s) {
         s.acr.token_refusal =
             Reply{.status = 429, .headers = {{"Retry-After", "30"}}, .body = "Ref A: 1234"};
       },
       Errc::throttled, token_step + "429 Ref A: 1234"},
      {[&](Setting& s) { s.acr.token_refusal = oci(404, "NOT_FOUND", "no such page"); },
       Errc::upstream_nonsense,
       token_step + "404 NOT_FOUND: no such page. Is this an Azure Container Registry?"},
      {[&](Setting& s) { s.acr.token_refusal = Reply{.status = 503}; }, Errc::upstream_failed,
       token_step + "503"},
  };
  for (const auto& row : table) {
    Setting setting;
    row.go_wrong(setting);
    AzureSettings azure;
    Identities identities(azure, {}, setting.world.environment());
    IdentitySettings settings;
    settings.kind = IdentityKind::service_principal;
    settings.tenant_id = "tenant";
    settings.client_id = "app";
    settings.client_secret_file = "/secret";
    const auto authorizer = identities.make_authorizer(at({"https", host, 443}), settings);
    const auto call = setting.world.call(authorizer->for_pull("app"));
    setting.world.clock.advance(5s);
    ASSERT_TRUE(call->outcome) << row.detail;
    ASSERT_FALSE(*call->outcome) << row.detail;
    EXPECT_EQ(call->error().code, row.code) << row.detail;
    EXPECT_EQ(call->error().detail, row.detail);
  }
}

}  // namespace
}  // namespace staithe::proxy::auth
