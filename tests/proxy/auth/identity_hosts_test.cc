#include "proxy/auth/identity_hosts.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "tests/proxy/auth/world.h"

namespace staithe::proxy::auth {
namespace {

using namespace std::chrono_literals;
using fake::Asked;
using fake::Reply;
using Variables = std::map<std::string, std::string>;

const std::string audience = "https://containerregistry.azure.net";
const std::string resource = "resource=https%3A%2F%2Fcontainerregistry.azure.net";
const std::string good = R"({"access_token":"entra-1","expires_in":"3599","token_type":"Bearer"})";

IdentitySettings by_client_id(std::string id = "c1") {
  IdentitySettings identity;
  identity.client_id = std::move(id);
  return identity;
}
IdentitySettings by_object_id() {
  IdentitySettings identity;
  identity.object_id = "o1";
  return identity;
}
IdentitySettings by_resource_id() {
  IdentitySettings identity;
  identity.resource_id = "/subscriptions/s/x";
  return identity;
}

IdentityHost detected(const Variables& variables, bool arc = false,
                      ManagedIdentitySource source = ManagedIdentitySource::automatic) {
  AzureSettings azure;
  azure.variables = variables;
  return detect_identity_host(azure, source, arc);
}

// Every combination of the variables, against the list as the documents have it.
TEST(IdentityHostOf, FollowsTheDocumentedOrderForEveryCombination) {
  const char* const names[] = {"IDENTITY_ENDPOINT", "IDENTITY_HEADER", "IDENTITY_SERVER_THUMBPRINT",
                               "IMDS_ENDPOINT",     "MSI_ENDPOINT",    "MSI_SECRET"};
  std::set<IdentityHost> seen;
  for (unsigned bits = 0; bits < 128; ++bits) {
    Variables variables;
    for (unsigned i = 0; i < 6; ++i) {
      if ((bits >> i & 1) != 0) variables[names[i]] = "x";
    }
    const bool arc = (bits >> 6) != 0;
    const auto has = [&](const char* name) { return variables.contains(name); };
    const std::pair<bool, IdentityHost> order[] = {
        {has("IDENTITY_ENDPOINT") && has("IDENTITY_HEADER") && has("IDENTITY_SERVER_THUMBPRINT"),
         IdentityHost::service_fabric},
        {has("IDENTITY_ENDPOINT") && has("IDENTITY_HEADER"), IdentityHost::app_service},
        {has("MSI_ENDPOINT") && has("MSI_SECRET"), IdentityHost::azure_ml},
        {has("MSI_ENDPOINT"), IdentityHost::cloud_shell},
        {has("IDENTITY_ENDPOINT") && has("IMDS_ENDPOINT"), IdentityHost::arc},
        {arc, IdentityHost::arc},
        {true, IdentityHost::imds}};
    const auto expected = std::ranges::find(order, true, &std::pair<bool, IdentityHost>::first);
    EXPECT_EQ(detected(variables, arc), expected->second) << bits;
    seen.insert(expected->second);
  }
  EXPECT_EQ(seen.size(), 6U);
}

TEST(IdentityHostOf, AnEmptyVariableIsNone) {
  EXPECT_EQ(detected({{"IDENTITY_ENDPOINT", ""}, {"IDENTITY_HEADER", "x"}}), IdentityHost::imds);
  EXPECT_EQ(detected({{"MSI_ENDPOINT", "x"}, {"MSI_SECRET", ""}}), IdentityHost::cloud_shell);
}

TEST(IdentityHostOf, IsWhatTheConfigurationSays) {
  const Variables all = {{"IDENTITY_ENDPOINT", "x"},
                         {"IDENTITY_HEADER", "x"},
                         {"MSI_ENDPOINT", "x"},
                         {"MSI_SECRET", "x"}};
  EXPECT_EQ(detected(all, true, ManagedIdentitySource::imds), IdentityHost::imds);
  EXPECT_EQ(detected(all, false, ManagedIdentitySource::arc), IdentityHost::arc);
  EXPECT_EQ(detected(all, true, ManagedIdentitySource::app_service), IdentityHost::app_service);
  EXPECT_EQ(detected({}, true, ManagedIdentitySource::app_service), IdentityHost::app_service);
  EXPECT_EQ(detected({{"MSI_ENDPOINT", "x"}}, true, ManagedIdentitySource::app_service),
            IdentityHost::azure_ml);
}

class Host : public testing::Test {
 protected:
  Host() {
    azure.arc_agent = "/no/such/agent";
    azure.arc_tokens = "/var/opt/azcmagent/tokens";
  }
  std::unique_ptr<TokenSource> source(const IdentitySettings& identity = {}) {
    return make_managed_identity_source(
        world.environment(), azure,
        std::make_shared<MetadataService>(world.environment(),
                                          Url::parse("http://169.254.169.254").value()),
        audience, identity);
  }
  Result<Token> fetch(const IdentitySettings& identity = {}) {
    const auto made = source(identity);
    return world.now(made->fetch());
  }
  std::string refusal(const IdentitySettings& identity = {}) {
    try {
      (void)source(identity);
      return "it is made";
    } catch (const Failure& failure) {
      EXPECT_EQ(failure.code(), Errc::config);
      return failure.error().detail;
    }
  }
  // The one request that was sent since the last call.
  Asked asked() {
    EXPECT_EQ(world.http.asked().size(), 1U);
    const Asked one = world.http.asked().at(0);
    world.http.forget();
    return one;
  }

  World world;
  AzureSettings azure;
};

TEST_F(Host, AppServiceIsAskedWithItsHeaderAndItsSpelling) {
  azure.variables = {{"IDENTITY_ENDPOINT", "http://127.0.0.1:41741/msi/token"},
                     {"IDENTITY_HEADER", "h3ader"}};
  world.http.on("http://127.0.0.1:41741", {Reply::json(good)});
  const std::pair<IdentitySettings, std::string> table[] = {
      {{}, ""},
      {by_client_id(), "&client_id=c1"},
      {by_object_id(), "&principal_id=o1"},
      {by_resource_id(), "&mi_res_id=%2Fsubscriptions%2Fs%2Fx"}};
  for (const auto& [identity, selector] : table) {
    ASSERT_TRUE(fetch(identity));
    const Asked one = asked();
    EXPECT_EQ(one.method, "GET");
    EXPECT_EQ(one.url,
              "http://127.0.0.1:41741/msi/token?api-version=2019-08-01&" + resource + selector);
    ASSERT_EQ(one.headers.fields().size(), 1U);
    EXPECT_EQ(one.headers.fields()[0], (Headers::Field{"X-IDENTITY-HEADER", "h3ader"}));
  }
}

TEST_F(Host, ServiceFabricIsAskedAtItsPinnedCertificate) {
  azure.variables = {{"IDENTITY_ENDPOINT", "https://localhost:2377/metadata/identity/oauth2/token"},
                     {"IDENTITY_HEADER", "h3ader"},
                     {"IDENTITY_SERVER_THUMBPRINT", "0123456789abcdef0123456789abcdef01234567"}};
  world.http.on("https://localhost:2377", {Reply::json(good)});
  ASSERT_TRUE(fetch());
  const Asked one = asked();
  EXPECT_EQ(one.url,
            "https://localhost:2377/metadata/identity/oauth2/token?api-version=2019-07-01-"
            "preview&" +
                resource);
  EXPECT_EQ(one.headers.get("secret"), "h3ader");
  EXPECT_EQ(one.certificate_thumbprint, "0123456789abcdef0123456789abcdef01234567");
  EXPECT_EQ(refusal(by_client_id()),
            "Service Fabric has one identity: remove client_id, object_id and resource_id from "
            "[identity]");
  azure.variables["IDENTITY_ENDPOINT"] = "http://localhost:2377/metadata";
  EXPECT_EQ(refusal(), "IDENTITY_ENDPOINT of Service Fabric is not an https URL");
}

TEST_F(Host, TheFirstGenerationIsAskedWithItsSecret) {
  azure.variables = {{"MSI_ENDPOINT", "http://127.0.0.1:41741/MSI/token/?x=y"},
                     {"MSI_SECRET", "s3cr3t"}};
  world.http.on("http://127.0.0.1:41741",
                {Reply::json(R"({"access_token":"a","expires_on":"01/01/2026 01:00:00 +00:00",)"
                             R"("token_type":"Bearer","resource":"x"})")});
  world.clock.set_wall(std::chrono::sys_days(std::chrono::year(2026) / 1 / 1));
  const auto token = fetch(by_client_id());
  ASSERT_TRUE(token) << token.error().detail;
  EXPECT_EQ(token->life.lasts, 1h);
  const Asked one = asked();
  EXPECT_EQ(one.url, "http://127.0.0.1:41741/MSI/token/?x=y&api-version=2017-09-01&" + resource +
                         "&clientid=c1");
  EXPECT_EQ(one.headers.get("secret"), "s3cr3t");
  for (const auto& identity : {by_object_id(), by_resource_id()})
    EXPECT_TRUE(refusal(identity).contains("by client_id only"));
}

TEST_F(Host, DatesOfTheFirstGenerationAreRead) {
  azure.variables = {{"MSI_ENDPOINT", "http://127.0.0.1:1/"}, {"MSI_SECRET", "s3cr3t"}};
  world.clock.set_wall(std::chrono::sys_days(std::chrono::year(2026) / 7 / 12));
  const std::pair<std::string, std::chrono::seconds> dates[] = {
      {"07/12/2026 14:05:00 +00:00", 14h + 5min},
      {"7/12/2026 2:05:09 PM +00:00", 14h + 5min + 9s},
      {"7/12/2026 12:30:00 AM +00:00", 30min},
      {"1783814700", 5min}};
  for (const auto& [date, lasts] : dates) {
    world.http.on("http://127.0.0.1:1",
                  {Reply::json(R"({"access_token":"a","expires_on":")" + date + "\"}")});
    const auto token = fetch();
    ASSERT_TRUE(token) << date << " " << token.error().detail;
    EXPECT_EQ(token->life.lasts, lasts) << date;
  }
  for (const std::string date :
       {"tomorrow", "07/12/2026", "07/12/2026 14:05:00 +02:00", "07/12/2026 14:05:00 +00:00 x",
        "99/99/2026 14:05:00 +00:00", "07/11/2026 14:05:00 +00:00",
        "07/12/2026 14:05:00 +00:0000000000000000000000000000"}) {
    world.http.on("http://127.0.0.1:1",
                  {Reply::json(R"({"access_token":"a","expires_on":")" + date + "\"}")});
    EXPECT_EQ(fetch().error().code, Errc::upstream_nonsense) << date;
  }
}

TEST_F(Host, CloudShellIsPostedTo) {
  azure.variables = {{"MSI_ENDPOINT", "http://localhost:50342/oauth2/token"}};
  world.http.on("http://localhost:50342", {Reply::json(good)});
  ASSERT_TRUE(fetch());
  const Asked one = asked();
  EXPECT_EQ(one.method, "POST");
  EXPECT_EQ(one.url, "http://localhost:50342/oauth2/token");
  EXPECT_EQ(one.body, resource);
  EXPECT_EQ(one.headers.get("metadata"), "true");
  EXPECT_EQ(refusal(by_client_id()).substr(0, 28), "Cloud Shell has one identity");
}

TEST_F(Host, TheMetadataServiceIsTheLast) {
  world.http.on("http://169.254.169.254", {Reply::json(good)});
  ASSERT_TRUE(fetch(by_client_id()));
  EXPECT_EQ(asked().url,
            "http://169.254.169.254/metadata/identity/oauth2/token?api-version=2018-02-01&" +
                resource + "&client_id=c1");
}

TEST_F(Host, VariablesThatAreNoUrlsOrSecretsAreConfigurationErrors) {
  azure.variables = {{"IDENTITY_ENDPOINT", "127.0.0.1:41741"}, {"IDENTITY_HEADER", "h"}};
  EXPECT_TRUE(
      refusal().starts_with("the environment variable IDENTITY_ENDPOINT, which tells where "
                            "this machine's identity is, is not a URL: "));
  for (const std::string header : {"a b", "a\r\nX: y", "\x80"}) {
    azure.variables = {{"IDENTITY_ENDPOINT", "http://127.0.0.1:1"}, {"IDENTITY_HEADER", header}};
    EXPECT_EQ(refusal(),
              "the environment has no usable header value for App Service (IDENTITY_HEADER, "
              "MSI_SECRET)");
  }
  azure.variables = {};
  IdentitySettings told;
  told.source = ManagedIdentitySource::app_service;
  EXPECT_TRUE(refusal(told).contains("IDENTITY_ENDPOINT"));
}

TEST_F(Host, RefusalsNameWhoActsAndHideTheHeader) {
  azure.variables = {{"IDENTITY_ENDPOINT", "http://127.0.0.1:1/"}, {"IDENTITY_HEADER", "h3ader-x"}};
  const std::pair<int, Errc> table[] = {
      {400, Errc::identity_missing}, {401, Errc::unauthorized},    {403, Errc::denied},
      {429, Errc::throttled},        {500, Errc::upstream_failed}, {404, Errc::upstream_nonsense},
      {302, Errc::upstream_nonsense}};
  for (const auto& [status, code] : table) {
    world.http.on("http://127.0.0.1:1", {Reply::json(R"({"message":"no for h3ader-x"})", status)});
    const auto made = source(by_client_id());
    const auto call = world.call(made->fetch());
    world.clock.advance(1s);
    EXPECT_EQ(call->error().code, code) << status;
    EXPECT_TRUE(call->error().detail.starts_with(
        "getting an Entra token for the identity with client id c1 from App Service at "
        "http://127.0.0.1:1/: " +
        std::to_string(status)))
        << call->error().detail;
    EXPECT_FALSE(call->error().detail.contains("h3ader-x"));
  }
}

TEST_F(Host, NoOtherIdentitysTokenIsTaken) {
  azure.variables = {{"IDENTITY_ENDPOINT", "http://127.0.0.1:1/"}, {"IDENTITY_HEADER", "h"}};
  world.http.on("http://127.0.0.1:1",
                {Reply::json(R"({"access_token":"a","expires_in":"60","client_id":"other"})")});
  EXPECT_EQ(fetch(by_client_id()).error().code, Errc::upstream_nonsense);
  EXPECT_TRUE(fetch(by_client_id("OTHER")));
  EXPECT_TRUE(fetch(by_object_id()));  // It does not say which.
}

Headers with(std::vector<std::string> challenges) {
  Headers headers;
  for (std::string& challenge : challenges) headers.add("Www-Authenticate", std::move(challenge));
  return headers;
}

const std::string tokens = "/var/opt/azcmagent/tokens";

TEST(ArcKeyFile, IsOneOfTheAgents) {
  for (const std::string name : {"0b4c9a52-0000-4000-8000-2d7cd011db47.key", "A_b.1.key", "x.key"})
    EXPECT_EQ(arc_key_file(with({"Basic realm=" + tokens + "/" + name}), tokens),
              tokens + "/" + name);
  EXPECT_TRUE(arc_key_file(with({"basic REALM=" + tokens + "/x.key"}), tokens));
}

TEST(ArcKeyFile, IsNothingElse) {
  const std::string key = tokens + "/x.key";
  const std::vector<std::string> table[] = {
      {},
      {""},
      {"Basic"},
      {"Basic realm="},
      {"Basic realm=x.key"},
      {"Basic realm=" + tokens},
      {"Basic realm=" + tokens + "/"},
      {"Basic realm=" + tokens + "/.key"},
      {"Basic realm=" + tokens + "/..key"},
      {"Basic realm=" + tokens + "/x"},
      {"Basic realm=" + tokens + "/x.key.txt"},
      {"Basic realm=" + tokens + "/x.KEY"},
      {"Basic realm=" + tokens + "/../../../../etc/shadow.key"},
      {"Basic realm=" + tokens + "/../tokens/x.key"},
      {"Basic realm=" + tokens + "/sub/x.key"},
      {"Basic realm=" + tokens + "//x.key"},
      {"Basic realm=" + tokens + "x.key"},
      {"Basic realm=" + tokens + "2/x.key"},
      {"Basic realm=/etc/ssl/private/server.key"},
      {"Basic realm=//var/opt/azcmagent/tokens/x.key"},
      {"Basic realm=file://" + key},
      {"Basic realm=" + tokens + "/%2e%2e.key"},
      {"Basic realm=" + tokens + "/x y.key"},
      {"Basic realm=" + tokens + "/x\ty.key"},
      {"Basic realm=" + tokens + "/\xc3\xa4.key"},
      {"Basic realm=" + tokens + "/x" + std::string(1, '\0') + ".key"},
      {"Basic realm=" + tokens + "/" + std::string(252, 'a') + ".key"},
      {"Basic realm=" + std::string(20'000, 'a') + ".key"},
      {"Basic realm=\"" + key + "\""},
      {"Basic realm=\"" + tokens + "/x\\.key\""},
      {"Basic realm=" + key + ", Basic realm=" + key},
      {"Basic realm=" + key, "Basic realm=" + key},
      {"Basic realm=" + key, "Bearer"},
      {"Basic realm=" + key + ",charset=UTF-8"},
      {"Bearer realm=" + key},
      {"Basic file=" + key},
      {"Basic " + key},
  };
  for (const auto& challenges : table) {
    const auto file = arc_key_file(with(challenges), tokens);
    ASSERT_FALSE(file) << file->native();
    EXPECT_EQ(file.error().code, Errc::upstream_nonsense);
    EXPECT_TRUE(file.error().detail.starts_with("its challenge ")) << file.error().detail;
    EXPECT_TRUE(file.error().detail.ends_with(". Another program than the agent may answer there"))
        << file.error().detail;
    EXPECT_LT(file.error().detail.size(), 400U);
  }
}

class Arc : public Host {
 protected:
  Arc() {
    azure.variables = {{"IDENTITY_ENDPOINT", "http://localhost:40342" + path},
                       {"IMDS_ENDPOINT", "http://localhost:40342"}};
    world.http.on("http://localhost:40342", [this](const Asked& one) { return play(one); });
    world.files.write(tokens + "/1.key", "k3y-content+/=");
  }
  Reply play(const Asked& one) {
    EXPECT_EQ(one.headers.get("metadata"), "true");
    if (one.headers.get("authorization").empty()) return challenge;
    EXPECT_EQ(one.headers.get("authorization"), "Basic k3y-content+/=");
    return reply;
  }

  const std::string path = "/metadata/identity/oauth2/token";
  Reply challenge{.status = 401,
                  .headers = {{"WWW-Authenticate", "Basic realm=" + tokens + "/1.key"}}};
  Reply reply = Reply::json(good);
};

TEST_F(Arc, IsAskedTwiceTheSecondTimeWithTheKeyAsItIs) {
  const auto token = fetch();
  ASSERT_TRUE(token) << token.error().detail;
  EXPECT_EQ(token->secret.reveal(), "entra-1");
  ASSERT_EQ(world.http.asked().size(), 2U);
  for (const Asked& one : world.http.asked()) {
    EXPECT_EQ(one.method, "GET");
    EXPECT_EQ(one.url, "http://localhost:40342" + path + "?api-version=2020-06-01&" + resource);
  }
  ASSERT_EQ(world.files.asked.size(), 1U);
  EXPECT_EQ(world.files.asked[0].path, tokens + "/1.key");
  EXPECT_EQ(world.files.asked[0].rules.max_bytes, 4096U);
  EXPECT_FALSE(world.files.asked[0].rules.may_be_link);
}

TEST_F(Arc, IsFoundByItsProgramToo) {
  azure.variables = {};
  azure.arc_agent = "/proc/self/exe";
  world.http.on("http://127.0.0.1:40342", [this](const Asked& one) { return play(one); });
  EXPECT_TRUE(fetch());
  EXPECT_EQ(world.http.last("http://127.0.0.1:40342")->target,
            path + "?api-version=2020-06-01&" + resource);
}

TEST_F(Arc, IsOnThisMachineOrNowhere) {
  for (const std::string endpoint : {"http://10.0.0.1:40342", "http://arc.example/", "http://arc",
                                     "https://169.254.169.254/x"}) {
    azure.variables["IDENTITY_ENDPOINT"] = endpoint;
    EXPECT_EQ(refusal(), "IDENTITY_ENDPOINT of Azure Arc is not on this machine: its agent is");
  }
}

TEST_F(Arc, AnAnswerWithoutAChallengeIsNotTheAgents) {
  challenge = Reply::json(good);
  const auto token = fetch();
  ASSERT_FALSE(token);
  EXPECT_EQ(token.error().code, Errc::upstream_nonsense);
  EXPECT_EQ(token.error().detail,
            "getting an Entra token for this machine's identity from the Azure Arc agent at "
            "http://localhost:40342/metadata/identity/oauth2/token: it answered without a "
            "challenge. Another program answers there");
  EXPECT_TRUE(world.files.asked.empty());
}

TEST_F(Arc, AForeignChallengeReadsNoFile) {
  challenge.headers = {{"WWW-Authenticate", "Basic realm=/etc/shadow"}};
  EXPECT_EQ(fetch().error().code, Errc::upstream_nonsense);
  challenge.headers = {};
  EXPECT_EQ(fetch().error().code, Errc::upstream_nonsense);
  EXPECT_TRUE(world.files.asked.empty());
  EXPECT_EQ(world.http.asked().size(), 2U);
}

TEST_F(Arc, AKeyFileThatCannotBeUsedIsNotSent) {
  const std::string remedy = ". staithed must be root or in the group himds (usermod -aG himds)";
  world.files.write(tokens + "/1.key", std::string(4097, 'k'));
  EXPECT_TRUE(fetch().error().detail.ends_with("is longer than allowed" + remedy));
  world.files.remove(tokens + "/1.key");
  const Error missing = fetch().error();
  EXPECT_EQ(missing.code, Errc::identity_missing);
  EXPECT_TRUE(missing.detail.ends_with("cannot be read" + remedy)) << missing.detail;
  for (const std::string& key :
       {std::string(), std::string("k\r\nX: y"), std::string("k\0", 2), std::string("k k")}) {
    world.files.write(tokens + "/1.key", key);
    EXPECT_TRUE(fetch().error().detail.ends_with("the key file holds no key"));
  }
  for (const Asked& one : world.http.asked()) EXPECT_TRUE(one.headers.get("authorization").empty());
}

TEST_F(Arc, AUserAssignedIdentityMustBeEchoed) {
  const auto missing = fetch(by_client_id());
  ASSERT_FALSE(missing);
  EXPECT_EQ(missing.error().code, Errc::upstream_nonsense);
  EXPECT_TRUE(missing.error().detail.ends_with(
      "the answer does not say which identity it is for: this agent knows only the machine's own; "
      "update it, or remove the client id from [identity]"))
      << missing.error().detail;
  EXPECT_TRUE(world.http.asked()[0].target.ends_with("&client_id=c1"));
  const std::pair<IdentitySettings, std::string> table[] = {
      {by_client_id(), R"("client_id":"C1")"},
      {by_object_id(), R"("object_id":"o1")"},
      {by_resource_id(), R"("msi_res_id":"/SUBSCRIPTIONS/s/x")"}};
  for (const auto& [identity, echo] : table) {
    reply = Reply::json(R"({"access_token":"a","expires_in":"60",)" + echo + "}");
    EXPECT_TRUE(fetch(identity));
    reply = Reply::json(R"({"access_token":"a","expires_in":"60","client_id":"c2",)"
                        R"("object_id":"o2","msi_res_id":"/x"})");
    EXPECT_EQ(fetch(identity).error().code, Errc::upstream_nonsense);
  }
}

TEST_F(Arc, ARefusalShowsNoKey) {
  reply = Reply::json(R"({"error":"unauthorized","error_description":"bad k3y-content+/="})", 401);
  const auto token = fetch();
  EXPECT_EQ(token.error().code, Errc::unauthorized);
  EXPECT_FALSE(token.error().detail.contains("k3y-content")) << token.error().detail;
  challenge = Reply{.status = 403};
  EXPECT_EQ(fetch().error().code, Errc::denied);
  challenge = Reply{.status = 400};
  EXPECT_EQ(fetch().error().code, Errc::identity_missing);
}

}  // namespace
}  // namespace staithe::proxy::auth
