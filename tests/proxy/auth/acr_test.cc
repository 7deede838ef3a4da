#include "proxy/auth/acr.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "proxy/auth/identities.h"
#include "proxy/auth/scoped_tokens.h"
#include "proxy/rate_limit.h"
#include "tests/proxy/auth/fake_azure.h"
#include "tests/proxy/auth/world.h"

namespace staithe::proxy::auth {
namespace {

using fake::Asked;
using fake::Reply;
using namespace std::chrono_literals;

const Origin contoso{"https", "contoso.azurecr.io", 443};
const std::string host = "contoso.azurecr.io";
const std::string exchange = "https://contoso.azurecr.io/oauth2/exchange";
const std::string token_url = "https://contoso.azurecr.io/oauth2/token";
const std::string challenge_url = "https://contoso.azurecr.io/v2/";

const IdentitySettings machine = [] {
  IdentitySettings identity;
  identity.kind = IdentityKind::managed_identity;
  return identity;
}();

Headers challenge(std::string value) {
  Headers headers;
  headers.add("Www-Authenticate", std::move(value));
  return headers;
}

class Acr : public testing::Test {
 protected:
  Acr() { azure.add_registry(host); }

  // The Authorization for `repository`, without time passing; "error: ..." or "waits" otherwise.
  std::string got(const std::string& repository) {
    const auto call = world.call(authorizer->for_pull(repository));
    if (!call->outcome) return "waits";
    if (!*call->outcome) return "error: " + call->outcome->error().detail;
    last = call->value();
    return last ? std::string(last->reveal()) : "none";
  }
  Error error_of(const std::string& repository) {
    const auto call = world.call(authorizer->for_pull(repository));
    world.clock.advance(1s);  // A 5xx is tried twice.
    return call->error();
  }
  int status(const std::string& repository) {
    return azure.data_status(host, repository, got(repository));
  }
  std::size_t count(std::string_view prefix) const { return world.http.count(prefix); }
  // Answers this URL with these, then as Azure does.
  void next(const std::string& url, std::vector<Reply> replies) {
    auto left = std::make_shared<std::vector<Reply>>(std::move(replies));
    azure.fault = [url, left](const Asked& asked) -> std::optional<Reply> {
      if (!asked.url.starts_with(url) || left->empty()) return std::nullopt;
      Reply reply = left->front();
      left->erase(left->begin());
      return reply;
    };
  }
  void always(const std::string& url, Reply reply) {
    azure.fault = [url, reply](const Asked& asked) -> std::optional<Reply> {
      if (!asked.url.starts_with(url)) return std::nullopt;
      return reply;
    };
  }

  World world;
  FakeAzure azure{world.http, world.clock};
  Identities identities{AzureSettings{}, {}, world.environment()};
  std::unique_ptr<Authorizer> authorizer =
      identities.make_authorizer(at(contoso, "/etc/ca.pem"), machine);
  Authorization last;
};

TEST_F(Acr, WalksFromTheMachinesIdentityToATokenForOneRepository) {
  EXPECT_EQ(status("app/web"), 200);
  ASSERT_EQ(world.http.asked().size(), 4U);
  const auto& asked = world.http.asked();
  EXPECT_EQ(asked[0].method + " " + asked[0].url, "GET " + challenge_url);
  EXPECT_TRUE(asked[0].headers.empty());
  EXPECT_TRUE(asked[1].url.starts_with("http://169.254.169.254/metadata/identity/oauth2/token?"));
  EXPECT_EQ(asked[2].method + " " + asked[2].url, "POST " + exchange);
  EXPECT_EQ(asked[2].field("grant_type"), "access_token");
  EXPECT_EQ(asked[2].field("service"), host);
  EXPECT_FALSE(asked[2].body.contains("tenant"));
  EXPECT_EQ(asked[3].method + " " + asked[3].url, "POST " + token_url);
  EXPECT_EQ(asked[3].field("grant_type"), "refresh_token");
  EXPECT_EQ(asked[3].field("scope"), "repository:app/web:pull");
  for (const std::size_t i : {0U, 2U, 3U}) EXPECT_EQ(asked[i].ca_file, "/etc/ca.pem");
  EXPECT_EQ(asked[1].ca_file, "");
  // Everything is kept.
  EXPECT_EQ(status("app/web"), 200);
  EXPECT_EQ(world.http.asked().size(), 4U);
  EXPECT_EQ(status("other"), 200);
  EXPECT_EQ(world.http.asked().size(), 5U);
  EXPECT_EQ(count(token_url), 2U);
}

TEST_F(Acr, FiveHundredColdPullsAreOneRequestOfEachKind) {
  std::vector<std::shared_ptr<Caller<Authorization>>> calls;
  for (int i = 0; i < 500; ++i) calls.push_back(world.begin(authorizer->for_pull("app/web")));
  world.clock.settle();
  for (const auto& call : calls) EXPECT_EQ(call->value(), calls.front()->value());
  EXPECT_EQ(count(challenge_url), 1U);
  EXPECT_EQ(count("http://169.254.169.254/"), 1U);
  EXPECT_EQ(count(exchange), 1U);
  EXPECT_EQ(count(token_url), 1U);
}

TEST_F(Acr, FiveHundredRepositoriesShareTheExchange) {
  std::vector<std::shared_ptr<Caller<Authorization>>> calls;
  for (int i = 0; i < 500; ++i)
    calls.push_back(world.begin(authorizer->for_pull("app/" + std::to_string(i))));
  world.clock.settle();
  // The burst that one machine allows itself, the exchange among it; the others follow in turn.
  EXPECT_EQ(count(token_url), static_cast<std::size_t>(RateLimit::acr_tokens.burst) - 1);
  world.clock.advance(6s);
  for (int i = 0; i < 500; ++i) {
    EXPECT_EQ(azure.data_status(host, "app/" + std::to_string(i),
                                calls[static_cast<std::size_t>(i)]->value()->reveal()),
              200);
  }
  EXPECT_EQ(count(challenge_url), 1U);
  EXPECT_EQ(count("http://169.254.169.254/"), 1U);
  EXPECT_EQ(count(exchange), 1U);
  EXPECT_EQ(count(token_url), 500U);
}

TEST_F(Acr, RegistriesShareTheEntraTokenOfOneIdentity) {
  azure.add_registry("fabrikam.azurecr.io");
  const auto second =
      identities.make_authorizer(at({"https", "fabrikam.azurecr.io", 443}, ""), machine);
  IdentitySettings other = machine;
  other.client_id = "22222222";
  const auto third = identities.make_authorizer(at(contoso, ""), other);
  EXPECT_EQ(status("a"), 200);
  EXPECT_TRUE(world.now(second->for_pull("a")));
  EXPECT_EQ(count("http://169.254.169.254/"), 1U);
  EXPECT_TRUE(world.now(third->for_pull("a")));
  EXPECT_EQ(count("http://169.254.169.254/"), 2U);
  // No byte of one registry's tokens at the other.
  for (const auto& [token, what] : azure.tokens()) {
    if (what == "entra " + std::string(FakeAzure::audience)) continue;
    EXPECT_TRUE(world.http.leaks(token, "https://" + what.substr(what.find(' ') + 1)).empty())
        << what;
  }
}

TEST_F(Acr, UsesTheServiceOfTheChallenge) {
  next(challenge_url, {Reply{.status = 401,
                             .headers = {{"WWW-Authenticate",
                                          "Basic realm=\"x\", Bearer "
                                          "realm=\"https://contoso.azurecr.io/oauth2/token\","
                                          "service=\"the one, and \\\"only\\\"\""}}}});
  (void)got("app");
  EXPECT_EQ(world.http.last(exchange)->field("service"), "the one, and \"only\"");
}

TEST_F(Acr, ARegionalEndpointMayNameTheGlobalOneAndIsAskedItself) {
  const Origin regional{"https", "contoso.westeurope.geo.azurecr.io", 443};
  azure.add_registry(regional.host);
  azure.realm[regional.host] = "https://contoso.azurecr.io/oauth2/token";
  const auto there = identities.make_authorizer(at(regional, ""), machine);
  EXPECT_TRUE(world.now(there->for_pull("app")));
  EXPECT_EQ(count("https://contoso.azurecr.io/"), 0U);
  EXPECT_EQ(count("https://contoso.westeurope.geo.azurecr.io/oauth2/"), 2U);
}

// Ground rule 2: a credential belongs to one origin. Whatever a registry's challenge says.
TEST_F(Acr, NoRealmMakesItSendAByteOfACredentialElsewhere) {
  for (const std::string_view realm : {
           "https://evil.example/oauth2/token",
           "https://contoso.azurecr.io.evil.example/token",
           "https://contosoazurecr.io/token",
           "https://fabrikam.azurecr.io/oauth2/token",
           "https://contoso.azurecr.cn/oauth2/token",
           "http://contoso.azurecr.io/oauth2/token",
           "https://contoso.azurecr.io:8443/oauth2/token",
           "https://127.0.0.1/token",
           "https://localhost/token",
           "http://169.254.169.254/metadata/identity/oauth2/token",
           "https://contoso.westeurope.data.azurecr.io/token",
           "https://[::1]/token",
           "https://user@contoso.azurecr.io/token",
           "https://contoso.azurecr.io@evil.example/",
           "https://contoso.azurecr.io\\\\@evil.example/",
           "https://evil.example\\\\.azurecr.io/",
           "//evil.example/token",
           "/oauth2/token",
           "oauth2/token",
           "",
           "https:evil.example",
           "javascript:alert(1)",
           "file:///etc/passwd",
           "https://contoso.azurecr.io#@evil.example/",
           "https://contoso.azurecr.io%2eevil.example/",
           "https://evil.example/?contoso.azurecr.io/",
           "https://azurecr.io/oauth2/token",
           "https://a.b.azurecr.io/t",
           "ftp://contoso.azurecr.io/",
           "https://contoso.azurecr.io./oauth2/token",
           "https://xn--contoso.azurecr.io/token",
           "https://contoso-1234.azurecr.io/oauth2/token",
           "https://contoso.azurecr.io:0/t",
       }) {
    World fresh;
    FakeAzure cloud(fresh.http, fresh.clock);
    cloud.add_registry(host);
    cloud.realm[host] = std::string(realm);
    Identities all(AzureSettings{}, {}, fresh.environment());
    const auto victim = all.make_authorizer(at(contoso, ""), machine);
    const auto outcome = fresh.now(victim->for_pull("app"));
    ASSERT_FALSE(outcome) << realm;
    EXPECT_EQ(outcome.error().code, Errc::upstream_nonsense) << realm;
    // Not even the Entra token was asked for.
    EXPECT_EQ(fresh.http.asked().size(), 1U) << realm;
    EXPECT_TRUE(cloud.tokens().empty());
  }
}

TEST_F(Acr, NoRedirectOfATokenCallIsFollowed) {
  for (const std::string& url : {challenge_url, exchange, token_url}) {
    for (const int status : {301, 302, 303, 307, 308}) {
      World fresh;
      FakeAzure cloud(fresh.http, fresh.clock);
      cloud.add_registry(host);
      cloud.add_registry("fabrikam.azurecr.io");
      cloud.fault = [&](const Asked& asked) -> std::optional<Reply> {
        if (asked.url != url) return std::nullopt;
        return Reply{.status = status, .headers = {{"Location", "https://fabrikam.azurecr.io/x"}}};
      };
      Identities all(AzureSettings{}, {}, fresh.environment());
      const auto victim = all.make_authorizer(at(contoso, ""), machine);
      const auto outcome = fresh.now(victim->for_pull("app"));
      EXPECT_EQ(outcome.error().code, Errc::upstream_nonsense) << url << " " << status;
      EXPECT_EQ(fresh.http.count("https://fabrikam.azurecr.io"), 0U);
    }
  }
}

TEST_F(Acr, TokensStayWithTheirOwners) {
  EXPECT_EQ(status("a"), 200);
  EXPECT_EQ(status("b"), 200);
  world.clock.advance(5h);
  EXPECT_EQ(status("a"), 200);
  ASSERT_GE(azure.tokens().size(), 6U);
  for (const auto& [token, what] : azure.tokens())
    EXPECT_TRUE(world.http.leaks(token, "https://" + host).empty()) << what;
  // An Entra token goes to the exchange alone, a refresh token to the token endpoint alone.
  for (const Asked& asked : world.http.asked()) {
    EXPECT_FALSE(asked.headers.find("authorization")) << asked.url;
    if (!asked.field("access_token").empty()) {
      EXPECT_EQ(asked.url, exchange);
    }
    if (!asked.field("refresh_token").empty()) {
      EXPECT_EQ(asked.url, token_url);
    }
  }
}

TEST_F(Acr, NothingGrantedIsDeniedAndNotAskedAgainAtOnce) {
  azure.denied = {"secret/app"};
  for (int i = 0; i < 100; ++i) {
    EXPECT_EQ(
        got("secret/app"),
        "error: getting an access token for contoso.azurecr.io/secret/app: it grants nothing. "
        "Give the identity the role AcrPull, or Container Registry Repository Reader for this "
        "repository where the registry uses ABAC");
  }
  EXPECT_EQ(error_of("secret/app").code, Errc::denied);
  EXPECT_EQ(count(token_url), 1U);
  EXPECT_EQ(count(exchange), 1U);
  EXPECT_EQ(status("app"), 200);
  // Once the role is given, it works without a restart.
  azure.denied = {};
  world.clock.advance(1min);
  EXPECT_EQ(status("secret/app"), 200);
}

TEST_F(Acr, GrantedForAnotherRepositoryIsDenied) {
  next(token_url,
       {Reply::json(
           "{\"access_token\":\"" +
           make_jwt(R"({"access":[{"type":"repository","name":"other","actions":["pull"]}]})") +
           "\"}")});
  const Error error = error_of("app");
  EXPECT_EQ(error.code, Errc::denied);
  EXPECT_TRUE(error.detail.contains("it grants other:pull")) << error.detail;
}

TEST_F(Acr, AnIdentityWithoutARoleIsToldWhatToDo) {
  azure.role_missing = true;
  next(exchange, {Reply{.status = 401,
                        .headers = {{"X-Ms-Correlation-Request-Id", "0b4c9a52-1234"}},
                        .body = R"({"errors":[{"code":"UNAUTHORIZED","message":"no"}]})"}});
  const Error error = error_of("app");
  EXPECT_EQ(error.code, Errc::unauthorized);
  EXPECT_EQ(
      error.detail,
      "exchanging the Entra token for a refresh token at contoso.azurecr.io: 401 UNAUTHORIZED: "
      "no; correlation id 0b4c9a52-1234. Give the identity the role AcrPull on this registry "
      "(Container Registry Repository Reader where it uses ABAC), wait up to 10 minutes, and "
      "check that the registry accepts tokens for azure.audience");
  for (int i = 0; i < 100; ++i) (void)got("app" + std::to_string(i));
  EXPECT_EQ(count(exchange), 1U);
  EXPECT_EQ(count("http://169.254.169.254/"), 1U);
  azure.role_missing = false;
  world.clock.advance(1min);
  EXPECT_EQ(status("app"), 200);
}

TEST_F(Acr, AnOldEntraTokenThatTheExchangeRefusesIsReplacedOnce) {
  EXPECT_EQ(status("app"), 200);
  world.clock.advance(30min);
  azure.revoke("entra");
  azure.add_registry("fabrikam.azurecr.io");
  const auto second =
      identities.make_authorizer(at({"https", "fabrikam.azurecr.io", 443}, ""), machine);
  EXPECT_TRUE(world.now(second->for_pull("app")));
  EXPECT_EQ(count("https://fabrikam.azurecr.io/oauth2/exchange"), 2U);
  EXPECT_EQ(count("http://169.254.169.254/"), 2U);
}

TEST_F(Acr, ARefusedRefreshTokenIsReplacedOnce) {
  EXPECT_EQ(status("app"), 200);
  azure.revoke("refresh");
  EXPECT_EQ(status("other"), 200);
  EXPECT_EQ(count(exchange), 2U);
  EXPECT_EQ(count(token_url), 3U);
  // The access token of the first repository was not touched.
  EXPECT_EQ(status("app"), 200);
  EXPECT_EQ(count(token_url), 3U);
}

TEST_F(Acr, ATokenEndpointThatRefusesEveryRefreshTokenIsNotHammered) {
  always(token_url, Reply{.status = 401});
  const Error error = error_of("app");
  // No answer about rights: what is cached may be served stale, and it is tried again soon.
  EXPECT_EQ(error.code, Errc::upstream_nonsense);
  EXPECT_TRUE(error.detail.starts_with("getting an access token for contoso.azurecr.io/app: 401. "))
      << error.detail;
  EXPECT_EQ(count(exchange), 2U);
  EXPECT_EQ(count(token_url), 2U);
  for (int i = 0; i < 600; ++i) {
    (void)got("app" + std::to_string(i % 20));
    world.clock.advance(100ms);
  }
  EXPECT_LE(count(exchange), 10U);
  // Each of twenty repositories after 1, 2, 4, 8, 16 and 32 seconds, a quarter less or more.
  EXPECT_LE(count(token_url), 20U * 7 + 10);
}

// The soak found it: two seconds of such a registry kept a repository away for most of a minute.
TEST_F(Acr, ATokenEndpointThatIsItselfAgainIsInUseWithinTenSeconds) {
  always(token_url, Reply{.status = 401});
  for (int i = 0; i < 20; ++i) {
    EXPECT_TRUE(got("app").starts_with("error: "));
    world.clock.advance(100ms);
  }
  next(token_url, {});
  world.clock.advance(8s);
  EXPECT_EQ(status("app"), 200);
}

TEST_F(Acr, AFirewallThatDeniesCostsNoToken) {
  EXPECT_EQ(status("app"), 200);
  always(
      token_url,
      Reply::json(
          R"({"errors":[{"code":"DENIED","message":"client with IP '203.0.113.7' is not allowed access."}]})",
          403));
  const Error error = error_of("other");
  EXPECT_EQ(error.code, Errc::firewall);
  EXPECT_EQ(error.detail,
            "getting an access token for contoso.azurecr.io/other: 403 DENIED: client with IP "
            "'203.0.113.7' is not allowed access. Let this machine through the registry's network "
            "rules (public access, firewall, private endpoint); the tokens are kept");
  EXPECT_EQ(status("app"), 200);
  azure.fault = [](const Asked&) { return std::nullopt; };
  world.clock.advance(1min);
  EXPECT_EQ(status("other"), 200);
  EXPECT_EQ(count(exchange), 1U);
}

// A 429 that one call meets ends those too that still wait for their turn.
TEST_F(Acr, WhoWaitsForAPlaceInTheRateHearsOfAPauseThatAnotherWasGiven) {
  std::vector<std::shared_ptr<Caller<Authorization>>> calls;
  for (int i = 0; i < 400; ++i)
    calls.push_back(world.begin(authorizer->for_pull("app/" + std::to_string(i))));
  world.clock.settle();
  const std::size_t before = count(token_url);
  always(token_url, Reply{.status = 429, .headers = {{"Retry-After", "60"}}, .body = ""});
  world.clock.advance(10s);
  EXPECT_EQ(count(token_url), before + 1);
  EXPECT_TRUE(calls.front()->outcome && *calls.front()->outcome);
  EXPECT_EQ(calls.back()->error().code, Errc::throttled);
}

TEST_F(Acr, AThrottledRegistryIsLeftAloneByAllItsRepositories) {
  EXPECT_EQ(status("app"), 200);
  next(token_url, {Reply{.status = 429, .headers = {{"Retry-After", "30"}}, .body = "Ref A: 1"}});
  EXPECT_EQ(error_of("a").code, Errc::throttled);
  for (int i = 0; i < 50; ++i) {
    const auto outcome = world.now(authorizer->for_pull("r" + std::to_string(i % 25)));
    EXPECT_EQ(outcome.error().code, Errc::throttled);
  }
  EXPECT_EQ(count(token_url), 2U);
  world.clock.advance(45s);
  EXPECT_EQ(status("a"), 200);
  EXPECT_EQ(status("app"), 200);
  EXPECT_EQ(count(exchange), 1U);
}

TEST_F(Acr, A503InTheMiddleIsSeenByNobody) {
  next(exchange, {Reply{.status = 503}});
  const auto call = world.call(authorizer->for_pull("app"));
  world.clock.advance(1s);
  EXPECT_TRUE(call->value());
  EXPECT_EQ(count(exchange), 2U);
}

TEST_F(Acr, AnswersThatMakeNoSenseAreNamed) {
  const struct {
    std::string url;
    Reply reply;
    std::string_view says;
  } table[] = {
      {challenge_url, Reply{.status = 200, .body = "{}"}, ""},
      {challenge_url, Reply{.status = 200, .body = "<html>log in</html>"}, "not from a registry"},
      {challenge_url, Reply{.status = 401}, "asks for neither"},
      {challenge_url, Reply{.status = 401, .headers = {{"WWW-Authenticate", "Bearer realm=\"x"}}},
       "makes no sense"},
      {challenge_url,
       Reply{.status = 401,
             .headers = {{"WWW-Authenticate", "Bearer realm=\"https://contoso.azurecr.io/t\""}}},
       "with a service name"},
      {challenge_url, Reply{.status = 403, .body = "<html>"}, "check the network path"},
      {challenge_url, Reply{.status = 404}, "answers 200 or 401 here"},
      {exchange, Reply{.status = 404}, "Is this an Azure Container Registry?"},
      {exchange, Reply{.status = 200, .body = "<html>"}, "not JSON"},
      {exchange, Reply{.status = 200, .body = "{}"}, "'refresh_token' is no token"},
      {exchange, Reply{.status = 200, .body = R"({"refresh_token":"a b"})"}, "is no token"},
      {exchange, Reply{.status = 200, .body = R"({"refresh_token":7})"}, "is not a string"},
      {exchange, Reply{.status = 200, .body = std::string(70'000, ' ')}, "longer than 64 KiB"},
      {token_url, Reply{.status = 200, .body = R"({"access_token":""})"}, "is no token"},
      {token_url, Reply{.status = 200, .body = R"({"access_token":"t","expires_in":"x"})"},
       "not a whole number"},
      {token_url, Reply{.status = 200, .body = R"({"access_token":"t","expires_in":0})"},
       "had ended"},
      {token_url, Reply{.status = 200, .body = R"({"access_token":"t\r\nEvil: 1"})"},
       "is no token"},
  };
  for (const auto& row : table) {
    World fresh;
    FakeAzure cloud(fresh.http, fresh.clock);
    cloud.add_registry(host);
    cloud.fault = [&](const Asked& asked) -> std::optional<Reply> {
      if (asked.url != row.url) return std::nullopt;
      return row.reply;
    };
    Identities all(AzureSettings{}, {}, fresh.environment());
    const auto tested = all.make_authorizer(at(contoso, ""), machine);
    const auto outcome = fresh.now(tested->for_pull("app"));
    if (row.says.empty()) {
      EXPECT_EQ(outcome.value(), nullptr);  // It wants no token; then it gets none.
      continue;
    }
    ASSERT_FALSE(outcome) << row.says;
    EXPECT_TRUE(outcome.error().detail.contains(row.says)) << outcome.error().detail;
    for (const auto& [token, what] : cloud.tokens())
      EXPECT_FALSE(outcome.error().detail.contains(token)) << what;
  }
}

TEST_F(Acr, AServerThatEchoesItsTokensGetsThemIntoNoError) {
  for (const std::string& url : {exchange, token_url}) {
    World fresh;
    FakeAzure cloud(fresh.http, fresh.clock);
    cloud.add_registry(host);
    cloud.fault = [&](const Asked& asked) -> std::optional<Reply> {
      if (asked.url != url) return std::nullopt;
      const std::string token = asked.field("access_token") + asked.field("refresh_token");
      Reply reply = Reply::json(R"({"errors":[{"code":"BAD","message":"what is )" + token +
                                    R"( and )" + asked.body + R"("}]})",
                                400);
      reply.headers.emplace_back("X-Ms-Correlation-Request-Id", token);
      return reply;
    };
    Identities all(AzureSettings{}, {}, fresh.environment());
    const auto tested = all.make_authorizer(at(contoso, ""), machine);
    const auto outcome = fresh.now(tested->for_pull("app"));
    for (const auto& [token, what] : cloud.tokens()) {
      for (std::size_t at = 0; at + 24 <= token.size(); at += 8)
        EXPECT_FALSE(outcome.error().detail.contains(token.substr(at, 24))) << what;
    }
    EXPECT_TRUE(outcome.error().detail.contains("[hidden]"));
  }
}

TEST_F(Acr, ATokenThatTheRegistryRefusesIsFetchedAnewOnce) {
  EXPECT_EQ(status("app"), 200);
  const Authorization used = last;
  azure.revoke("access");
  const Headers response = challenge(
      R"(Bearer realm="https://contoso.azurecr.io/oauth2/token",service="contoso.azurecr.io",scope="repository:app:pull",error="invalid_token")");
  EXPECT_TRUE(authorizer->refused("app", used, response));
  for (int i = 0; i < 100; ++i) EXPECT_TRUE(authorizer->refused("app", used, response));
  EXPECT_EQ(status("app"), 200);
  EXPECT_EQ(count(token_url), 2U);
  EXPECT_EQ(count(exchange), 1U);
  // Refused again at once: the error is the registry's.
  EXPECT_FALSE(authorizer->refused("app", last, response));
  EXPECT_EQ(count(token_url), 2U);
}

TEST_F(Acr, InsufficientScopeIsNotMendedByAnotherToken) {
  EXPECT_EQ(status("app"), 200);
  EXPECT_FALSE(authorizer->refused(
      "app", last,
      challenge(
          R"(Bearer realm="https://contoso.azurecr.io/oauth2/token",service="contoso.azurecr.io",error="insufficient_scope")")));
  EXPECT_EQ(status("app"), 200);
  EXPECT_EQ(count(token_url), 1U);
}

TEST_F(Acr, AHostileChallengeAfterA401ChangesNothing) {
  EXPECT_EQ(status("app"), 200);
  for (const auto* value :
       {R"(Bearer realm="https://evil.example/token",service="contoso.azurecr.io")",
        R"(Basic realm="Azure Container Registry")", "", "Bearer realm=\"", "Negotiate"}) {
    (void)authorizer->refused("app", nullptr, challenge(value));
  }
  world.clock.advance(2h);
  EXPECT_EQ(status("app"), 200);
  EXPECT_EQ(count("https://evil.example"), 0U);
}

TEST_F(Acr, LearnsANewServiceFromA401) {
  EXPECT_EQ(status("app"), 200);
  EXPECT_TRUE(authorizer->refused(
      "app", last,
      challenge(R"(Bearer realm="https://contoso.azurecr.io/oauth2/token",service="new.name")")));
  (void)got("app");
  EXPECT_EQ(world.http.last(token_url)->field("service"), "new.name");
}

TEST_F(Acr, StatusShowsEveryTokenOnce) {
  EXPECT_TRUE(authorizer->tokens().empty());
  EXPECT_EQ(status("a"), 200);
  EXPECT_EQ(status("b"), 200);
  std::vector<std::string> kinds;
  for (const TokenStatus& token : authorizer->tokens()) {
    kinds.push_back(token.kind);
    EXPECT_GT(token.expires_in, token.renews_in);
    EXPECT_GT(token.renews_in, 0s);
  }
  EXPECT_EQ(kinds, (std::vector<std::string>{"entra", "refresh", "access", "access"}));
}

TEST_F(Acr, TheAuthorizerMayGoWhileAPullWaits) {
  fake::Gate gate(world.io.get_executor());
  azure.fault = [&](const Asked& asked) -> std::optional<Reply> {
    if (asked.url != challenge_url) return std::nullopt;
    Reply reply{.status = 401,
                .headers = {{"WWW-Authenticate",
                             "Bearer realm=\"https://contoso.azurecr.io/oauth2/token\","
                             "service=\"contoso.azurecr.io\""}}};
    reply.gate = &gate;
    return reply;
  };
  const auto call = world.call(authorizer->for_pull("app"));
  EXPECT_EQ(gate.waiting(), 1U);
  authorizer.reset();
  gate.open();
  world.clock.settle();
  EXPECT_EQ(azure.data_status(host, "app", call->value()->reveal()), 200);
  world.clock.advance(24h);
  EXPECT_EQ(count(exchange), 1U);  // Nobody renews for nobody.
}

TEST_F(Acr, StoppingWhileEverythingIsInFlightEndsEverything) {
  fake::Gate gate(world.io.get_executor());
  always("https://contoso.azurecr.io/oauth2/", [&] {
    Reply reply{.status = 500};
    reply.gate = &gate;
    return reply;
  }());
  std::vector<std::shared_ptr<Caller<Authorization>>> calls;
  for (int i = 0; i < 50; ++i)
    calls.push_back(world.begin(authorizer->for_pull("app" + std::to_string(i))));
  world.clock.settle();
  EXPECT_EQ(gate.waiting(), 1U);
  world.tasks.cancel();
  world.clock.settle();
  for (const auto& call : calls) EXPECT_EQ(call->error().code, Errc::cancelled);
  EXPECT_EQ(world.tasks.size(), 0U);
  EXPECT_TRUE(world.reports.empty());
}

TEST_F(Acr, TheNumberOfScopesIsBounded) {
  constexpr int scopes = ScopedTokens::default_limit + 100;
  for (int i = 0; i < scopes; ++i) {
    EXPECT_EQ(status("app" + std::to_string(i)), 200);
    EXPECT_EQ(status("often"), 200);
    world.clock.advance(30ms);  // below what one machine may ask for;
  }
  EXPECT_LE(authorizer->tokens().size(), 2 + ScopedTokens::default_limit);
  EXPECT_EQ(count(token_url), scopes + 1U);  // What is used stays.
}

}  // namespace
}  // namespace staithe::proxy::auth
