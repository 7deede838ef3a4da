// What the control socket hands out, to whom, and what it refuses.
#include <gmock/gmock.h>

#include <algorithm>
#include <boost/json/serialize.hpp>
#include <random>

#include "tests/daemon/credentials_case.h"

namespace staithe::daemon {
namespace {

using fake::OtherUser;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;

constexpr unsigned somebody = 54321;
constexpr const char* guid = "8d3f4b1e-0000-4000-8000-0123456789ab";

TEST_F(CredentialsTest, AreHandedOutAsTheContractHasThem) {
  EXPECT_EQ(body_of(post("/v1/credential", R"({"registry":"contoso.azurecr.io"})")),
            (json::object{{"registry", "contoso.azurecr.io"},
                          {"username", "00000000-0000-0000-0000-000000000000"},
                          {"password", "refresh-of-vm"},
                          {"identity_token", false},
                          {"renewable", true},
                          {"expires_in_seconds", 9000}}));
  parts_["hub"].identity_token = true;
  EXPECT_EQ(body_of(post("/v1/credential",
                         R"({"registry":"docker.io","repository":"","purpose":"pull"})")),
            (json::object{{"registry", "docker.io"},
                          {"username", "me"},
                          {"password", "hub-password"},
                          {"identity_token", true},
                          {"renewable", false},
                          {"expires_in_seconds", nullptr}}));
  EXPECT_THAT(post("/v1/credential", R"({"registry":"docker.io"})"),
              AllOf(StartsWith("HTTP/1.1 200 OK\r\n"), HasSubstr("Cache-Control: no-store\r\n")));
}

TEST_F(CredentialsTest, AreThoseOfTheRepositorysIdentity) {
  const auto password = [&](const std::string& registry, const std::string& repository) {
    return body_of(post("/v1/credential", R"({"registry":")" + registry + R"(","repository":")" +
                                              repository + R"("})"))
        .at("password")
        .as_string();
  };
  EXPECT_EQ(password("contoso.azurecr.io", "team-a/web"), "refresh-of-a");
  EXPECT_EQ(password("contoso.azurecr.io", "team-b/web"), "refresh-of-vm");
  EXPECT_EQ(password("other.azurecr.io", "team-a/web"), "refresh-of-vm") << "by the wildcard";
  EXPECT_EQ(password("docker.io", "alpine"), "official-password") << "library/alpine";
  EXPECT_EQ(password("docker.io", "me/app"), "hub-password");
}

TEST_F(CredentialsTest, KeepEveryByteOfAPasswordThatIsText) {
  for (const std::string& text :
       {std::string("a\"b\\c/d"), std::string("line\r\nfeed\ttab\x01\x1f\x7f"),
        std::string("\xc3\xa4\xe2\x82\xac\xf0\x9f\x94\x91"), std::string("</script>&'\"")}) {
    parts_["vm"].secret = secret(text);
    EXPECT_EQ(body_of(post("/v1/credential", R"({"registry":"a.azurecr.io"})")).at("password"),
              json::value(text));
  }
  parts_["vm"].secret = secret("\xff\xfe");
  EXPECT_THAT(error_of(post("/v1/credential", R"({"registry":"a.azurecr.io"})")),
              StartsWith("502 UNAVAILABLE the credential for a.azurecr.io holds bytes"));
}

TEST_F(CredentialsTest, AreNotThereForWhatIsNotManaged) {
  for (const std::string registry : {"quay.io", "ghcr.io", "localhost:5000"}) {
    EXPECT_THAT(error_of(post("/v1/credential", R"({"registry":")" + registry + R"("})")),
                StartsWith("404 NOT_MANAGED "));
  }
}

TEST_F(CredentialsTest, ThatFailSayWhy) {
  for (const auto& [code, status] : std::map<Errc, std::string>{{Errc::identity_missing, "503"},
                                                                {Errc::throttled, "503"},
                                                                {Errc::unreachable, "503"},
                                                                {Errc::unauthorized, "502"},
                                                                {Errc::denied, "502"},
                                                                {Errc::firewall, "502"},
                                                                {Errc::upstream_failed, "502"},
                                                                {Errc::upstream_nonsense, "502"},
                                                                {Errc::config, "502"}}) {
    parts_["vm"].error = Error{code, "step, cause, remedy"};
    EXPECT_EQ(error_of(post("/v1/credential", R"({"registry":"a.azurecr.io"})")),
              status + " UNAVAILABLE step, cause, remedy");
  }
}

TEST_F(CredentialsTest, GoToRootAndTheOwnUserAndThoseWhoAreNamed) {
  if (!OtherUser::possible()) GTEST_SKIP() << "needs root, to become another user";
  const std::string pull = R"({"registry":"contoso.azurecr.io"})";
  const std::string expose = R"({"registry":"contoso.azurecr.io","purpose":"expose-token"})";
  const std::string login = R"({"registry":"contoso.azurecr.io","token":"t"})";
  struct Row {
    proxy::AccessSettings access;
    int status, list, pull, renew, own;
  };
  const std::string uid = std::to_string(somebody);
  for (const Row& row : {Row{{}, 200, 403, 403, 403, 403},
                         Row{{.users = {uid}, .groups = {}}, 200, 200, 200, 200, 403},
                         Row{{.users = {"1"}, .groups = {}}, 403, 403, 403, 403, 403}}) {
    house_.run(access_.load({.all = row.access}));
    EXPECT_EQ(status_of(ask_as(somebody, "GET", "/v1/status")), row.status);
    EXPECT_EQ(status_of(ask_as(somebody, "GET", "/v1/credentials")), row.list);
    EXPECT_EQ(status_of(ask_as(somebody, "POST", "/v1/credential", pull)), row.pull);
    EXPECT_EQ(status_of(ask_as(somebody, "POST", "/v1/renew", pull)), row.renew);
    EXPECT_EQ(status_of(ask_as(somebody, "POST", "/v1/credential", expose)), row.own);
    EXPECT_EQ(status_of(ask_as(somebody, "POST", "/v1/login", login)), row.own);
    EXPECT_EQ(status_of(ask_as(somebody, "POST", "/v1/logout", pull)), row.own);
    // Root may do everything, whoever is named.
    EXPECT_EQ(status_of(ask_as(0, "POST", "/v1/credential", pull)), 200);
    EXPECT_EQ(status_of(ask_as(0, "POST", "/v1/credential", expose)), 200);
    EXPECT_EQ(status_of(ask_as(0, "POST", "/v1/login", login)), 200);
  }
  EXPECT_THAT(error_of(ask_as(somebody, "POST", "/v1/credential", pull)),
              AllOf(StartsWith("403 DENIED "), HasSubstr("access.users")));
  EXPECT_THAT(ask_as(somebody, "POST", "/v1/credential", pull), Not(HasSubstr("refresh-of")));
}

// [registry.access]: the lists of one registry decide for it, those of all for the others.
TEST_F(CredentialsTest, OfARegistryGoToWhomItsOwnListsName) {
  if (!OtherUser::possible()) GTEST_SKIP() << "needs root, to become another user";
  const auto ask = [](const char* registry) {
    return std::string(R"({"registry":")") + registry + R"("})";
  };
  const proxy::AccessSettings him{.users = {std::to_string(somebody)}, .groups = {}};
  const proxy::AccessSettings another{.users = {"1"}, .groups = {}};
  const auto status_for = [&](const char* path, const char* registry) {
    return status_of(ask_as(somebody, "POST", path, ask(registry)));
  };
  for (const auto& [lists, hub, acr] :
       {std::tuple(AccessLists{.all = another, .own = {{"docker.io", him}}}, true, false),
        std::tuple(AccessLists{.all = {}, .own = {{"docker.io", him}}}, true, false),
        std::tuple(AccessLists{.all = him, .own = {{"docker.io", another}}}, false, true),
        std::tuple(AccessLists{.all = him, .own = {{"docker.io", {}}}}, false, true)}) {
    house_.run(access_.load(lists));
    EXPECT_EQ(status_for("/v1/credential", "docker.io"), hub ? 200 : 403);
    EXPECT_EQ(status_for("/v1/credential", "contoso.azurecr.io"), acr ? 200 : 403);
    EXPECT_EQ(status_for("/v1/renew", "docker.io"), hub ? 200 : 403);
    EXPECT_EQ(status_for("/v1/renew", "contoso.azurecr.io"), acr ? 200 : 403);
    // Lists have what he may have of it, and no more.
    const std::string all = ask_as(somebody, "GET", "/v1/credentials");
    EXPECT_EQ(all.contains("docker.io"), hub) << all;
    EXPECT_EQ(all.contains("contoso.azurecr.io"), acr) << all;
    const std::string renewed = ask_as(somebody, "POST", "/v1/renew", "{}");
    EXPECT_EQ(renewed.contains("docker.io"), hub) << renewed;
    EXPECT_EQ(renewed.contains("contoso.azurecr.io"), acr) << renewed;
  }
  house_.run(access_.load({.all = him, .own = {{"docker.io", another}}}));
  EXPECT_THAT(error_of(ask_as(somebody, "POST", "/v1/credential", ask("docker.io"))),
              AllOf(StartsWith("403 DENIED "), HasSubstr("[registry.access]")));
}

TEST_F(CredentialsTest, OfAServiceAccountAreThoseOfThePod) {
  const std::string whole = std::string(R"({"registry":"contoso.azurecr.io",)") +
                            R"("service_account_token":"eyJ.a.b","client_id":")" + guid +
                            R"(","tenant_id":")" + guid + R"("})";
  const json::object body = body_of(post("/v1/credential", whole));
  EXPECT_EQ(body.at("username").as_string(), "pod");
  EXPECT_EQ(body.at("password").as_string(), "refresh-of-pod");
  EXPECT_THAT(doors_used_,
              ElementsAre(std::string("contoso.azurecr.io ") + guid + " " + guid + " 7"));
  EXPECT_EQ(parts_["vm"].logins, 0) << "never the machine's own";
  for (const std::string fields :
       {R"("service_account_token":"t")", R"("client_id":"x","tenant_id":"y")",
        R"("service_account_token":"t","client_id":"x","tenant_id":"y")",
        R"("service_account_token":"","client_id":"8d3f4b1e-0000-4000-8000-0123456789ab",)"
        R"("tenant_id":"8d3f4b1e-0000-4000-8000-0123456789ab")"}) {
    EXPECT_THAT(
        error_of(post("/v1/credential", R"({"registry":"contoso.azurecr.io",)" + fields + "}")),
        StartsWith("400 "))
        << fields;
  }
  EXPECT_THAT(error_of(post("/v1/credential",
                            whole.substr(0, whole.size() - 1) + R"(,"purpose":"expose-token"})")),
              StartsWith("400 "));
  EXPECT_EQ(parts_["vm"].logins, 0);
}

TEST_F(CredentialsTest, AreListedByRegistryAndName) {
  post("/v1/credential", R"({"registry":"used.azurecr.io"})");
  const json::object body = body_of(ask_as(::geteuid(), "GET", "/v1/credentials"));
  const auto entry = [](const char* registry, const char* name) {
    return json::object{{"registry", registry}, {"username", name}};
  };
  const char* null_guid = "00000000-0000-0000-0000-000000000000";
  EXPECT_EQ(body,
            (json::object{{"credentials", json::array{entry("contoso.azurecr.io", null_guid),
                                                      entry("docker.io", "me"),
                                                      entry("used.azurecr.io", null_guid)}}}));
  EXPECT_EQ(parts_["hub"].logins, 0) << "a list asks nobody";
}

TEST_F(CredentialsTest, AreRenewedOnRequest) {
  const auto renewed = [&](const std::string& registry) {
    std::vector<std::string> lines;
    const json::object body = body_of(post("/v1/renew", R"({"registry":")" + registry + R"("})"));
    for (const auto& one : body.at("renewed").as_array()) lines.push_back(json::serialize(one));
    return lines;
  };
  EXPECT_THAT(renewed(""), ElementsAre()) << "nothing was used yet";
  EXPECT_THAT(renewed("contoso.azurecr.io"),
              ElementsAre(R"({"registry":"contoso.azurecr.io","identity":"vm","ok":true,)"
                          R"("error":null})"));
  post("/v1/credential", R"({"registry":"contoso.azurecr.io","repository":"team-a/x"})");
  post("/v1/credential", R"({"registry":"docker.io"})");
  post("/v1/credential", R"({"registry":"quay.io"})");
  parts_["a"].error = Error{Errc::unreachable, "step, cause, remedy"};
  EXPECT_THAT(renewed(""),
              ElementsAre(R"({"registry":"contoso.azurecr.io","identity":"a","ok":false,)"
                          R"("error":"step, cause, remedy"})",
                          R"({"registry":"contoso.azurecr.io","identity":"vm","ok":true,)"
                          R"("error":null})",
                          R"({"registry":"docker.io","identity":"hub","ok":true,"error":null})"));
  EXPECT_EQ(parts_["vm"].renewals, 2);
  EXPECT_EQ(parts_[""].renewals, 0) << "there is nothing to renew for nobody";
  EXPECT_THAT(error_of(post("/v1/renew", R"({"registry":"quay.io"})")),
              StartsWith("404 NOT_MANAGED quay.io is used anonymously"));
  EXPECT_THAT(error_of(post("/v1/renew", R"({"registry":"nowhere.example"})")),
              StartsWith("404 NOT_MANAGED "));
}

// A slow one delays none of the others, and a reload meanwhile takes nothing away from under it.
TEST_F(CredentialsTest, AreRenewedBesideEachOther) {
  post("/v1/credential", R"({"registry":"contoso.azurecr.io"})");
  post("/v1/credential", R"({"registry":"docker.io"})");
  fake::Gate gate(house_.io.get_executor());
  parts_["vm"].gate = &gate;
  OtherUser user(::geteuid(), [&](OtherUser::End& end) {
    end.tell(fake::talk(address(), request("POST", "/v1/renew", "{}")));
  });
  house_.run_until_true([&] { return gate.waiting() == 1 && parts_["hub"].renewals == 1; });
  registries_.replace({}, false);
  gate.open();
  const std::string answer = house_.run(user.all_told(house_.io.get_executor()));
  EXPECT_EQ(body_of(answer).at("renewed").as_array().size(), 2u) << answer;
}

TEST_F(CredentialsTest, OfASignInAreTakenAndForgotten) {
  EXPECT_EQ(
      body_of(post("/v1/login", R"({"registry":"Contoso.azurecr.io:443","token":"abc"})")),
      (json::object{
          {"registry", "contoso.azurecr.io"}, {"kind", "refresh"}, {"expires_in_seconds", 10700}}));
  EXPECT_EQ(error_of(post("/v1/login", R"({"registry":"contoso.azurecr.io","token":"ended"})")),
            "400 UNSUPPORTED this token has ended");
  EXPECT_EQ(body_of(post("/v1/logout", R"({"registry":"contoso.azurecr.io"})")),
            (json::object{{"registry", "contoso.azurecr.io"}, {"was_signed_in", true}}));
  EXPECT_EQ(body_of(post("/v1/logout", R"({"registry":"docker.io"})")).at("was_signed_in"),
            json::value(false));
  EXPECT_THAT(doors_used_, ElementsAre("contoso.azurecr.io 3", "contoso.azurecr.io 5",
                                       "contoso.azurecr.io", "docker.io"));
  EXPECT_THAT(error_of(post("/v1/login", R"({"registry":"ghcr.io","token":"abc"})")),
              StartsWith("404 NOT_MANAGED "));
  for (const std::string body :
       {R"({"registry":"contoso.azurecr.io"})", R"({"registry":"contoso.azurecr.io","token":""})",
        R"({"token":"abc"})"}) {
    EXPECT_THAT(error_of(post("/v1/login", body)), StartsWith("400 "));
  }
}

TEST_F(CredentialsTest, AreRefusedToRequestsThatAreNotQuiteRight) {
  for (const std::string& body : {
           std::string(),
           std::string("{}"),
           std::string("[]"),
           std::string("null"),
           std::string("\"contoso.azurecr.io\""),
           std::string("{\"registry\":\"contoso.azurecr.io\""),
           std::string("{\"registry\":\"contoso.azurecr.io\"} x"),
           std::string("{'registry':'contoso.azurecr.io'}"),
           std::string("{\"registry\":\"contoso.azurecr.io\",}"),
           std::string("{\"registry\":[\"contoso.azurecr.io\"]}"),
           std::string("{\"registry\":null}"),
           std::string("{\"registry\":5}"),
           std::string("{\"registry\":\"contoso.azurecr.io\",\"force\":\"1\"}"),
           std::string("{\"registry\":\"contoso.azurecr.io\",\"repository\":5}"),
           std::string("{\"registry\":\"contoso.azurecr.io\",\"repository\":\"../x\"}"),
           std::string("{\"registry\":\"contoso.azurecr.io\",\"repository\":\"A\"}"),
           std::string("{\"registry\":\"contoso.azurecr.io\",\"purpose\":\"\"}"),
           std::string("{\"registry\":\"contoso.azurecr.io\",\"purpose\":\"push\"}"),
           std::string("{\"registry\":\"https://contoso.azurecr.io\"}"),
           std::string("{\"registry\":\"contoso.azurecr.io/x\"}"),
           std::string("{\"registry\":\"*.azurecr.io\"}"),
           std::string("{\"registry\":\"contoso.azurecr.io\\u0000\"}"),
           std::string("{\"registry\":\"contoso.azurecr.io\\r\\nX: y\"}"),
           std::string("{\"registry\":\"\xff\"}"),
           std::string(20'000, '['),
       }) {
    EXPECT_THAT(error_of(post("/v1/credential", body)), StartsWith("400 UNSUPPORTED ")) << body;
  }
  EXPECT_EQ(status_of(post("/v1/credential", std::string(70'000, ' '))), 413);
  EXPECT_EQ(status_of(post("/v1/credential",
                           std::string(60'000, ' ') + R"({"registry":"contoso.azurecr.io"})")),
            200);
  EXPECT_EQ(parts_["vm"].logins, 1);
  for (const auto& [method, path] :
       std::vector<std::pair<std::string, std::string>>{{"GET", "/v1/credential"},
                                                        {"POST", "/v1/credentials"},
                                                        {"GET", "/v1/login"},
                                                        {"DELETE", "/v1/credential"},
                                                        {"PUT", "/v1/renew"}}) {
    EXPECT_EQ(status_of(ask_as(::geteuid(), method, path)), 405) << method << path;
  }
}

TEST_F(CredentialsTest, SurviveRandomRequests) {
  std::mt19937 random(7);
  const std::string good = R"({"registry":"contoso.azurecr.io","repository":"team-a/web",)"
                           R"("purpose":"pull"})";
  for (int round = 0; round < 150; ++round) {
    std::string body = good;
    for (int i = 0; i < 3; ++i) {
      const std::size_t at = random() % body.size();
      if (random() % 2 == 0) {
        body[at] = static_cast<char>(random() % 256);
      } else {
        body.erase(at, 1 + random() % 5);
      }
    }
    const int status = status_of(post("/v1/credential", body));
    EXPECT_TRUE(status == 200 || status == 400 || status == 404) << status << " " << body;
  }
}

}  // namespace
}  // namespace staithe::daemon
