#include "proxy/auth/managed_identity.h"

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

constexpr std::string_view imds = "http://169.254.169.254/metadata/identity/oauth2/token";
constexpr std::string_view audience = "https://containerregistry.azure.net";

std::string good_answer() {
  return R"({"access_token":"eyJ.entra.token","refresh_token":"","expires_in":"3599",
    "expires_on":"1760003600","not_before":"1759999700",
    "resource":"https://containerregistry.azure.net","token_type":"Bearer",
    "client_id":"11111111-0000-4000-8000-000000000001"})";
}

class ManagedIdentity : public testing::Test {
 protected:
  std::unique_ptr<TokenSource> source(const IdentitySettings& identity = {}) {
    return std::make_unique<ImdsTokenSource>(world.environment(), service, std::string(audience),
                                             identity);
  }
  // Answers all requests with these, the last one again and again.
  void play(std::vector<Reply> replies) { world.http.on(std::string(imds), std::move(replies)); }
  // When the requests were sent, in seconds after the first.
  std::vector<double> seconds() const {
    std::vector<double> at;
    for (const Asked& asked : world.http.asked())
      at.push_back(std::chrono::duration<double>(asked.at - world.http.asked().front().at).count());
    return at;
  }
  Result<Token> fetch_all_the_way(TokenSource& from) {
    const auto call = world.call(from.fetch());
    world.clock.advance(5min);
    if (!call->outcome) return fail(Errc::cancelled, "it still waits after five minutes");
    return std::move(*call->outcome);
  }

  World world;
  std::shared_ptr<MetadataService> service = std::make_shared<MetadataService>(
      world.environment(), Url::parse("http://169.254.169.254").value());
};

TEST_F(ManagedIdentity, AsksExactlyAsTheServiceWantsToBeAsked) {
  play({Reply::json(good_answer())});
  const Result<Token> token = world.now(source()->fetch());
  ASSERT_TRUE(token) << token.error().detail;
  EXPECT_EQ(token->secret.reveal(), "eyJ.entra.token");
  EXPECT_EQ(token->life.lasts, 3599s);
  EXPECT_FALSE(token->life.refresh_in);
  ASSERT_EQ(world.http.asked().size(), 1U);
  const Asked& asked = world.http.asked().front();
  EXPECT_EQ(asked.host_named_by, HostNamedBy::identity_host);
  EXPECT_EQ(asked.method, "GET");
  EXPECT_EQ(asked.url,
            "http://169.254.169.254/metadata/identity/oauth2/token?api-version=2018-02-01&resource="
            "https%3A%2F%2Fcontainerregistry.azure.net");
  ASSERT_EQ(asked.headers.fields().size(), 1U);
  EXPECT_EQ(asked.headers.fields().front(), (Headers::Field{"Metadata", "true"}));
  EXPECT_TRUE(asked.body.empty());
  EXPECT_LE(asked.limits.connect, 2s);
}

TEST_F(ManagedIdentity, NamesAtMostOneSelector) {
  const struct {
    IdentitySettings identity;
    std::string_view query;
  } table[] = {
      {{.client_id = "22222222-0000-4000-8000-000000000002", .object_id = {}, .resource_id = {}},
       "&client_id=22222222-0000-4000-8000-000000000002"},
      {{.client_id = {}, .object_id = "o&x=1", .resource_id = {}}, "&object_id=o%26x%3D1"},
      {{.client_id = {}, .object_id = {}, .resource_id = "/subscriptions/s/x"},
       "&msi_res_id=%2Fsubscriptions%2Fs%2Fx"},
  };
  for (const auto& row : table) {
    world.http.forget();
    play({Reply{.status = 400}});
    (void)world.now(source(row.identity)->fetch());
    EXPECT_TRUE(
        world.http.asked().front().url.ends_with(std::string("azure.net") + std::string(row.query)))
        << world.http.asked().front().url;
  }
}

TEST_F(ManagedIdentity, FollowsTheDocumentedScheduleWhileTheServiceIsNotWell) {
  for (const int status : {404, 429, 500, 503}) {
    world.http.forget();
    play({Reply{.status = status}});
    const auto from = source();
    const Result<Token> token = fetch_all_the_way(*from);
    EXPECT_EQ(token.error().code, status == 429 ? Errc::throttled : Errc::upstream_failed)
        << status;
    EXPECT_EQ(seconds(), (std::vector<double>{0, 2, 6, 14, 30})) << status;
  }
  world.http.forget();
  play({Reply{.status = 500}, Reply{.status = 404}, Reply::json(good_answer())});
  const auto from = source();
  EXPECT_TRUE(fetch_all_the_way(*from));
  EXPECT_EQ(seconds(), (std::vector<double>{0, 2, 6}));
}

TEST_F(ManagedIdentity, WaitsAsLongAsTheServiceSays) {
  play({Reply{.status = 429, .headers = {{"Retry-After", "11"}}},
        Reply{.status = 429, .headers = {{"Retry-After", "1"}}},
        Reply{.status = 429, .headers = {{"Retry-After", "3600"}}}, Reply::json(good_answer())});
  const auto from = source();
  EXPECT_TRUE(fetch_all_the_way(*from));
  EXPECT_EQ(seconds(), (std::vector<double>{0, 11, 15, 75}));
}

TEST_F(ManagedIdentity, Sits410OutForSeventySeconds) {
  play({Reply{.status = 410}});
  auto from = source();
  const Result<Token> token = fetch_all_the_way(*from);
  EXPECT_EQ(token.error().code, Errc::upstream_failed);
  EXPECT_EQ(seconds(), (std::vector<double>{0, 2, 6, 14, 30, 46, 62, 70}));

  world.http.forget();
  const Instant start = world.clock.now();
  world.http.on(std::string(imds), [&](const Asked&) {
    return world.clock.now() - start < 65s ? Reply{.status = 410} : Reply::json(good_answer());
  });
  from = source();
  EXPECT_TRUE(fetch_all_the_way(*from));
}

TEST_F(ManagedIdentity, GivesUpSoonWhereThereIsNoService) {
  const auto from = source();
  const Result<Token> token = fetch_all_the_way(*from);
  EXPECT_EQ(token.error().code, Errc::unreachable);
  EXPECT_EQ(seconds(), (std::vector<double>{0, 2, 6}));
  EXPECT_EQ(token.error().detail,
            "getting an Entra token for this machine's identity from the metadata service at "
            "http://169.254.169.254: nobody plays "
            "http://169.254.169.254/metadata/identity/oauth2/token. There is no metadata service "
            "here: is this an Azure VM, and may this process reach that address (firewall, network "
            "namespace)?");
}

TEST_F(ManagedIdentity, GivesUpInTheEndWhateverTheMixtureOfFailures) {
  for (std::uint64_t seed = 1; seed <= 200; ++seed) {
    world.http.forget();
    SeededRandom random(seed);
    world.http.on(std::string(imds), [&](const Asked&) {
      Reply silence = Reply::failure(Errc::unreachable, "no answer");
      silence.delay = 20s;
      const Reply replies[] = {{.status = 410},
                               {.status = 500},
                               {.status = 404},
                               silence,
                               Reply::failure(Errc::upstream_failed, "broken off")};
      return replies[random.next() % std::size(replies)];
    });
    const auto from = source();
    const auto call = world.call(from->fetch());
    world.clock.advance(2min);
    ASSERT_TRUE(call->done()) << seed;
    EXPECT_NE(call->error().code, Errc::unauthorized) << seed;
    EXPECT_LE(world.http.asked().size(), 9U) << seed;
  }
}

TEST_F(ManagedIdentity, AServiceThatFallsSilentIsNotSaidToBeMissing) {
  play({Reply{.status = 500}, Reply::failure(Errc::unreachable, "no answer")});
  const auto from = source();
  const Result<Token> token = fetch_all_the_way(*from);
  EXPECT_EQ(token.error().code, Errc::unreachable);
  EXPECT_TRUE(token.error().detail.ends_with("The metadata service is not well"));
  EXPECT_EQ(seconds(), (std::vector<double>{0, 2, 6, 14}));
}

TEST_F(ManagedIdentity, DoesNotRepeatWhatAnOperatorHasToMend) {
  for (const int status : {400, 401, 403, 405, 422}) {
    world.http.forget();
    play({Reply::json(R"({"error":"invalid_request","error_description":"Identity not found"})",
                      status)});
    const auto from = source({.client_id = "22222222", .object_id = {}, .resource_id = {}});
    const Result<Token> token = fetch_all_the_way(*from);
    EXPECT_EQ(token.error().code, status == 400 ? Errc::identity_missing : Errc::unauthorized)
        << status;
    EXPECT_EQ(world.http.asked().size(), 1U) << status;
    EXPECT_EQ(
        token.error().detail,
        "getting an Entra token for the identity with client id 22222222 from the metadata "
        "service at http://169.254.169.254: " +
            std::to_string(status) +
            " invalid_request: Identity not found. Assign this identity to the VM (az vm "
            "identity assign --identities) and give it the role AcrPull, or correct the id in "
            "[identity]");
  }
}

TEST_F(ManagedIdentity, TellsWhenAnotherProgramAnswers) {
  for (const Reply& reply :
       {Reply{.status = 403,
              .body = "connecting to 169.254.169.254:80: dial tcp: network is unreachable"},
        Reply{.status = 200, .body = "<html>log in</html>"}, Reply{.status = 200, .body = ""},
        Reply{.status = 200, .body = "[]"}, Reply{.status = 204},
        Reply{.status = 302, .headers = {{"Location", "http://evil.example/"}}},
        Reply::failure(Errc::upstream_nonsense, "that is not HTTP")}) {
    world.http.forget();
    play({reply});
    const auto from = source();
    const Result<Token> token = fetch_all_the_way(*from);
    EXPECT_EQ(token.error().code, Errc::upstream_nonsense) << reply.status;
    EXPECT_TRUE(token.error().detail.contains("nother program")) << token.error().detail;
    EXPECT_EQ(world.http.asked().size(), 1U);
  }
}

TEST_F(ManagedIdentity, ValidatesEveryFieldBeforeItsUse) {
  const struct {
    std::string_view why, body;
    bool good;
  } table[] = {
      {"numbers instead of strings",
       R"({"access_token":"t","expires_in":3599,"expires_on":1760003600,"refresh_in":1800})", true},
      {"a token alone", R"({"access_token":"t"})", true},
      {"fields that nobody knows", R"({"access_token":"t","expires_in":"9","x":{"y":[1]}})", true},
      {"other case in token_type", R"({"access_token":"t","token_type":"bearer"})", true},
      {"no token", R"({"expires_in":"3599"})", false},
      {"an empty token", R"({"access_token":"","expires_in":"3599"})", false},
      {"a token that is a number", R"({"access_token":7})", false},
      {"a token that breaks the line", R"({"access_token":"a\r\nX: y"})", false},
      {"a token with a space", R"({"access_token":"a b"})", false},
      {"expired", R"({"access_token":"t","expires_in":"0"})", false},
      {"negative", R"({"access_token":"t","expires_in":"-1"})", false},
      {"words", R"({"access_token":"t","expires_in":"an hour"})", false},
      {"a date text", R"({"access_token":"t","expires_on":"06/20/2019 02:57:58 AM +00:00"})",
       false},
      {"odd refresh_in", R"({"access_token":"t","refresh_in":"soon"})", false},
      {"another type", R"({"access_token":"t","token_type":"pop"})", false},
  };
  for (const auto& row : table) {
    play({Reply::json(std::string(row.body))});
    const Result<Token> token = world.now(source()->fetch());
    EXPECT_EQ(token.has_value(), row.good) << row.why;
    if (!token) EXPECT_EQ(token.error().code, Errc::upstream_nonsense) << row.why;
  }
}

TEST_F(ManagedIdentity, TakesNoOtherIdentitysToken) {
  play({Reply::json(good_answer())});
  const auto with = [](std::string id) {
    IdentitySettings identity;
    identity.client_id = std::move(id);
    return identity;
  };
  EXPECT_TRUE(world.now(source(with("11111111-0000-4000-8000-000000000001"))->fetch()));
  const auto other = world.now(source(with("22222222-0000-4000-8000-000000000002"))->fetch());
  EXPECT_EQ(other.error().code, Errc::upstream_nonsense);
  EXPECT_TRUE(other.error().detail.contains("another identity")) << other.error().detail;
}

TEST_F(ManagedIdentity, MeasuresTheLifeWithoutOurWallClock) {
  // The token comes from the platform's cache: 20 minutes are left of a day.
  const std::string jwt = make_jwt(R"({"exp":1760086400,"iat":1760000000})");
  play({Reply::json(R"({"access_token":")" + jwt +
                    R"(","expires_in":"1200","expires_on":"1760086400","refresh_in":"600"})")});
  world.clock.set_wall(WallTime(0s));
  Result<Token> token = world.now(source()->fetch());
  EXPECT_EQ(token->life.lasts, 1200s);
  EXPECT_EQ(token->life.refresh_in, 600s);
  EXPECT_EQ(token->life.since, world.clock.now());
  // Without expires_in, the server's Date tells.
  Reply reply = Reply::json(R"({"access_token":")" + jwt + R"(","expires_on":"1760086400"})");
  reply.headers.emplace_back("Date", "Fri, 10 Oct 2025 08:23:20 GMT");  // 1760084600
  play({reply});
  token = world.now(source()->fetch());
  EXPECT_EQ(token->life.lasts, 1800s);
}

TEST_F(ManagedIdentity, TheLifeBeginsWhenTheRequestIsSent) {
  Reply slow = Reply::json(good_answer());
  slow.delay = 15s;
  play({slow});
  const Instant start = world.clock.now();
  const auto from = source();
  const auto call = world.call(from->fetch());
  world.clock.advance(15s);
  EXPECT_EQ(call->value().life.since, start);
}

TEST_F(ManagedIdentity, NeverAsksTwiceAtOnceWhateverTheIdentities) {
  fake::Gate gate(world.io.get_executor());
  world.http.on(std::string(imds), [&](const Asked&) {
    Reply reply = Reply::json(good_answer());
    reply.gate = &gate;
    return reply;
  });
  std::vector<std::unique_ptr<TokenSource>> sources;
  std::vector<std::shared_ptr<Caller<Token>>> calls;
  for (int i = 0; i < 5; ++i) {
    sources.push_back(
        source({.client_id = {}, .object_id = "o" + std::to_string(i), .resource_id = {}}));
    calls.push_back(world.call(sources.back()->fetch()));
  }
  EXPECT_EQ(world.http.asked().size(), 1U);
  calls[0]->leave();  // Its turn ends, the next one's begins.
  world.clock.settle();
  EXPECT_EQ(world.http.asked().size(), 2U);
  calls[3]->leave();
  gate.open();
  world.clock.settle();
  EXPECT_EQ(world.http.asked().size(), 4U);
  EXPECT_EQ(world.http.most_at_once(std::string(imds)), 1U);
  for (const int i : {1, 2, 4})
    EXPECT_EQ(calls[static_cast<std::size_t>(i)]->value().life.lasts, 3599s);
}

TEST_F(ManagedIdentity, OneThatWaitsForItsNextTryKeepsNobodyFromAsking) {
  world.http.on(std::string(imds), [&](const Asked& asked) {
    return asked.field("object_id") == "bad" ? Reply{.status = 500} : Reply::json(good_answer());
  });
  const auto bad = source({.client_id = {}, .object_id = "bad", .resource_id = {}});
  const auto call = world.call(bad->fetch());
  EXPECT_TRUE(world.now(source()->fetch()));
  EXPECT_FALSE(call->done());
}

}  // namespace
}  // namespace staithe::proxy::auth
