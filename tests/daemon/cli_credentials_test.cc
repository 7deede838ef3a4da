#include "daemon/cli_credentials.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <boost/json/parse.hpp>
#include <chrono>
#include <mutex>
#include <sstream>
#include <string>
#include <vector>

#include "tests/fake/control_daemon.h"

namespace staithe::daemon {
namespace {

namespace json = boost::json;
using fake::answer;
using fake::body_of;
using fake::refusal;
using testing::AllOf;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using testing::StartsWith;

constexpr const char* kCredential =
    R"({"registry":"contoso.azurecr.io","username":"user","password":"pass",)"
    R"("identity_token":false,"renewable":true,"expires_in_seconds":10740})";

class CliCredentials : public testing::Test, protected fake::ControlDaemon {
 protected:
  void serve_and_remember(const std::string& text) {
    serve([this, text](const std::string& request) {
      const std::scoped_lock lock(mutex_);
      asked_ = request;
      return text;
    });
  }
  struct Outcome {
    int status;
    std::string out;
    std::string err;
  };
  Outcome run(std::vector<std::string> arguments, const std::string& input = "",
              bool is_terminal = false) {
    arguments.insert(arguments.begin(), "staithe");
    std::vector<const char*> argv;
    for (const std::string& argument : arguments) argv.push_back(argument.c_str());
    std::istringstream in(input);
    std::ostringstream out;
    std::ostringstream err;
    const Environment environment{{{"STAITHE_SOCKET", socket_}}, 0, {}};
    Terminal terminal;
    terminal.is_terminal = is_terminal;
    const int status =
        run_cli(static_cast<int>(argv.size()), argv.data(),
                {.out = out,
                 .err = err,
                 .environment = environment,
                 .terminal = terminal,
                 .in = in,
                 .now = [] { return std::chrono::sys_days{std::chrono::year{2026} / 11 / 21}; }});
    return {status, out.str(), err.str()};
  }

  std::string asked() {
    const std::scoped_lock lock(mutex_);
    return asked_;
  }

 private:
  std::mutex mutex_;
  std::string asked_;
};

TEST_F(CliCredentials, TokenIsThePasswordAloneOrAzuresJson) {
  serve_and_remember(answer(kCredential));
  Outcome outcome = run({"token", "https://Contoso.azurecr.io/", "--raw"});
  EXPECT_EQ(outcome.status, kExitOk);
  EXPECT_EQ(outcome.out, "pass\n");
  EXPECT_THAT(outcome.err, IsEmpty());
  EXPECT_EQ(run({"token", "contoso.azurecr.io", "--json"}).out,
            "{\"accessToken\":\"pass\",\"loginServer\":\"contoso.azurecr.io\"}\n");
  outcome = run({"token", "contoso.azurecr.io", "--raw"}, "", true);
  EXPECT_EQ(outcome.err, "staithe: user name user, valid for 2h 59m\n");
  stop();
  EXPECT_THAT(asked(), StartsWith("POST /v1/credential "));
  EXPECT_EQ(json::parse(body_of(asked())),
            json::parse(R"({"registry":"contoso.azurecr.io","purpose":"expose-token"})"));
}

TEST_F(CliCredentials, TokenOfARegistryWithoutOneSaysHowToGetOne) {
  serve(refusal("404 Not Found", "NOT_MANAGED", "none"));
  const Outcome outcome = run({"token", "ghcr.io"});
  EXPECT_EQ(outcome.status, kExitFailed);
  EXPECT_THAT(outcome.out, IsEmpty());
  EXPECT_THAT(outcome.err, HasSubstr("staithe login ghcr.io --token-stdin"));
}

TEST_F(CliCredentials, FailuresHaveTheDaemonsWordsAndTheirStatus) {
  EXPECT_EQ(run({"token", "contoso.azurecr.io"}).status, kExitUnreachable);
  serve(refusal("403 Forbidden", "DENIED", "only root may see a token: use sudo"));
  for (const std::vector<std::string>& arguments :
       {std::vector<std::string>{"token", "contoso.azurecr.io"},
        {"pull-secret", "contoso.azurecr.io"},
        {"renew"},
        {"logout", "contoso.azurecr.io"}}) {
    const Outcome outcome = run(arguments);
    EXPECT_EQ(outcome.status, kExitFailed) << arguments[0];
    EXPECT_EQ(outcome.err, "staithe: only root may see a token: use sudo\n");
    EXPECT_THAT(outcome.out, IsEmpty());
  }
}

TEST_F(CliCredentials, PullSecretIsAManifestThatSaysWhenItEnds) {
  serve(answer(kCredential));
  const std::string data =
      // {"auths":{"contoso.azurecr.io":{"username":"user","password":"pass","auth":"dXNlcjpwYXNz"}}}
      "eyJhdXRocyI6eyJjb250b3NvLmF6dXJlY3IuaW8iOnsidXNlcm5hbWUiOiJ1c2VyIiwicGFzc3dvcmQiOiJwYXNzIiwi"
      "YXV0aCI6ImRYTmxjanB3WVhOeiJ9fX0=";
  Outcome outcome = run({"pull-secret", "contoso.azurecr.io"});
  EXPECT_EQ(outcome.status, kExitOk);
  EXPECT_EQ(outcome.out,
            "# Pull secret for contoso.azurecr.io: its credential is valid for 2h 59m, until "
            "2026-11-21T02:59:00Z.\n"
            "apiVersion: v1\nkind: Secret\nmetadata:\n  name: \"staithe-contoso-azurecr-io\"\n"
            "type: kubernetes.io/dockerconfigjson\ndata:\n  .dockerconfigjson: " +
                data + "\n");
  outcome = run({"pull-secret", "contoso.azurecr.io", "--name", "123", "-n", "web"});
  EXPECT_THAT(outcome.out, HasSubstr("  name: \"123\"\n  namespace: \"web\"\n"));
  outcome = run({"pull-secret", "contoso.azurecr.io", "--namespace", "web", "--json"});
  EXPECT_EQ(json::parse(outcome.out),
            json::parse(R"({"apiVersion":"v1","kind":"Secret","metadata":)"
                        R"({"name":"staithe-contoso-azurecr-io","namespace":"web"},)"
                        R"("type":"kubernetes.io/dockerconfigjson",)"
                        R"("data":{".dockerconfigjson":")" +
                        data + "\"}}"));
  EXPECT_THAT(outcome.err, HasSubstr("2026-11-21T02:59:00Z"));
}

TEST_F(CliCredentials, PullSecretKnowsAPasswordWithoutAnEnd) {
  serve(answer(R"({"username":"u","password":"p","expires_in_seconds":null})"));
  EXPECT_THAT(run({"pull-secret", "docker.io"}).out,
              StartsWith("# Pull secret for docker.io: its credential is without a known end.\n"));
}

TEST_F(CliCredentials, PullSecretTakesOnlyNamesThatKubernetesTakes) {
  for (const char* name : {"Web", "a_b", "-a", "a-", "a b", "a\"\nb", ""}) {
    if (*name != '\0') {
      EXPECT_EQ(run({"pull-secret", "contoso.azurecr.io", "--name", name}).status, kExitBadUsage);
    }
    EXPECT_NE(run({"pull-secret", "contoso.azurecr.io", "--namespace", name}).status, kExitOk);
  }
  EXPECT_EQ(run({"pull-secret", "contoso.azurecr.io", "-n", "a.b"}).status, kExitBadUsage);
}

TEST_F(CliCredentials, RenewSaysWhatWasRenewedAndFailsIfOneWasNot) {
  serve_and_remember(answer(
      R"({"renewed":[{"registry":"contoso.azurecr.io","identity":"vm","ok":true,"error":null},)"
      R"({"registry":"fabrikam.azurecr.io","identity":"sp","ok":false,"error":"the secret has ended"}]})"));
  Outcome outcome = run({"renew"});
  EXPECT_EQ(outcome.status, kExitFailed);
  EXPECT_THAT(outcome.out, AllOf(HasSubstr("contoso.azurecr.io"), HasSubstr("renewed"),
                                 HasSubstr("failed"), HasSubstr("the secret has ended")));
  outcome = run({"renew", "--json"});
  EXPECT_EQ(outcome.status, kExitFailed);
  EXPECT_EQ(json::parse(outcome.out).at("renewed").as_array().size(), 2u);
  stop();
  EXPECT_EQ(body_of(asked()), R"({"registry":""})");
}

TEST_F(CliCredentials, RenewOfOneRegistryAsksForThatOne) {
  serve_and_remember(answer(R"({"renewed":[{"registry":"contoso.azurecr.io","ok":true}]})"));
  EXPECT_EQ(run({"renew", "contoso.azurecr.io"}).status, kExitOk);
  stop();
  EXPECT_THAT(asked(), StartsWith("POST /v1/renew "));
  EXPECT_EQ(body_of(asked()), R"({"registry":"contoso.azurecr.io"})");
}

TEST_F(CliCredentials, RenewThatIsNotAnsweredIsAFailure) {
  serve(answer("{}"));
  EXPECT_THAT(run({"renew"}).err, HasSubstr("different versions"));
}

TEST_F(CliCredentials, LoginTakesTheTokenFromStdin) {
  serve_and_remember(
      answer(R"({"registry":"contoso.azurecr.io","kind":"refresh","expires_in_seconds":10700})"));
  for (const char* input : {"eyJ0b2tlbg", "  eyJ0b2tlbg\r\n",
                            R"({"accessToken":"eyJ0b2tlbg","loginServer":"contoso.azurecr.io"})"}) {
    const Outcome outcome = run({"login", "contoso.azurecr.io", "--token-stdin"}, input);
    EXPECT_EQ(outcome.status, kExitOk) << outcome.err;
    EXPECT_EQ(outcome.out,
              "contoso.azurecr.io: signed in with a refresh token, valid for 2h 58m\n");
    EXPECT_THAT(asked(), StartsWith("POST /v1/login "));
    EXPECT_EQ(json::parse(body_of(asked())),
              json::parse(R"({"registry":"contoso.azurecr.io","token":"eyJ0b2tlbg"})"));
  }
}

TEST_F(CliCredentials, LoginRefusesATokenAmongItsArgumentsWithoutShowingIt) {
  serve(answer("{}"));
  const std::vector<std::vector<std::string>> cases{
      {"login", "contoso.azurecr.io", "eyJsecret"},
      {"login", "contoso.azurecr.io", "--token", "eyJsecret"},
      {"login", "contoso.azurecr.io", "--token=eyJsecret"},
      {"login", "contoso.azurecr.io", "-p", "eyJsecret", "--token-stdin"},
      {"login", "contoso.azurecr.io", "--token-stdin=eyJsecret"},
      {"login", "contoso.azurecr.io", "--token-stdin", "eyJsecret"},
      {"login", "eyJsecret_" + std::string(300, 'x'), "--token-stdin"},
      {"login", "eyJsecret", "--token-stdin"},
      {"login", "--password", "eyJsecret"},
      {"--password", "eyJsecret", "login"}};
  for (const auto& arguments : cases) {
    const Outcome outcome = run(arguments, "eyJother");
    EXPECT_EQ(outcome.status, kExitBadUsage);
    EXPECT_THAT(outcome.err, AllOf(HasSubstr("sees the arguments of a process"),
                                   Not(HasSubstr("secret")), Not(HasSubstr("SECRET"))));
    EXPECT_THAT(outcome.out, IsEmpty());
  }
  EXPECT_EQ(requests_, 0);
}

TEST_F(CliCredentials, LoginRefusesWhatIsNoToken) {
  serve(answer("{}"));
  EXPECT_THAT(run({"login", "contoso.azurecr.io"}, "eyJsecret").err, HasSubstr("--token-stdin"));
  for (const std::string& input :
       {std::string(), std::string("\n"), std::string("two words"), std::string("a\0b", 3),
        std::string("{\"accessToken\":7}"), std::string("{\"error\":\"secret\"}"),
        std::string(100'000, 'x')}) {
    const Outcome outcome = run({"login", "contoso.azurecr.io", "--token-stdin"}, input);
    EXPECT_EQ(outcome.status, kExitBadUsage) << input.substr(0, 20);
    EXPECT_THAT(outcome.err, Not(HasSubstr("secret")));
  }
  EXPECT_EQ(requests_, 0);
}

TEST_F(CliCredentials, LoginThatIsRefusedIsSaidWithoutTheToken) {
  serve(
      refusal("400 Bad Request", "DENIED", "the token has ended: get a new one with az acr login"));
  const Outcome outcome = run({"login", "contoso.azurecr.io", "--token-stdin"}, "eyJsecret");
  EXPECT_EQ(outcome.status, kExitFailed);
  EXPECT_EQ(outcome.err, "staithe: the token has ended: get a new one with az acr login\n");
}

TEST_F(CliCredentials, LogoutSaysWhetherThereWasSomethingToForget) {
  serve_and_remember(answer(R"({"registry":"contoso.azurecr.io","was_signed_in":true})"));
  EXPECT_EQ(run({"logout", "contoso.azurecr.io"}).out, "contoso.azurecr.io: signed out\n");
  EXPECT_THAT(run({"logout", "contoso.azurecr.io", "--json"}).out, HasSubstr("was_signed_in"));
  stop();
  EXPECT_THAT(asked(), StartsWith("POST /v1/logout "));
}

TEST_F(CliCredentials, WrongUsageAsksNobody) {
  serve(answer(kCredential));
  for (const std::vector<std::string>& arguments : {std::vector<std::string>{"token"},
                                                    {"token", "contoso"},
                                                    {"token", "a\nb"},
                                                    {"token", "contoso.azurecr.io", "more"},
                                                    {"pull-secret"},
                                                    {"logout"},
                                                    {"login"},
                                                    {"renew", "a b"},
                                                    {"token", "--secret"}}) {
    const Outcome outcome = run(arguments);
    EXPECT_EQ(outcome.status, kExitBadUsage) << arguments.back();
    EXPECT_EQ(std::ranges::count(outcome.err, '\n'), 1);
    EXPECT_THAT(outcome.out, IsEmpty());
  }
  EXPECT_THAT(run({"token", "contoso"}).err, HasSubstr("contoso.azurecr.io"));
  EXPECT_EQ(requests_, 0);
}

TEST_F(CliCredentials, HelpHasAnExampleForEachCommand) {
  for (const char* command : {"token", "pull-secret", "renew", "login", "logout"}) {
    const Outcome outcome = run({command, "--help"});
    EXPECT_EQ(outcome.status, kExitOk);
    EXPECT_THAT(outcome.out,
                AllOf(HasSubstr("Example"), HasSubstr("staithe " + std::string(command))));
  }
}

}  // namespace
}  // namespace staithe::daemon
