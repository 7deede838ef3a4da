#include "proxy/auth/client_credentials.h"

#include <gtest/gtest.h>

#include <boost/json/parse.hpp>
#include <set>
#include <string>
#include <vector>

#include "proxy/auth/base64.h"
#include "proxy/auth/json.h"
#include "proxy/auth/jwt.h"
#include "tests/proxy/auth/fake_entra.h"
#include "tests/proxy/auth/make_certificate.h"
#include "tests/proxy/auth/world.h"

namespace staithe::proxy::auth {
namespace {

using namespace std::chrono_literals;
using fake::Asked;
using fake::Reply;

const std::string audience = "https://containerregistry.azure.net";
const std::string endpoint = "https://login.microsoftonline.com/tenant/oauth2/v2.0/token";
const std::string step = "getting an Entra token for the application app from " + endpoint;

json::object claims_of(const std::string& jwt) {
  const std::size_t first = jwt.find('.'), second = jwt.find('.', first + 1);
  return json::parse(decode_base64url(jwt.substr(first + 1, second - first - 1)).value())
      .as_object();
}

class Application : public testing::Test {
 protected:
  Application() { world.files.write("/secret", "s3cr3t\n"); }
  void use(std::unique_ptr<ClientProof> proof, AzureSettings azure = {}, bool by_proxy = false) {
    source = std::make_unique<ClientCredentials>(
        world.environment(), value_or_throw(token_endpoint(azure, "tenant", by_proxy)), "app",
        audience, std::move(proof));
  }
  void use_secret() { use(make_secret_proof(world.environment(), "/secret")); }
  void use_assertion() {
    world.files.write("/token", "assertion-1\n");
    use(make_assertion_file_proof(world.environment(), "/token"));
  }
  void use_certificate(PairOptions options = {}) {
    pair = make_pair(options);
    world.files.write("/app.pem", pair.key + pair.certificate);
    use(make_certificate_proof(world.environment(), "/app.pem"));
  }
  Result<Token> fetch() {
    const auto call = world.call(source->fetch());
    world.clock.advance(1s);  // For the one more try after a 5xx.
    if (!call->outcome) return fail(Errc::in_use, "the call waits");
    return std::move(*call->outcome);
  }
  Error error() {
    const auto token = fetch();
    return token ? Error{Errc::in_use, "a token"} : token.error();
  }

  World world;
  FakeEntra entra{world.http, world.clock};
  std::unique_ptr<ClientCredentials> source;
  Pair pair;
};

TEST_F(Application, WithASecretSendsTheDocumentedForm) {
  world.files.write("/secret", "s3&r=t ~\n");
  entra.secret = "s3&r=t ~";
  use_secret();
  const auto token = fetch();
  ASSERT_TRUE(token) << token.error().detail;
  EXPECT_EQ(token->life.lasts, 3599s);
  EXPECT_EQ(token->scope, audience);
  ASSERT_EQ(world.http.asked().size(), 1U);
  const Asked& asked = world.http.asked()[0];
  EXPECT_EQ(asked.method, "POST");
  EXPECT_EQ(asked.url, endpoint);
  EXPECT_EQ(asked.body,
            "client_id=app&scope=https%3A%2F%2Fcontainerregistry.azure.net%2F.default&grant_type="
            "client_credentials&client_secret=s3%26r%3Dt%20~");
  ASSERT_EQ(asked.headers.fields().size(), 1U);
  EXPECT_EQ(asked.headers.get("content-type"), "application/x-www-form-urlencoded");
}

TEST_F(Application, WithAnAssertionSendsTheDocumentedForm) {
  use_assertion();
  ASSERT_TRUE(fetch());
  EXPECT_EQ(world.http.asked()[0].body,
            "client_id=app&scope=https%3A%2F%2Fcontainerregistry.azure.net%2F.default&grant_type="
            "client_credentials&client_assertion_type=urn%3Aietf%3Aparams%3Aoauth%3Aclient-"
            "assertion-type%3Ajwt-bearer&client_assertion=assertion-1");
}

TEST_F(Application, WithACertificateSignsAnAssertionOfItsOwnForEachCall) {
  use_certificate();
  std::set<std::string> ids;
  for (int i = 0; i < 50; ++i) {
    ASSERT_TRUE(fetch());
    const std::string assertion = entra.asked.back().field("client_assertion");
    const auto claims = claims_of(assertion);
    EXPECT_EQ(claims.at("aud").as_string(), endpoint);
    EXPECT_EQ(claims.at("iss").as_string(), "app");
    EXPECT_EQ(claims.at("sub").as_string(), "app");
    EXPECT_LE(claims.at("nbf").as_int64(), entra.time());
    EXPECT_GT(claims.at("exp").as_int64(), entra.time() + 300);
    const std::size_t dot = assertion.rfind('.');
    EXPECT_TRUE(verifies_ps256(pair, assertion.substr(0, dot),
                               decode_base64url(assertion.substr(dot + 1)).value()));
    const std::string id(claims.at("jti").as_string());
    // A UUID of version 4.
    ASSERT_EQ(id.size(), 36U);
    for (const std::size_t dash : {8U, 13U, 18U, 23U}) EXPECT_EQ(id[dash], '-') << id;
    EXPECT_EQ(id.find_first_not_of("0123456789abcdef-"), std::string::npos) << id;
    EXPECT_EQ(id[14], '4') << id;
    EXPECT_TRUE(std::string_view("89ab").contains(id[19])) << id;
    EXPECT_TRUE(ids.insert(id).second) << id;
  }
}

TEST_F(Application, ReadsItsProofAnewForEachCall) {
  use_secret();
  ASSERT_TRUE(fetch());
  entra.secret = "n3w";
  EXPECT_EQ(error().code, Errc::unauthorized);
  world.files.write("/secret", "n3w");
  EXPECT_TRUE(fetch());
  use_assertion();
  ASSERT_TRUE(fetch());
  world.files.write("/token", "assertion-2");
  ASSERT_TRUE(fetch());
  EXPECT_EQ(entra.asked.back().field("client_assertion"), "assertion-2");
  // A link that others of the pod may read, as kubelet makes it; a secret is private.
  EXPECT_FALSE(world.files.asked.back().rules.is_private);
  EXPECT_TRUE(world.files.asked.back().rules.may_be_link);
  EXPECT_TRUE(world.files.asked.front().rules.is_private);
}

TEST_F(Application, WithoutAUsableFileAsksNobody) {
  const struct {
    std::string_view path, text, why;
  } table[] = {{"/secret", "", "the file /secret is empty: put the secret there"},
               {"/secret", "\n", "the file /secret is empty: put the secret there"},
               {"/token", "", "the file /token holds no token"},
               {"/token", "a b", "the file /token holds no token"},
               {"/token", "a\r\nX: y\n", "the file /token holds no token"},
               {"/app.pem", "s3cr3t", "the certificate file /app.pem: there is no private key"}};
  for (const auto& row : table) {
    world.files.write(row.path, std::string(row.text));
    if (row.path == "/secret") use(make_secret_proof(world.environment(), row.path));
    if (row.path == "/token") use(make_assertion_file_proof(world.environment(), row.path));
    if (row.path == "/app.pem") use(make_certificate_proof(world.environment(), row.path));
    const Error failed = error();
    EXPECT_EQ(failed.code, Errc::identity_missing);
    EXPECT_TRUE(failed.detail.starts_with(step + ": " + std::string(row.why))) << failed.detail;
    EXPECT_FALSE(failed.detail.contains("s3cr3t"));
    world.files.remove(row.path);
    EXPECT_EQ(error().detail, step + ": the file " + std::string(row.path) + " cannot be read");
  }
  EXPECT_TRUE(world.http.asked().empty());
}

TEST_F(Application, TellsWhoHasToMendWhat) {
  const std::string secret_remedy =
      "Make a new secret (az ad app credential reset --id APP) and put it into /secret";
  const struct {
    int status;
    std::string_view error, description;
    Errc code;
    std::string remedy;
  } table[] = {
      {401, "invalid_client", "AADSTS7000215: Invalid client secret provided.", Errc::unauthorized,
       " " + secret_remedy},
      {400, "invalid_grant", "AADSTS50173", Errc::unauthorized, ". " + secret_remedy},
      {400, "unauthorized_client", "AADSTS700016: Application not found", Errc::unauthorized,
       ". Check client_id, and that the application exists in the tenant (tenant_id)"},
      {400, "invalid_request", "AADSTS90002: Tenant not found", Errc::unauthorized,
       ". Check tenant_id, client_id and azure.cloud of the configuration"},
      {400, "invalid_resource", "AADSTS500011", Errc::unauthorized,
       ". Check azure.audience: this cloud may know the registry by another name"},
      {400, "invalid_scope", "AADSTS70011", Errc::unauthorized,
       ". Check azure.audience: this cloud may know the registry by another name"},
      {400, "something_new", "AADSTS1", Errc::unauthorized, ""},
      {403, "access_denied", "conditional access", Errc::denied, ""},
      {400, "temporarily_unavailable", "AADSTS90033: try later", Errc::upstream_failed, ""},
      {429, "too_many", "slow down", Errc::throttled, ""},
      {503, "service_unavailable", "busy", Errc::upstream_failed, ""},
      {404, "not_found", "no such tenant path", Errc::upstream_nonsense, ""},
  };
  for (const auto& row : table) {
    World fresh;
    fresh.files.write("/secret", "s3cr3t");
    FakeEntra server(fresh.http, fresh.clock);
    const Reply reply = FakeEntra::refusal(row.error, row.description, row.status);
    server.next = {reply, reply};
    ClientCredentials tested(fresh.environment(),
                             token_endpoint(AzureSettings(), "tenant", false).value(), "app",
                             audience, make_secret_proof(fresh.environment(), "/secret"));
    const auto call = fresh.call(tested.fetch());
    fresh.clock.advance(1s);
    EXPECT_EQ(call->error().code, row.code) << row.error;
    EXPECT_EQ(call->error().detail, step + ": " + std::to_string(row.status) + " " +
                                        std::string(row.error) + ": " +
                                        std::string(row.description) + row.remedy);
  }
}

TEST_F(Application, TriesOnceMoreOnlyWhatPasses) {
  use_secret();
  entra.next = {Reply{.status = 500, .body = "<html>"}};
  EXPECT_TRUE(fetch());
  EXPECT_EQ(entra.calls, 2);
  entra.next = {Reply::failure(Errc::upstream_failed, "broken off")};
  EXPECT_TRUE(fetch());
  EXPECT_EQ(entra.calls, 4);
  for (const auto* error : {"invalid_client", "temporarily_unavailable"}) {
    entra.next = {FakeEntra::refusal(error, "no", 400)};
    EXPECT_FALSE(fetch());
  }
  EXPECT_EQ(entra.calls, 6);
}

TEST_F(Application, IsNotAskedForWhileEntraThrottles) {
  use_secret();
  entra.next = {Reply{.status = 429, .headers = {{"Retry-After", "60"}}}};
  EXPECT_EQ(error().code, Errc::throttled);
  world.clock.advance(50s);
  EXPECT_EQ(error().code, Errc::throttled);
  EXPECT_EQ(entra.calls, 1);
  world.clock.advance(30s);
  EXPECT_TRUE(fetch());
}

TEST_F(Application, KeepsItsSecretsOutOfErrorsWhateverTheServerSays) {
  const std::string secret = "abc8Q~A0123456789-secret-with.dots_end";
  world.files.write("/secret", secret);
  use_secret();
  const auto is_quiet = [](const std::string& said, const std::string& of) {
    for (std::size_t at = 0; at + 8 <= of.size(); ++at) {
      if (said.contains(of.substr(at, 8))) return false;
    }
    return true;
  };
  for (const std::string& body :
       {FakeEntra::oauth_error("invalid_client", "you sent " + secret),
        FakeEntra::oauth_error("invalid_client",
                               secret.substr(0, 12) + " ... " + secret.substr(20)),
        FakeEntra::oauth_error(secret, "x"), "plain " + secret,
        R"({"errors":[{"code":")" + secret + R"(","message":"x"}]})",
        R"({"message":"client_secret=)" + secret + "\"}"}) {
    entra.next = {Reply::json(body, 401)};
    const Error failed = error();
    EXPECT_TRUE(is_quiet(failed.detail, secret)) << failed.detail;
    EXPECT_TRUE(failed.detail.contains("[hidden]")) << failed.detail;
  }
  entra.next = {Reply::json(FakeEntra::oauth_error("temporarily_unavailable", secret), 400)};
  EXPECT_TRUE(is_quiet(error().detail, secret));
  use_certificate();
  world.http.on(endpoint, [](const Asked& asked) {
    return Reply::json(
        FakeEntra::oauth_error("invalid_client", "bad " + asked.field("client_assertion")), 401);
  });
  const Error failed = error();
  const std::string sent = world.http.asked().back().field("client_assertion");
  EXPECT_TRUE(is_quiet(failed.detail, sent)) << failed.detail;
}

TEST_F(Application, RefusesAnswersThatMakeNoSense) {
  use_secret();
  for (const std::string& body :
       {std::string(), std::string("<html>"), std::string("[]"), std::string("{}"),
        std::string(R"({"access_token":""})"), std::string(R"({"access_token":"a b"})"),
        std::string(R"({"access_token":"a\r\nX: y"})"), std::string(R"({"access_token":["a"]})"),
        std::string(R"({"access_token":"a","token_type":"mac"})"),
        std::string(R"({"access_token":"a","expires_in":"soon"})"),
        std::string(R"({"access_token":"a","expires_in":0})"),
        std::string(R"({"access_token":"a","expires_in":-5})"),
        std::string(R"({"access_token":"a","expires_in":3599,"refresh_in":[]})")}) {
    entra.next = {Reply::json(body)};
    EXPECT_EQ(error().code, Errc::upstream_nonsense) << body;
  }
  entra.next = {Reply{.status = 302, .headers = {{"Location", "https://evil.example/"}}}};
  EXPECT_EQ(error().code, Errc::upstream_nonsense);
  EXPECT_EQ(world.http.count("https://evil.example"), 0U);
  // Text for numbers, a type in small letters and advice are fine.
  entra.next = {Reply::json(
      R"({"access_token":"a","expires_in":"86399","refresh_in":43200,"token_type":"bearer"})")};
  const auto token = fetch();
  ASSERT_TRUE(token);
  EXPECT_EQ(token->life.lasts, 86399s);
  EXPECT_EQ(token->life.refresh_in, 12h);
}

TEST_F(Application, WhoseClockIsWrongSignsOnceMoreByTheServersClock) {
  use_certificate();
  for (const std::chrono::seconds ahead : {7min, -7min}) {
    entra.clock_ahead = ahead;
    entra.asked.clear();
    entra.next = {FakeEntra::refusal("invalid_client", "AADSTS700024: outside its validity")};
    ASSERT_TRUE(fetch());
    ASSERT_EQ(entra.asked.size(), 2U);
    const auto first = claims_of(entra.asked[0].field("client_assertion"));
    const auto second = claims_of(entra.asked[1].field("client_assertion"));
    EXPECT_EQ(second.at("iat").as_int64() - first.at("iat").as_int64(), ahead.count());
    EXPECT_NE(second.at("jti"), first.at("jti"));
  }
  // Refused for another reason, both are told, once.
  const Reply refusal = FakeEntra::refusal("invalid_client", "AADSTS700027: unknown certificate");
  entra.next = {refusal, refusal};
  const Error failed = error();
  EXPECT_EQ(entra.asked.size(), 4U);
  EXPECT_TRUE(failed.detail.contains("--create-cert")) << failed.detail;
  EXPECT_TRUE(failed.detail.ends_with(
      ". This machine's clock and the server's are 7 minutes apart: set it (timedatectl)"))
      << failed.detail;
}

TEST_F(Application, SignsOnceMoreForNothingElse) {
  use_certificate();
  const Reply refusal = FakeEntra::refusal("invalid_client", "AADSTS700024");
  entra.clock_ahead = 90s;
  entra.next = {refusal};
  EXPECT_EQ(error().code, Errc::unauthorized);
  entra.clock_ahead = 7min;
  entra.sends_date = false;
  entra.next = {refusal};
  EXPECT_EQ(error().code, Errc::unauthorized);
  entra.sends_date = true;
  entra.next = {FakeEntra::refusal("access_denied", "no", 403)};
  EXPECT_EQ(error().code, Errc::denied);
  EXPECT_EQ(entra.calls, 3);
  // What does not depend on the clock is not sent twice.
  use_secret();
  entra.next = {refusal};
  EXPECT_EQ(error().code, Errc::unauthorized);
  use_assertion();
  entra.next = {refusal};
  EXPECT_EQ(error().code, Errc::unauthorized);
  EXPECT_EQ(entra.calls, 5);
}

TEST_F(Application, KnowsTheEndOfItsCertificateFromTheFirstReadOn) {
  pair = make_pair({.not_after = "20260116000000Z"});
  world.files.write("/app.pem", pair.key + pair.certificate);
  world.clock.set_wall(std::chrono::sys_days(std::chrono::year(2026) / 1 / 1));
  const auto proof = make_certificate_proof(world.environment(), "/app.pem");
  EXPECT_FALSE(proof->ending());
  EXPECT_TRUE(world.now(proof->make(endpoint, "app", world.clock.wall())));
  ASSERT_TRUE(proof->ending());
  EXPECT_EQ(proof->ending()->what, "certificate /app.pem");
  EXPECT_EQ(proof->ending()->expires_in, std::chrono::days(15));
  EXPECT_TRUE(proof->ending()->is_near());
  const Pair endless = make_pair({.not_after = "99991231235959Z"});
  world.files.write("/app.pem", endless.key + endless.certificate);
  EXPECT_TRUE(world.now(proof->make(endpoint, "app", world.clock.wall())));
  EXPECT_GT(proof->ending()->expires_in, std::chrono::years(7900));
  EXPECT_FALSE(proof->ending()->is_near());
}

TEST_F(Application, FiveHundredCallersAreOneCall) {
  fake::Gate gate(world.io.get_executor());
  entra.gate = &gate;
  use_secret();
  const auto keeper =
      std::make_shared<TokenKeeper>("token", Kind::entra, std::move(source), world.environment());
  std::vector<std::shared_ptr<Caller<std::shared_ptr<const Token>>>> calls;
  for (int i = 0; i < 500; ++i) calls.push_back(world.begin(keeper->get()));
  world.clock.settle();
  for (const auto& call : calls) EXPECT_FALSE(call->done());
  gate.open();
  world.clock.settle();
  for (const auto& call : calls) EXPECT_EQ(call->value(), calls.front()->value());
  EXPECT_EQ(entra.calls, 1);
  // And one that was given a proof by somebody, for himself alone.
  ClientCredentials given(world.environment(),
                          token_endpoint(AzureSettings(), "tenant", false).value(), "pod", audience,
                          make_given_proof(Secret("service-account-token")));
  EXPECT_TRUE(world.now(given.fetch()));
  EXPECT_EQ(entra.asked.back().field("client_assertion"), "service-account-token");
  EXPECT_EQ(entra.asked.back().field("client_id"), "pod");
}

TEST(TokenEndpoint, IsTheTenantsAtTheConfiguredAuthority) {
  AzureSettings azure;
  azure.authority = "https://login.chinacloudapi.cn";
  const auto there = token_endpoint(azure, "contoso.partner.onmschina.cn", true);
  EXPECT_EQ(there->url.wire(),
            "https://login.chinacloudapi.cn/contoso.partner.onmschina.cn/oauth2/v2.0/token");
  EXPECT_EQ(there->shown, there->url.wire());
  EXPECT_TRUE(there->host_field.empty() && there->connect_to.empty() && there->ca_file.empty());
  azure.authority = "login.microsoftonline.com";
  EXPECT_EQ(token_endpoint(azure, "t", false).error().code, Errc::config);
}

// A caller may name the tenant: nothing but the tenant's own path comes of it.
TEST(TokenEndpoint, ATenantIsOneSegmentOfThePath) {
  for (const std::string tenant : {"", ".", "..", "a/b", "../x", "a?b", "a#b", "a b", "a%2fb",
                                   "a\r\nb", "a@b", "a:b", ".a", "-a"}) {
    const auto there = token_endpoint(AzureSettings(), tenant, false);
    ASSERT_FALSE(there) << tenant;
    EXPECT_EQ(there.error().code, Errc::config);
  }
  EXPECT_FALSE(token_endpoint(AzureSettings(), std::string(300, 'a'), false));
  for (const std::string tenant : {"72f988bf-86f1-41af-91ab-2d7cd011db47", "common", "a.b-c.com"})
    EXPECT_TRUE(token_endpoint(AzureSettings(), tenant, false)) << tenant;
}

TEST_F(Application, OfAnIdentityBindingGoesByItsProxy) {
  AzureSettings azure;
  azure.variables = {{"AZURE_KUBERNETES_TOKEN_PROXY", "https://10.0.0.1:443/proxy/"},
                     {"AZURE_KUBERNETES_SNI_NAME", "binding.ests.aks"},
                     {"AZURE_KUBERNETES_CA_DATA", "-----BEGIN CERTIFICATE-----"}};
  world.files.write("/token", "assertion-1");
  FakeEntra proxy(world.http, world.clock, "https://binding.ests.aks");
  use(make_assertion_file_proof(world.environment(), "/token"), azure, true);
  ASSERT_TRUE(fetch());
  ASSERT_EQ(world.http.asked().size(), 1U);
  const Asked& asked = world.http.asked()[0];
  EXPECT_EQ(asked.url, "https://binding.ests.aks/proxy/tenant/oauth2/v2.0/token");
  EXPECT_EQ(asked.headers.get("host"), "10.0.0.1");
  EXPECT_EQ(asked.connect_to, "10.0.0.1:443");
  EXPECT_EQ(asked.ca_pem, "-----BEGIN CERTIFICATE-----");
  EXPECT_EQ(asked.ca_file, "");
  EXPECT_EQ(entra.calls, 0);
  // The audience of an assertion that we sign is the public endpoint.
  use_certificate();
  use(make_certificate_proof(world.environment(), "/app.pem"), azure, true);
  ASSERT_TRUE(fetch());
  EXPECT_EQ(claims_of(world.http.asked().back().field("client_assertion")).at("aud").as_string(),
            endpoint);
  // For others than pods there is no proxy.
  EXPECT_EQ(token_endpoint(azure, "tenant", false)->url.wire(), endpoint);
}

TEST(TokenEndpoint, OfAProxyWithoutANameIsTheProxysOwn) {
  AzureSettings azure;
  azure.variables = {{"AZURE_KUBERNETES_TOKEN_PROXY", "https://proxy.example:8443"},
                     {"AZURE_KUBERNETES_CA_FILE", "/ca.crt"}};
  const auto there = token_endpoint(azure, "tenant", true);
  EXPECT_EQ(there->url.wire(), "https://proxy.example:8443/tenant/oauth2/v2.0/token");
  EXPECT_EQ(there->ca_file, "/ca.crt");
  EXPECT_TRUE(there->connect_to.empty() && there->host_field.empty());
  for (const std::string bad : {"http://proxy.example", "proxy.example", "https://", "ftp://x"}) {
    azure.variables["AZURE_KUBERNETES_TOKEN_PROXY"] = bad;
    EXPECT_EQ(token_endpoint(azure, "tenant", true).error().code, Errc::config) << bad;
  }
  azure.variables["AZURE_KUBERNETES_TOKEN_PROXY"] = "https://proxy.example";
  for (const std::string bad : {"a b", "a/b", "a@b", "a\r\nb"}) {
    azure.variables["AZURE_KUBERNETES_SNI_NAME"] = bad;
    EXPECT_EQ(token_endpoint(azure, "tenant", true).error().code, Errc::config) << bad;
  }
}

}  // namespace
}  // namespace staithe::proxy::auth
