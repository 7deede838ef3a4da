#include "proxy/auth/generic_token.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tests/proxy/auth/make_jwt.h"
#include "tests/proxy/auth/world.h"

namespace staithe::proxy::auth {
namespace {

using fake::Asked;
using fake::Reply;
using namespace std::chrono_literals;

const std::string hub = "https://registry-1.docker.io/v2/";
const std::string realm = "https://auth.docker.io/token";
constexpr std::string_view hub_challenge =
    R"(Bearer realm="https://auth.docker.io/token",service="registry.docker.io")";

Headers challenge(std::string_view value) {
  Headers headers;
  headers.add("Www-Authenticate", std::string(value));
  return headers;
}

Reply unauthorized(std::string_view value) {
  return {.status = 401, .headers = {{"WWW-Authenticate", std::string(value)}}};
}

class Anonymous : public testing::Test {
 protected:
  Anonymous() {
    world.http.on(hub, [](const Asked&) { return unauthorized(hub_challenge); });
    world.http.on(realm, [this](const Asked& asked) {
      return Reply::json(R"({"token":")" + asked.field("scope").substr(11) + "-" +
                         std::to_string(++issued) + R"(","expires_in":300})");
    });
  }
  std::string got(const std::string& repository) {
    const auto call = world.call(authorizer->for_pull(repository));
    if (!call->outcome) return "waits";
    if (!*call->outcome) return "error: " + call->outcome->error().detail;
    last = call->value();
    return last ? std::string(last->reveal()) : "none";
  }

  World world;
  int issued = 0;
  std::unique_ptr<Authorizer> authorizer = make_anonymous_authorizer(
      world.environment(), {"https", "registry-1.docker.io", 443}, "/etc/ca.pem");
  Authorization last;
};

TEST_F(Anonymous, AsksTheTokenServerThatTheRegistryNames) {
  EXPECT_EQ(got("library/busybox"), "Bearer library/busybox:pull-1");
  ASSERT_EQ(world.http.asked().size(), 2U);
  EXPECT_EQ(world.http.asked()[0].url, hub);
  EXPECT_EQ(world.http.asked()[1].url,
            "https://auth.docker.io/token?service=registry.docker.io&scope=repository%3Alibrary%2F"
            "busybox%3Apull");
  for (const Asked& asked : world.http.asked()) {
    EXPECT_EQ(asked.method, "GET");
    EXPECT_TRUE(asked.headers.empty());
    EXPECT_EQ(asked.ca_file, "/etc/ca.pem");
  }
  EXPECT_EQ(world.http.asked()[0].host_named_by, HostNamedBy::configuration);
  EXPECT_EQ(world.http.asked()[1].host_named_by, HostNamedBy::upstream);
  EXPECT_EQ(got("library/busybox"), "Bearer library/busybox:pull-1");
  EXPECT_EQ(got("library/alpine"), "Bearer library/alpine:pull-2");
  EXPECT_EQ(world.http.count(hub), 1U);
}

TEST_F(Anonymous, FiveHundredPullsAreOneTokenRequest) {
  std::vector<std::shared_ptr<Caller<Authorization>>> calls;
  for (int i = 0; i < 500; ++i) calls.push_back(world.begin(authorizer->for_pull("a")));
  world.clock.settle();
  for (const auto& call : calls) EXPECT_EQ(call->value()->reveal(), "Bearer a:pull-1");
  EXPECT_EQ(world.http.asked().size(), 2U);
}

TEST_F(Anonymous, ServiceAndScopeAreEncodedAndARealmMayHaveAQuery) {
  world.http.on(hub, [](const Asked&) {
    return unauthorized(
        R"(Bearer realm="https://auth.docker.io/token?a=b",service="x&scope=repository:secret:*")");
  });
  (void)got("a");
  EXPECT_EQ(world.http.last(realm)->url,
            "https://auth.docker.io/token?a=b&service=x%26scope%3Drepository%3Asecret%3A%2A&scope="
            "repository%3Aa%3Apull");
}

TEST_F(Anonymous, AServiceMayBeMissing) {
  world.http.on(hub, [](const Asked&) {
    return unauthorized("Bearer realm=\"https://auth.docker.io/token\"");
  });
  (void)got("a");
  EXPECT_EQ(world.http.last(realm)->url,
            "https://auth.docker.io/token?scope=repository%3Aa%3Apull");
}

TEST_F(Anonymous, ARegistryThatDemandsNothingIsSentNothing) {
  world.http.on(hub, [](const Asked&) { return Reply{.body = "{}"}; });
  EXPECT_EQ(got("a"), "none");
  EXPECT_EQ(got("b"), "none");
  EXPECT_EQ(world.http.asked().size(), 1U);
  // Until it says otherwise, for a repository.
  EXPECT_FALSE(authorizer->refused("a", nullptr, {}));
  EXPECT_FALSE(authorizer->refused("a", nullptr, challenge("Negotiate")));
  // All requests that went without a token are worth repeating then.
  for (int i = 0; i < 50; ++i)
    EXPECT_TRUE(authorizer->refused("a", nullptr, challenge(hub_challenge)));
  EXPECT_EQ(got("a"), "Bearer a:pull-1");
  EXPECT_EQ(world.http.count(hub), 1U);
}

TEST_F(Anonymous, ARegistryThatWantsAPasswordIsNamed) {
  world.http.on(hub, [](const Asked&) { return unauthorized("Basic realm=\"private\""); });
  const auto outcome = world.now(authorizer->for_pull("a"));
  EXPECT_EQ(outcome.error().code, Errc::unauthorized);
  EXPECT_EQ(outcome.error().detail,
            "registry-1.docker.io asks for a user name and password (Basic) and gives no tokens: "
            "configure an identity of kind \"basic\", \"helper\" or \"docker-config\" for it");
}

TEST_F(Anonymous, TokensComeUnderEitherNameAndLastAMinuteUnlessTheySayMore) {
  const struct {
    std::string body;
    std::string_view token;
    std::chrono::seconds lasts;
  } table[] = {
      {R"({"token":"a"})", "Bearer a", 60s},
      {R"({"access_token":"b"})", "Bearer b", 60s},
      {R"({"token":"c","access_token":"c","expires_in":300,"issued_at":"2026-01-01T00:00:00Z"})",
       "Bearer c", 300s},
      {R"({"token":"","access_token":"d","expires_in":3600})", "Bearer d", 3600s},
      {R"({"token":"e","expires_in":20})", "Bearer e", 20s},
  };
  for (const auto& row : table) {
    World fresh;
    fresh.http.on(hub, [](const Asked&) { return unauthorized(hub_challenge); });
    fresh.http.on(realm, {Reply::json(row.body)});
    const auto tested =
        make_anonymous_authorizer(fresh.environment(), {"https", "registry-1.docker.io", 443}, "");
    EXPECT_EQ(fresh.now(tested->for_pull("a")).value()->reveal(), row.token);
    EXPECT_EQ(tested->tokens().front().expires_in, row.lasts);
  }
  // ACR gives no expires_in to anybody; its tokens say it themselves (section 4.2).
  World fresh;
  fresh.http.on(hub, [](const Asked&) { return unauthorized(hub_challenge); });
  fresh.http.on(realm, {Reply::json(R"({"access_token":")" +
                                    make_jwt(R"({"iat":1760000000,"exp":1760004500})") + R"("})")});
  const auto tested =
      make_anonymous_authorizer(fresh.environment(), {"https", "registry-1.docker.io", 443}, "");
  (void)fresh.now(tested->for_pull("a"));
  EXPECT_EQ(tested->tokens().front().expires_in, 4500s);
}

TEST_F(Anonymous, WhatIsNotForEveryoneIsDeniedWithARemedy) {
  world.http.on(realm, {Reply::json(R"({"errors":[{"code":"DENIED","message":"private"}]})", 403)});
  auto outcome = world.now(authorizer->for_pull("a"));
  EXPECT_EQ(outcome.error().code, Errc::denied);
  EXPECT_EQ(outcome.error().detail,
            "getting an anonymous token for registry-1.docker.io/a from "
            "https://auth.docker.io/token: 403 DENIED: private. There is no such repository, or it "
            "is not for everyone: then configure an identity for this registry");
  world.http.on(realm, {Reply::json("{\"token\":\"" + make_jwt(R"({"access":[]})") + "\"}")});
  outcome = world.now(authorizer->for_pull("b"));
  EXPECT_EQ(outcome.error().code, Errc::denied);
  EXPECT_TRUE(outcome.error().detail.contains("grants nothing"));
  // Granted under another name than asked: the registry will judge that.
  world.http.on(
      realm,
      {Reply::json("{\"token\":\"" +
                   make_jwt(R"({"access":[{"type":"repository","name":"C","actions":["pull"]}]})") +
                   "\"}")});
  EXPECT_TRUE(world.now(authorizer->for_pull("c")));
}

TEST_F(Anonymous, AnswersThatMakeNoSenseFail) {
  for (const Reply& reply :
       {Reply{.body = "<html>"}, Reply::json("{}"), Reply::json(R"({"token":""})"),
        Reply::json(R"({"token":["a"]})"), Reply::json(R"({"token":"a\r\nX: y"})"),
        Reply::json(R"({"token":"a","expires_in":-1})"),
        Reply::json(R"({"token":"a","expires_in":{}})"),
        Reply::json("{\"token\":\"" + std::string(70'000, 'a') + "\"}"),
        Reply::json("{\"token\":\"" + std::string(40'000, 'a') + "\"}"), Reply{.status = 302}}) {
    World fresh;
    fresh.http.on(hub, [](const Asked&) { return unauthorized(hub_challenge); });
    fresh.http.on(realm, {reply});
    const auto tested =
        make_anonymous_authorizer(fresh.environment(), {"https", "registry-1.docker.io", 443}, "");
    const auto outcome = fresh.now(tested->for_pull("a"));
    ASSERT_FALSE(outcome) << reply.body.substr(0, 100);
    EXPECT_EQ(outcome.error().code, Errc::upstream_nonsense) << outcome.error().detail;
  }
}

TEST_F(Anonymous, NoRealmMakesItProbeWhatOnlyThisMachineReaches) {
  for (const std::string_view target :
       {"http://169.254.169.254/metadata/identity/oauth2/token", "https://169.254.169.254/",
        "https://127.0.0.1:2375/", "https://localhost/", "https://x.localhost/",
        "https://10.1.2.3/", "https://[::1]/", "https://[fe80::1]/", "https://2852039166/",
        "https://0xa9.0xfe.43518/", "https://metadata.google.internal/", "https://kubernetes/",
        "http://auth.docker.io/token", "https://u:p@auth.docker.io/token", "ftp://auth.docker.io/",
        "auth.docker.io", ""}) {
    World fresh;
    fresh.http.on(hub, [&](const Asked&) {
      return unauthorized("Bearer realm=\"" + std::string(target) + "\",service=\"s\"");
    });
    const auto tested =
        make_anonymous_authorizer(fresh.environment(), {"https", "registry-1.docker.io", 443}, "");
    const auto outcome = fresh.now(tested->for_pull("a"));
    EXPECT_EQ(outcome.error().code, Errc::upstream_nonsense) << target;
    EXPECT_EQ(fresh.http.asked().size(), 1U) << target;
  }
}

TEST_F(Anonymous, ARefusedTokenIsFetchedAnew) {
  EXPECT_EQ(got("a"), "Bearer a:pull-1");
  EXPECT_TRUE(authorizer->refused("a", last, challenge(hub_challenge)));
  EXPECT_EQ(got("a"), "Bearer a:pull-2");
  EXPECT_FALSE(authorizer->refused("a", last, challenge(hub_challenge)));
}

TEST_F(Anonymous, AnotherTokenServerIsLearntAndTheOldTokensDropped) {
  EXPECT_EQ(got("a"), "Bearer a:pull-1");
  world.http.on("https://token.docker.io/", {Reply::json(R"({"token":"new"})")});
  EXPECT_TRUE(authorizer->refused(
      "a", last, challenge(R"(Bearer realm="https://token.docker.io/",service="other")")));
  EXPECT_EQ(got("a"), "Bearer new");
  EXPECT_EQ(world.http.last("https://token.docker.io/")->field("service"), "other");
  // One that changes its mind with every answer is not followed every time.
  for (int i = 0; i < 100; ++i) {
    (void)authorizer->refused(
        "a", nullptr,
        challenge("Bearer realm=\"https://mirror-" + std::to_string(i) + ".docker.io/\""));
    (void)got("a");
  }
  EXPECT_LE(world.http.count("https://mirror-"), 2U);
}

TEST_F(Anonymous, ARegistryThatIsDownIsNotAskedByEveryPull) {
  world.http.on(hub, {Reply::failure(Errc::unreachable, "no route to host")});
  for (int i = 0; i < 500; ++i) {
    EXPECT_EQ(got("app" + std::to_string(i)),
              "error: asking registry-1.docker.io how to authenticate: no route to host");
  }
  EXPECT_EQ(world.http.asked().size(), 1U);
}

TEST_F(Anonymous, ContinuousPullsNeverWaitForARenewal) {
  world.http.on(realm, [&](const Asked&) {
    Reply reply =
        Reply::json(R"({"token":"t)" + std::to_string(++issued) + R"(","expires_in":20})");
    reply.delay = 500ms;
    return reply;
  });
  const auto first = world.call(authorizer->for_pull("a"));
  world.clock.advance(500ms);
  EXPECT_TRUE(first->done());
  for (int i = 0; i < 900; ++i) {
    EXPECT_NE(got("a"), "waits");
    world.clock.advance(100ms);
  }
  EXPECT_GE(issued, 5);
  EXPECT_LE(issued, 8);
}

}  // namespace
}  // namespace staithe::proxy::auth
