// Whole ways from a password to a pull, as the registries of this world ask for it.
#include <gtest/gtest.h>

#include <functional>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "proxy/auth/base64.h"
#include "proxy/auth/identities.h"
#include "tests/proxy/auth/world.h"

namespace staithe::proxy::auth {
namespace {

using namespace std::chrono_literals;
using fake::Asked;
using fake::FakePrograms;
using fake::Reply;

Reply challenge(const std::string& value) {
  return {.status = 401, .headers = {{"WWW-Authenticate", value}}};
}

// A registry with a token server that knows some passwords.
class Registry : public testing::Test {
 protected:
  void make(const std::string& name, const std::string& host, const std::string& realm,
            std::vector<std::string> token_hosts = {}) {
    registry = "https://" + host;
    token_server = realm;
    world.http.on(registry + "/v2/", [this, host](const Asked& asked) {
      EXPECT_TRUE(asked.headers.get("authorization").empty());
      return challenge("Bearer realm=\"" + token_server + "\",service=\"" + host + "\"");
    });
    world.http.on(realm.substr(0, realm.find('/', 8)), [this](const Asked& asked) {
      ++asked_for_tokens;
      const std::string user = user_of(asked.headers.get("authorization"));
      if (!accepted.contains(user))
        return Reply::json(R"({"errors":[{"code":"UNAUTHORIZED","message":"no )" + user + "\"}]}",
                           401);
      return Reply::json(R"({"token":"t)" + std::to_string(asked_for_tokens) +
                         R"(","expires_in":300})");
    });
    place = {.name = name,
             .upstream = {"https", host, 443},
             .ca_file = "/ca.pem",
             .token_hosts = std::move(token_hosts)};
  }
  void use(IdentitySettings settings) { authorizer = identities.make_authorizer(place, settings); }
  static IdentitySettings basic(const std::string& second = {}) {
    IdentitySettings settings;
    settings.kind = IdentityKind::basic;
    settings.username = "user";
    settings.password_file = "/1";
    settings.password2_file = second;
    return settings;
  }
  static IdentitySettings helper() {
    IdentitySettings settings;
    settings.kind = IdentityKind::helper;
    settings.helper = "pass";
    return settings;
  }
  static std::string user_of(std::string_view authorization) {
    if (authorization.empty()) return "nobody";
    if (!authorization.starts_with("Basic ")) return "?";
    return decode_base64(authorization.substr(6)).value_or("?");
  }
  std::string got(const std::string& repository = "app") {
    const auto outcome = world.now(authorizer->for_pull(repository));
    if (!outcome)
      return to_string(outcome.error().code) + std::string(": ") + outcome.error().detail;
    last = *outcome;
    return last ? std::string(last->reveal()) : "none";
  }
  Result<Login> login() { return world.now(authorizer->login()); }
  // All that left us for other places than the token server.
  bool leaked(std::string_view secret) const {
    return std::ranges::any_of(world.http.asked(), [&](const Asked& asked) {
      const std::string all = asked.everything() + user_of(asked.headers.get("authorization"));
      return !asked.url.starts_with(token_server) && all.contains(secret);
    });
  }

  World world;
  Identities identities{AzureSettings{}, {}, world.environment()};
  Place place;
  std::string registry, token_server;
  std::set<std::string> accepted{"user:s3cr3t"};
  int asked_for_tokens = 0;
  std::unique_ptr<Authorizer> authorizer;
  Authorization last;
};

TEST_F(Registry, LikeGhcrGetsThePasswordAtItsOwnRealm) {
  make("ghcr.io", "ghcr.io", "https://ghcr.io/token");
  world.files.write("/1", "s3cr3t\n");
  use(basic());
  EXPECT_EQ(got(), "Bearer t1");
  const Asked* asked = world.http.last("https://ghcr.io/token");
  EXPECT_EQ(asked->method, "GET");
  EXPECT_EQ(asked->url, "https://ghcr.io/token?service=ghcr.io&scope=repository%3Aapp%3Apull");
  EXPECT_EQ(asked->headers.get("authorization"), "Basic dXNlcjpzM2NyM3Q=");
  EXPECT_EQ(asked->ca_file, "/ca.pem");
  EXPECT_FALSE(leaked("s3cr3t"));
  EXPECT_EQ(got("app"), "Bearer t1");
  EXPECT_EQ(got("other"), "Bearer t2");
}

TEST_F(Registry, LikeDockerHubGetsItAtTheTokenServerThatIsKnownToBeIts) {
  make("docker.io", "registry-1.docker.io", "https://auth.docker.io/token");
  world.files.write("/1", "s3cr3t");
  use(basic());
  EXPECT_EQ(got("library/busybox"), "Bearer t1");
  EXPECT_FALSE(leaked("s3cr3t"));
}

TEST_F(Registry, WithAnUnknownTokenServerIsRefusedWithoutAByteOfThePassword) {
  for (const std::string realm :
       {"https://auth.evil.example/token", "https://ghcr.io.evil.example/token",
        "https://ghcr.io:444/token", "http://ghcr.io/token", "https://auth.docker.io/token",
        "https://169.254.169.254/token", "https://user@ghcr.io/token"}) {
    make("ghcr.io", "ghcr.io", realm);
    world.files.write("/1", "s3cr3t");
    use(basic());
    EXPECT_TRUE(got().starts_with("upstream_nonsense: asking ghcr.io how to authenticate: "))
        << got();
    EXPECT_EQ(asked_for_tokens, 0) << realm;
    EXPECT_TRUE(world.files.asked.empty()) << realm;
  }
  for (const Asked& asked : world.http.asked())
    EXPECT_TRUE(asked.headers.get("authorization").empty());
}

TEST_F(Registry, MayHaveATokenServerThatTheOperatorNames) {
  make("r.example", "r.example", "https://auth.example/token", {"Auth.Example"});
  world.files.write("/1", "s3cr3t");
  use(basic());
  EXPECT_EQ(got(), "Bearer t1");
  EXPECT_FALSE(leaked("s3cr3t"));
}

// Another realm in a later 401 is judged by the same rule.
TEST_F(Registry, CannotMoveItsTokenServerToAThiefLater) {
  make("ghcr.io", "ghcr.io", "https://ghcr.io/token");
  world.files.write("/1", "s3cr3t");
  use(basic());
  EXPECT_EQ(got(), "Bearer t1");
  Headers headers;
  headers.add("WWW-Authenticate", R"(Bearer realm="https://evil.example/token",service="s")");
  (void)authorizer->refused("app", last, headers);
  EXPECT_EQ(got(), "Bearer t2");
  headers = Headers();
  headers.add("WWW-Authenticate", R"(Basic realm="now send it to me")");
  (void)authorizer->refused("app", last, headers);
  (void)got();
  EXPECT_EQ(world.http.count("https://evil.example"), 0U);
  EXPECT_FALSE(leaked("s3cr3t"));
}

TEST_F(Registry, GetsTheSecondPasswordAfterThe401OfTheFirst) {
  make("ghcr.io", "ghcr.io", "https://ghcr.io/token");
  world.files.write("/1", "old");
  world.files.write("/2", "s3cr3t");
  use(basic("/2"));
  EXPECT_EQ(got(), "Bearer t2");
  EXPECT_EQ(asked_for_tokens, 2);
  // The first is known to be refused: other repositories go straight to the second.
  EXPECT_EQ(got("b"), "Bearer t3");
  EXPECT_EQ(got("c"), "Bearer t4");
}

TEST_F(Registry, IsNotSentRefusedPasswordsAgainAndAgain) {
  make("ghcr.io", "ghcr.io", "https://ghcr.io/token");
  world.files.write("/1", "old");
  world.files.write("/2", "older");
  use(basic("/2"));
  EXPECT_EQ(got(),
            "unauthorized: getting a token for ghcr.io/app from https://ghcr.io/token: 401 "
            "UNAUTHORIZED: no user:[hidden]. Correct the user name or password of this registry's "
            "identity, or give it the right to pull this repository");
  EXPECT_EQ(asked_for_tokens, 2);
  // Pulls of many repositories, all day: two tries in ten minutes.
  for (int minute = 1; minute <= 6 * 60; ++minute) {
    for (int i = 0; i < 5; ++i)
      EXPECT_TRUE(got("app" + std::to_string(i)).contains("refused") ||
                  got("app" + std::to_string(i)).contains("401"));
    world.clock.advance(1min);
    EXPECT_LE(asked_for_tokens, 2 * (1 + minute / 10)) << minute;
  }
  EXPECT_GT(asked_for_tokens, 10);
}

TEST_F(Registry, IsSentAChangedPasswordAtOnce) {
  make("ghcr.io", "ghcr.io", "https://ghcr.io/token");
  world.files.write("/1", "s3cr3t");
  use(basic());
  EXPECT_EQ(got("a"), "Bearer t1");
  accepted = {"user:ch4nged"};
  world.files.write("/1", "ch4nged");
  // The first pull that needs a token meets the 401 and goes on with the new one.
  EXPECT_EQ(got("b"), "Bearer t3");
  EXPECT_EQ(asked_for_tokens, 3);
}

// A registry that says 401 where it means "not this repository".
TEST_F(Registry, MayRefuseOneRepositoryWithoutLosingTheOthers) {
  make("ghcr.io", "ghcr.io", "https://ghcr.io/token");
  world.files.write("/1", "s3cr3t");
  use(basic());
  EXPECT_EQ(got("a"), "Bearer t1");
  const auto good = std::exchange(accepted, {});
  EXPECT_TRUE(got("forbidden").starts_with("unauthorized: "));
  EXPECT_EQ(asked_for_tokens, 2);
  accepted = good;
  EXPECT_EQ(got("b"), "Bearer t3");
}

TEST_F(Registry, IsMendedByRenew) {
  make("ghcr.io", "ghcr.io", "https://ghcr.io/token");
  world.files.write("/1", "wrong");
  use(basic());
  EXPECT_TRUE(got().starts_with("unauthorized: "));
  world.files.write("/1", "s3cr3t");
  const auto renewed = world.call([](Authorizer& of) -> asio::awaitable<int> {
    co_await of.renew();
    co_return 0;
  }(*authorizer));
  EXPECT_EQ(renewed->value(), 0);
  EXPECT_EQ(got(), "Bearer t2");
}

TEST_F(Registry, SharesNothingWithAnother) {
  make("ghcr.io", "ghcr.io", "https://ghcr.io/token");
  world.files.write("/1", "s3cr3t");
  use(basic());
  EXPECT_EQ(got(), "Bearer t1");
  const auto first = std::move(authorizer);
  make("r.example", "r.example", "https://r.example/token");
  accepted = {};
  use(basic());
  EXPECT_TRUE(got().starts_with("unauthorized: "));
  // The refusal there is none here.
  accepted = {"user:s3cr3t"};
  EXPECT_EQ(world.now(first->for_pull("b")).value()->reveal(), "Bearer t3");
  for (const Asked& asked : world.http.asked()) {
    if (!asked.headers.get("authorization").empty()) {
      EXPECT_TRUE(asked.url.contains("/token?"));
    }
  }
}

TEST_F(Registry, OfAzureTakesItsAdminUserAtItsOwnTokenServer) {
  make("contoso.azurecr.io", "contoso.azurecr.io", "https://contoso.azurecr.io/oauth2/token");
  world.files.write("/1", "s3cr3t");
  use(basic());
  EXPECT_EQ(got(), "Bearer t1");
  EXPECT_EQ(world.http.last("https://contoso.azurecr.io/oauth2/token")->url,
            "https://contoso.azurecr.io/oauth2/token?service=contoso.azurecr.io&scope=repository%"
            "3Aapp%3Apull");
  const auto given = login();
  ASSERT_TRUE(given);
  EXPECT_EQ(given->username, "user");
  EXPECT_EQ(given->secret->reveal(), "s3cr3t");
  EXPECT_FALSE(given->identity_token);
  EXPECT_FALSE(given->renewable);
  EXPECT_FALSE(given->expires_in);
  EXPECT_EQ(authorizer->login_name(), "user");
  // Another registry of Azure is another owner.
  make("contoso.azurecr.io", "contoso.azurecr.io", "https://fabrikam.azurecr.io/oauth2/token");
  use(basic());
  EXPECT_TRUE(got().starts_with("upstream_nonsense: ")) << got();
}

TEST_F(Registry, TakesAnIdentityTokenByPost) {
  make("r.example", "r.example", "https://r.example/token");
  world.programs.play = [](const ProgramRun&) {
    return FakePrograms::Said{.output = R"({"Username":"<token>","Secret":"t0k&n"})"};
  };
  std::string body;
  world.http.on("https://r.example/token", [&](const Asked& asked) {
    EXPECT_EQ(asked.method, "POST");
    EXPECT_TRUE(asked.headers.get("authorization").empty());
    EXPECT_EQ(asked.headers.get("content-type"), "application/x-www-form-urlencoded");
    EXPECT_EQ(asked.url, "https://r.example/token");
    body = asked.body;
    return Reply::json(R"({"access_token":"a","expires_in":300})");
  });
  use(helper());
  EXPECT_EQ(got(), "Bearer a");
  EXPECT_EQ(body,
            "grant_type=refresh_token&service=r.example&client_id=staithe&scope=repository%3Aapp%"
            "3Apull&refresh_token=t0k%26n");
  const auto given = login();
  EXPECT_TRUE(given->identity_token);
  EXPECT_TRUE(given->renewable);
  EXPECT_EQ(given->secret->reveal(), "t0k&n");
  EXPECT_EQ(authorizer->login_name(), "<token>");
  // It is no password: a registry that wants one by Basic does not get it.
  world.http.on("https://r.example/v2/",
                [](const Asked&) { return challenge("Basic realm=\"x\""); });
  use(helper());
  EXPECT_EQ(got(),
            "unauthorized: r.example asks for a user name and password (Basic), and the identity "
            "holds an identity token: log in with a password");
}

TEST_F(Registry, ThatEchoesThePasswordDoesNotGetItIntoAnError) {
  make("r.example", "r.example", "https://r.example/token");
  const std::string password = "a-long-s3cr3t-w1th/pluses+and=signs";
  world.files.write("/1", password);
  const std::string pair = encode_base64("user:" + password);
  world.http.on("https://r.example/token", [&](const Asked& asked) {
    return Reply::json(R"({"errors":[{"code":"DENIED","message":"you sent )" +
                           std::string(asked.headers.get("authorization")) + " that is " +
                           password + ", begins with " + password.substr(0, 16) +
                           " and ends with " + password.substr(20) + "\"}]}",
                       401);
  });
  use(basic());
  const std::string said = got();
  EXPECT_TRUE(said.starts_with("unauthorized: ")) << said;
  EXPECT_TRUE(said.contains("[hidden]")) << said;
  for (std::size_t at = 0; at + 8 <= password.size(); ++at)
    EXPECT_FALSE(said.contains(password.substr(at, 8))) << said;
  for (std::size_t at = 0; at + 8 <= pair.size(); ++at)
    EXPECT_FALSE(said.contains(pair.substr(at, 8))) << said;
}

TEST_F(Registry, OverPlainHttpGetsNoPassword) {
  for (const Origin& origin : {Origin{"http", "r.example", 80}, Origin{"http", "10.0.0.5", 5000}}) {
    try {
      (void)identities.make_authorizer(at(origin), basic());
      ADD_FAILURE();
    } catch (const Failure& failure) {
      EXPECT_EQ(failure.code(), Errc::config);
    }
  }
  EXPECT_TRUE(identities.make_authorizer(at({"http", "localhost", 5000}), basic()));
}

TEST_F(Registry, WithAHelperThatMakesUpPasswordsIsSentTwoForOnePull) {
  make("r.example", "r.example", "https://r.example/token");
  int runs = 0;
  world.programs.play = [&](const ProgramRun&) {
    return FakePrograms::Said{.output = R"({"Username":"u","Secret":"new-)" +
                                        std::to_string(++runs) + "\"}"};
  };
  use(helper());
  EXPECT_TRUE(got().starts_with("unauthorized: "));
  EXPECT_LE(asked_for_tokens, 2);
}

// ECR: Basic on the data itself, tokens of 12 h, and 403 when one has ended.
class Ecr : public Registry {
 protected:
  Ecr() {
    place = at({"https", "1.dkr.ecr.eu-west-1.amazonaws.com", 443});
    world.http.on("https://1.dkr.ecr.eu-west-1.amazonaws.com", [](const Asked&) {
      return challenge(R"(Basic realm="https://1.dkr.ecr.eu-west-1.amazonaws.com/",service="ecr")");
    });
    world.programs.play = [this](const ProgramRun&) {
      return FakePrograms::Said{.output = R"({"Username":"AWS","Secret":"s)" +
                                          std::to_string(++runs) + "\"}"};
    };
    use(helper());
  }
  static std::string header(int run) {
    return "Basic " + encode_base64("AWS:s" + std::to_string(run));
  }
  int runs = 0;
};

TEST_F(Ecr, AllPullsShareOneHeaderOfOneRun) {
  for (const std::string repository : {"a", "b", "a"}) EXPECT_EQ(got(repository), header(1));
  EXPECT_EQ(runs, 1);
  EXPECT_EQ(world.http.asked().size(), 1U);
}

TEST_F(Ecr, A403MayMeanAnEndAndRunsTheHelperOnceMore) {
  EXPECT_EQ(got(), header(1));
  // New ones are refused for what they are.
  EXPECT_FALSE(authorizer->forbidden(last));
  EXPECT_EQ(got(), header(1));
  world.clock.advance(5min);
  EXPECT_TRUE(authorizer->forbidden(last));
  const Authorization ended = last;
  EXPECT_EQ(got(), header(2));
  EXPECT_EQ(runs, 2);
  // Not for the pulls that were under way with the old one, nor if the new one is no better.
  EXPECT_FALSE(authorizer->forbidden(ended));
  EXPECT_FALSE(authorizer->forbidden(last));
  EXPECT_FALSE(authorizer->forbidden(nullptr));
  EXPECT_EQ(got(), header(2));
  EXPECT_EQ(runs, 2);
}

TEST_F(Ecr, A401TriesWhatTheHelperSaysNext) {
  EXPECT_EQ(got(), header(1));
  EXPECT_TRUE(authorizer->refused("app", last, {}));
  EXPECT_EQ(got(), header(2));
  EXPECT_EQ(runs, 2);
}

TEST_F(Ecr, AFixedPasswordIsNotReadAnewBecauseOfA403) {
  world.files.write("/1", "s3cr3t");
  use(basic());
  EXPECT_EQ(got(), "Basic dXNlcjpzM2NyM3Q=");
  world.clock.advance(1h);
  EXPECT_FALSE(authorizer->forbidden(last));
  (void)authorizer->refused("app", last, {});
  EXPECT_TRUE(got().starts_with("unauthorized: the password for ")) << got();
}

}  // namespace
}  // namespace staithe::proxy::auth
