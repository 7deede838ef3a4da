// The control socket's credentials, over a real socket and with callers of other users.
#include "daemon/credentials.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>
#include <cstdio>
#include <filesystem>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "cache/log.h"
#include "daemon/control.h"
#include "proxy/auth/secret.h"
#include "tests/fake/house.h"
#include "tests/fake/other_user.h"

namespace staithe::daemon {
namespace {

namespace json = boost::json;
namespace auth = proxy::auth;
using fake::House;
using fake::OtherUser;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;

constexpr unsigned somebody = 54321;
constexpr const char* guid = "8d3f4b1e-0000-4000-8000-0123456789ab";

// What the authorizers of one identity do.
struct Part {
  std::string username = "00000000-0000-0000-0000-000000000000";
  std::shared_ptr<const auth::Secret> secret = {};
  bool identity_token = false;
  bool renewable = true;
  std::optional<std::chrono::seconds> expires_in = std::chrono::seconds(9000);
  std::optional<Error> error = {};
  std::vector<auth::Ending> endings = {};
  std::optional<Error> last_error = {};
  fake::Gate* gate = nullptr;  // before a renewal ends
  int logins = 0;
  int renewals = 0;
};

class Played final : public auth::Authorizer {
 public:
  explicit Played(Part& part) : part_(part) {}
  asio::awaitable<auth::Authorization> for_pull(std::string) override { co_return nullptr; }
  bool refused(const std::string&, const auth::Authorization&, const proxy::Headers&) override {
    return false;
  }
  bool forbidden(const auth::Authorization&) override { return false; }
  asio::awaitable<auth::Login> login() override {
    ++part_.logins;
    if (part_.error) throw Failure(*part_.error);
    co_return auth::Login{.username = part_.username,
                          .secret = part_.secret,
                          .identity_token = part_.identity_token,
                          .renewable = part_.renewable,
                          .expires_in = part_.expires_in};
  }
  std::string login_name() const override { return part_.username; }
  asio::awaitable<std::string> probe(auth::Part, std::string) override { co_return ""; }
  asio::awaitable<void> renew() override {
    ++part_.renewals;
    if (part_.gate) co_await part_.gate->pass();
    if (part_.error) throw Failure(*part_.error);
  }
  std::vector<auth::TokenStatus> tokens() const override { return {}; }
  std::vector<auth::Ending> endings() const override { return part_.endings; }
  std::optional<Error> last_error() const override { return part_.last_error; }

 private:
  Part& part_;
};

std::shared_ptr<const auth::Secret> secret(std::string_view text) {
  return std::make_shared<const auth::Secret>(text);
}

constexpr const char* kConfig = R"(
[[registry]]
name = "*.azurecr.io"
identity = "vm"
[[registry]]
name = "contoso.azurecr.io"
identity = "vm"
[[registry.identity_for]]
prefix = "team-a/"
identity = "a"
[[registry]]
name = "docker.io"
identity = "hub"
[[registry.identity_for]]
prefix = "library/"
identity = "official"
[[registry]]
name = "quay.io"
[identity.vm]
kind = "managed-identity"
[identity.a]
kind = "managed-identity"
[identity.official]
kind = "docker-config"
file = "/c"
[identity.hub]
kind = "basic"
username = "me"
password_file = "/p"
)";

class CredentialsTest : public testing::Test {
 protected:
  CredentialsTest() {
    parts_["vm"].secret = secret("refresh-of-vm");
    parts_["a"].secret = secret("refresh-of-a");
    parts_["official"].secret = secret("official-password");
    parts_["hub"] = Part{.username = "me",
                         .secret = secret("hub-password"),
                         .renewable = false,
                         .expires_in = std::nullopt};
    parts_[""] = Part{.username = "", .error = Error{Errc::not_found, "used anonymously"}};
    std::string directory = std::filesystem::temp_directory_path() / "staithe-credentials-XXXXXX";
    directory_ = ::mkdtemp(directory.data());
    std::filesystem::permissions(directory_, std::filesystem::perms(0755));
    house_.run(access_.load({}));
    server_.listen(*proxy::ListenAddress::parse(address()), 0666);
    server_.start();
  }
  ~CredentialsTest() override {
    house_.run(server_.stop());
    house_.run(tasks_.join());
    std::filesystem::remove_all(directory_);
  }

  std::string address() const { return "unix:" + (directory_ / "control.sock").string(); }

  static std::string request(const std::string& method, const std::string& path,
                             const std::string& body) {
    return method + " " + path + " HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: " +
           std::to_string(body.size()) + "\r\n\r\n" + body;
  }
  // The status line, the head and the body.
  std::string ask_as(unsigned uid, const std::string& method, const std::string& path,
                     const std::string& body = {}) {
    OtherUser user(uid, [&](OtherUser::End& end) {
      end.tell(fake::talk(address(), request(method, path, body)));
    });
    return house_.run(user.all_told(house_.io.get_executor()));
  }
  std::string post(const std::string& path, const std::string& body) {
    return ask_as(::geteuid(), "POST", path, body);
  }
  static int status_of(const std::string& answer) {
    return answer.size() > 12 ? std::atoi(answer.c_str() + 9) : 0;
  }
  static json::object body_of(const std::string& answer) {
    boost::system::error_code error;
    const json::value value = json::parse(answer.substr(answer.find("\r\n\r\n") + 4), error);
    EXPECT_FALSE(error) << answer;
    return value.is_object() ? value.get_object() : json::object();
  }
  // "404 NOT_MANAGED sentence"
  static std::string error_of(const std::string& answer) {
    const json::object body = body_of(answer);
    const auto& error = body.at("errors").at(0);
    return std::to_string(status_of(answer)) + " " + std::string(error.at("code").as_string()) +
           " " + std::string(error.at("message").as_string());
  }

  proxy::Registry::MakeUpstream make_upstream() {
    return [this](const std::string& name, const proxy::RegistrySettings&,
                  const std::string& identity) {
      proxy::Url base = *proxy::Url::parse("https://" + name);
      const proxy::RedirectPolicy redirects{
          .registry = base.origin(), .data_hosts = {}, .acr_suffixes = {}};
      return std::make_unique<proxy::Upstream>(house_.io.get_executor(),
                                               proxy::Upstream::Settings{.base = std::move(base),
                                                                         .prefix = {},
                                                                         .ca_file = {},
                                                                         .redirects = redirects,
                                                                         .max_connections = 4,
                                                                         .limits = {}},
                                               std::make_unique<Played>(parts_[identity]),
                                               house_.upstream, house_.clock);
    };
  }
  Credentials::Doors doors() {
    return {.service_account =
                [this](proxy::RegistryPtr registry, auth::ServiceAccount account) {
                  return serve_account(std::move(registry), std::move(account));
                },
            .sign_in =
                [this](proxy::RegistryPtr registry, auth::Secret token) {
                  return sign_in(std::move(registry), std::move(token));
                },
            .sign_out = [this](proxy::RegistryPtr registry) { return sign_out(registry); }};
  }
  asio::awaitable<auth::Login> serve_account(proxy::RegistryPtr registry,
                                             auth::ServiceAccount account) {
    doors_used_.push_back(registry->name() + " " + account.client_id + " " + account.tenant_id +
                          " " + std::to_string(account.token.size_bytes()));
    co_return auth::Login{
        .username = "pod", .secret = secret("refresh-of-pod"), .expires_in = std::nullopt};
  }
  asio::awaitable<auth::Identities::SignIn> sign_in(proxy::RegistryPtr registry,
                                                    auth::Secret token) {
    doors_used_.push_back(registry->name() + " " + std::to_string(token.size_bytes()));
    if (token.reveal() == "ended") throw Failure(Errc::bad_request, "this token has ended");
    co_return auth::Identities::SignIn{"refresh", std::chrono::seconds(10700)};
  }
  asio::awaitable<bool> sign_out(proxy::RegistryPtr registry) {
    doors_used_.push_back(registry->name());
    co_return registry->name() == "contoso.azurecr.io";
  }

  House house_;
  const Config config_ = *parse_config(kConfig, "staithe.toml", Environment());
  TaskGroup tasks_{house_.io.get_executor(), [](std::string_view, std::string_view) {}};
  std::map<std::string, Part> parts_;
  std::vector<std::string> doors_used_;
  Access access_{house_.io.get_executor(), house_.clock, tasks_, ::geteuid()};
  proxy::Registries registries_{config_.proxy.registries, make_upstream()};
  Credentials credentials_{{.loop = house_.io.get_executor(),
                            .config = config_,
                            .registries = registries_,
                            .access = access_,
                            .tasks = tasks_,
                            .doors = doors()}};
  Verifier verifier_{{.store = house_.store, .clock = house_.clock, .access = access_}};
  Warmer warmer_{{.clock = house_.clock,
                  .store = house_.store,
                  .registries = house_.registries,
                  .proxy = house_.proxy,
                  .fills = house_.fills}};
  WarmControl warm_{{.warmer = warmer_, .access = access_}};
  Control control_{{.config = config_,
                    .clock = house_.clock,
                    .store = house_.store,
                    .proxy = house_.proxy,
                    .registries = registries_,
                    .fills = house_.fills,
                    .access = access_,
                    .credentials = credentials_,
                    .verifier = verifier_,
                    .warm = warm_,
                    .warm_status = [] { return boost::json::object(); },
                    .reload = [] { return Faults(); }}};
  std::filesystem::path directory_;
  proxy::Server server_{house_.io.get_executor(),
                        {.connections = 100, .connection = {.body_bytes = 64 * 1024}},
                        control_,
                        house_.store.disk_pool()};
};

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
    house_.run(access_.load(row.access));
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

// ---- what is left behind ------------------------------------------------------------------------

TEST_F(CredentialsTest, AreInNoLog) {
  std::FILE* const file = std::tmpfile();
  log::start({.level = log::Level::trace, .format = log::Format::json, .fd = ::fileno(file)});
  parts_["vm"].secret = secret("swordfish-password");
  post("/v1/credential", R"({"registry":"contoso.azurecr.io"})");
  post("/v1/credential", R"({"registry":"contoso.azurecr.io","purpose":"expose-token"})");
  post("/v1/login", R"({"registry":"contoso.azurecr.io","token":"swordfish-token"})");
  post("/v1/login?token=swordfish-query", R"({"registry":"contoso.azurecr.io","x":"swordfish"})");
  post("/v1/credential", std::string(R"({"registry":"contoso.azurecr.io",)") +
                             R"("service_account_token":"swordfish.a.b","client_id":")" + guid +
                             R"(","tenant_id":")" + guid + R"("})");
  log::stop();
  std::string text(1 << 20, '\0');
  std::rewind(file);
  text.resize(std::fread(text.data(), 1, text.size(), file));
  std::fclose(file);
  EXPECT_THAT(text, HasSubstr("registry token shown"));
  EXPECT_THAT(text, HasSubstr("signed in"));
  EXPECT_THAT(text, HasSubstr("control request"));
  EXPECT_THAT(text, Not(HasSubstr("swordfish")));
}

// How often `text`, given backwards so that it stands nowhere itself, is in this process's memory.
std::size_t occurrences(const std::string& backwards) {
  static std::vector<char> window(1 << 20);
  std::size_t found = 0;
  const int memory = ::open("/proc/self/mem", O_RDONLY | O_CLOEXEC);
  std::FILE* const maps = std::fopen("/proc/self/maps", "r");
  char line[512];
  while (std::fgets(line, sizeof line, maps)) {
    unsigned long begin = 0;
    unsigned long end = 0;
    char rights[5] = {};
    if (std::sscanf(line, "%lx-%lx %4s", &begin, &end, rights) != 3 || rights[1] != 'w') continue;
    // Windows overlap, so that nothing is missed at their edges.
    for (unsigned long at = begin; at < end; at += window.size() - backwards.size()) {
      const auto wanted = std::min<std::size_t>(window.size(), end - at);
      const ssize_t got = ::pread(memory, window.data(), wanted, static_cast<off_t>(at));
      for (ssize_t i = 0; i + static_cast<ssize_t>(backwards.size()) <= got; ++i) {
        const char* const here = window.data() + i;
        const auto* const real = reinterpret_cast<const char*>(at) + i;
        if (real >= window.data() && real < window.data() + window.size()) continue;
        if (std::equal(backwards.rbegin(), backwards.rend(), here)) ++found;
      }
    }
  }
  std::fill(window.begin(), window.end(), '\0');
  std::fclose(maps);
  ::close(memory);
  return found;
}

std::string turned(std::string text) {
  std::ranges::reverse(text);
  return text;
}

TEST_F(CredentialsTest, AreNowhereInMemoryOnceTheyAreSent) {
#if __has_feature(address_sanitizer)
  GTEST_SKIP() << "the sanitizer's shadow is terabytes, and it keeps what was freed";
#endif
  // Both are made at run time, so that neither is a constant of this program.
  const std::string sent = "dnes-" + std::to_string(::getpid()) + "-ecno-nekot-a-si-siht";
  const std::string given = "nevig-" + std::to_string(::getpid()) + "-ecno-drowssap-a-si-siht";
  {
    std::string plain = turned(given);
    parts_["vm"].secret = secret(plain);
    EXPECT_GE(occurrences(given), 1u) << "the search itself finds what is there";
    auth::wipe(plain);
  }
  // The other process builds the request and looks at the answer, and tells only whether it is
  // right.
  const auto ask = [&](const std::string& path, const std::string& before,
                       const std::string& expected_backwards) {
    OtherUser user(::geteuid(), [&](OtherUser::End& end) {
      const std::string answer =
          fake::talk(address(), request("POST", path, before + turned(sent) + "\"}"));
      end.tell(answer.contains(turned(expected_backwards)) ? "right" : "wrong");
    });
    return house_.run(user.all_told(house_.io.get_executor()));
  };
  EXPECT_EQ(ask("/v1/login", R"({"registry":"contoso.azurecr.io","token":")", "hserfer"), "right");
  EXPECT_EQ(ask("/v1/credential",
                std::string(R"({"registry":"contoso.azurecr.io","client_id":")") + guid +
                    R"(","tenant_id":")" + guid + R"(","service_account_token":")",
                "dop-fo-hserfer"),
            "right");
  EXPECT_EQ(ask("/v1/login", R"({"registry":"contoso.azurecr.io","other":")", "dleif"), "right");
  OtherUser user(::geteuid(), [&](OtherUser::End& end) {
    const std::string answer = fake::talk(
        address(), request("POST", "/v1/credential", R"({"registry":"contoso.azurecr.io"})"));
    end.tell(answer.contains(turned(given)) ? "right" : "wrong");
  });
  EXPECT_EQ(house_.run(user.all_told(house_.io.get_executor())), "right");
  parts_["vm"].secret.reset();
  EXPECT_EQ(occurrences(sent), 0u);
  EXPECT_EQ(occurrences(given), 0u);
}

TEST_F(CredentialsTest, StandInStatusByTheirEndsAndFailures) {
  parts_["vm"].endings = {
      {"certificate /etc/staithe/sp.pem", std::chrono::hours(24), std::chrono::hours(24 * 14)},
      {"client secret", std::chrono::hours(24 * 100), std::chrono::hours(24 * 14)}};
  parts_["vm"].last_error = Error{Errc::unreachable, "step, cause, remedy"};
  post("/v1/credential", R"({"registry":"contoso.azurecr.io"})");
  const json::object status = body_of(ask_as(::geteuid(), "GET", "/v1/status"));
  const json::object& registry = status.at("registries").at(0).as_object();
  EXPECT_EQ(registry.at("name").as_string(), "contoso.azurecr.io");
  EXPECT_EQ(registry.at("credentials"),
            (json::array{
                json::object{{"what", "certificate /etc/staithe/sp.pem"},
                             {"expires_in_seconds", 86400},
                             {"near", true}},
                json::object{
                    {"what", "client secret"}, {"expires_in_seconds", 8640000}, {"near", false}}}));
  EXPECT_EQ(registry.at("last_error").as_string(), "step, cause, remedy");
  EXPECT_EQ(registry.at("last_error_class").as_string(), "unreachable");
  EXPECT_THAT(std::string(status.at("secret_memory").as_string()), HasSubstr("locked"));
}

}  // namespace
}  // namespace staithe::daemon
