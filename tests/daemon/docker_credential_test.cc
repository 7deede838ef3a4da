#include "daemon/docker_credential.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <boost/json/object.hpp>
#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>
#include <filesystem>
#include <fstream>
#include <mutex>
#include <sstream>
#include <string>
#include <vector>

#include "tests/fake/control_daemon.h"

namespace staithe::daemon {
namespace {

namespace fs = std::filesystem;
namespace json = boost::json;
using fake::answer;
using fake::body_of;
using fake::refusal;
using testing::AllOf;
using testing::Contains;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using testing::StartsWith;

constexpr const char* kNull = "00000000-0000-0000-0000-000000000000";
constexpr const char* kNotFound = "credentials not found in native keychain\n";
const std::string kToken = "eyJ0b2tlbg.for.docker";

std::string credential(bool identity_token = false) {
  return answer(json::serialize(json::object{{"registry", "contoso.azurecr.io"},
                                             {"username", kNull},
                                             {"password", kToken},
                                             {"identity_token", identity_token},
                                             {"renewable", true},
                                             {"expires_in_seconds", 9000}}));
}

class DockerCredential : public testing::Test, protected fake::ControlDaemon {
 protected:
  // Manages contoso.azurecr.io; `broken.azurecr.io` has an identity that fails.
  void serve_contoso() {
    serve([this](const std::string& request) {
      const std::scoped_lock lock(mutex_);
      asked_.push_back(request);
      if (request.starts_with("GET /v1/credentials ")) {
        return answer(R"({"credentials":[{"registry":"contoso.azurecr.io","username":")" +
                      std::string(kNull) + R"("},{"registry":"docker.io","username":"robot"}]})");
      }
      if (request.find(R"("registry":"contoso.azurecr.io")") != std::string::npos) {
        return credential();
      }
      if (request.find(R"("registry":"broken.azurecr.io")") != std::string::npos) {
        return refusal("503 Service Unavailable", "UNAVAILABLE",
                       "IMDS does not answer: assign the VM an identity");
      }
      return refusal("404 Not Found", "NOT_MANAGED", "no credential for this registry");
    });
  }

  struct Outcome {
    int status;
    std::string out;
    std::string err;
  };
  Outcome run(const std::string& action, const std::string& input,
              const std::string& program = "docker-credential-staithe") {
    return run_arguments({program, action}, input);
  }
  Outcome run_arguments(const std::vector<std::string>& arguments, const std::string& input) {
    std::vector<const char*> argv;
    for (const std::string& argument : arguments) argv.push_back(argument.c_str());
    std::istringstream in(input);
    std::ostringstream out;
    std::ostringstream err;
    Environment environment{variables_, 1000, {}};
    environment.variables.insert({{"STAITHE_SOCKET", socket_}, {"XDG_STATE_HOME", directory_}});
    const int status = run_docker_credential(static_cast<int>(argv.size()), argv.data(),
                                             {in, out, err, environment});
    return {status, out.str(), err.str()};
  }
  Outcome nomad(const std::string& input) {
    return run("get", input, "/usr/bin/docker-credential-staithe-nomad");
  }
  // Logs in as docker would.
  void login(const std::string& server, const std::string& secret = "own-secret") {
    const Outcome outcome = run("store", R"({"ServerURL":")" + server +
                                             R"(","Username":"ann","Secret":")" + secret + "\"}\n");
    EXPECT_EQ(outcome.status, 0) << outcome.out;
    EXPECT_EQ(outcome.out, "");
  }
  fs::path own_file() const { return directory_ / "staithe" / "docker-logins"; }
  // Another credential helper on the PATH, which writes down what it is asked.
  void install_helper(const std::string& suffix, const std::string& script) {
    const fs::path path = directory_ / "bin" / ("docker-credential-" + suffix);
    fs::create_directories(path.parent_path());
    std::ofstream(path) << "#!/bin/sh\nlog=" << directory_.native()
                        << "/helper.log\necho \"$1 store=$STAITHE_DOCKER_STORE\" >> $log\n"
                        << script << "\n";
    fs::permissions(path, fs::perms::owner_all);
    variables_["PATH"] = directory_ / "bin:/usr/bin:/bin";
    variables_["STAITHE_DOCKER_STORE"] = suffix;
  }
  std::string helper_log() const {
    std::ifstream file(directory_ / "helper.log");
    return {std::istreambuf_iterator<char>(file), {}};
  }

  std::map<std::string, std::string, std::less<>> variables_;
  std::mutex mutex_;
  std::vector<std::string> asked_;
};

TEST_F(DockerCredential, GetGivesTheDaemonsTokenUnderTheNameThatWasAsked) {
  serve_contoso();
  for (const std::string& url : {"contoso.azurecr.io", "https://contoso.azurecr.io",
                                 "https://contoso.azurecr.io/", "Contoso.azurecr.io:443"}) {
    const Outcome outcome = run("get", url);
    EXPECT_EQ(outcome.status, 0);
    EXPECT_EQ(outcome.out, R"({"ServerURL":")" + url + R"(","Username":")" + kNull +
                               R"(","Secret":")" + kToken + "\"}\n");
    EXPECT_THAT(outcome.err, IsEmpty());
  }
  EXPECT_EQ(run("get", " contoso.azurecr.io\r\n").status, 0) << "as echo writes it";
  stop();
  EXPECT_THAT(asked_.front(), StartsWith("POST /v1/credential HTTP/1.1\r\n"));
  EXPECT_EQ(json::parse(body_of(asked_.front())),
            json::parse(R"({"registry":"contoso.azurecr.io","purpose":"pull"})"));
}

TEST_F(DockerCredential, GetAsksForTheRepositoryThatThePathNames) {
  serve_contoso();
  EXPECT_EQ(run("get", "https://contoso.azurecr.io/team-a/web").status, 0);
  stop();
  EXPECT_EQ(json::parse(body_of(asked_.front())).at("repository").as_string(), "team-a/web");
}

TEST_F(DockerCredential, SaysTokenAsTheUserOnlyWhereItIsOneOrAskedFor) {
  serve([](const std::string& request) {
    return credential(request.find("contoso") == std::string::npos);
  });
  EXPECT_THAT(run("get", "contoso.azurecr.io").out, HasSubstr(kNull));
  EXPECT_THAT(run("get", "quay.io").out, HasSubstr(R"("Username":"<token>")"));
  variables_["STAITHE_DOCKER_USERNAME"] = "token";
  EXPECT_THAT(run("get", "contoso.azurecr.io").out, HasSubstr(R"("Username":"<token>")"));
  EXPECT_THAT(nomad("contoso.azurecr.io").out, HasSubstr(kNull)) << "Nomad does not know <token>";
}

TEST_F(DockerCredential, GetOfAnybodyElsesRegistryIsNotFoundAndNothingMore) {
  serve_contoso();
  for (const char* url :
       {"ghcr.io", "https://index.docker.io/v1/", "https://index.docker.io/v1/access-token"}) {
    const Outcome outcome = run("get", url);
    EXPECT_EQ(outcome.status, 1);
    EXPECT_EQ(outcome.out, kNotFound);
    EXPECT_THAT(outcome.err, IsEmpty()) << "docker would show it at every pull";
  }
  EXPECT_FALSE(fs::exists(own_file()));
}

TEST_F(DockerCredential, SaysWhatIsMissingInTheProtocolsOwnWords) {
  EXPECT_EQ(run("get", "").out, "no credentials server URL\n");
  EXPECT_EQ(run("get", " \n").status, 1);
  EXPECT_EQ(run("erase", "\n").out, "no credentials server URL\n");
  EXPECT_EQ(run("store", R"({"ServerURL":"","Username":"u","Secret":"s"})").out,
            "no credentials server URL\n");
  EXPECT_EQ(run("store", R"({"ServerURL":"ghcr.io","Username":"","Secret":"s"})").out,
            "no credentials username\n");
}

TEST_F(DockerCredential, RefusesWhatIsNotTheProtocol) {
  Outcome outcome = run("give", "");
  EXPECT_EQ(outcome.status, 1);
  EXPECT_EQ(outcome.out, "docker-credential-staithe: unknown action: give\n");
  EXPECT_EQ(outcome.err, outcome.out);
  outcome = run_arguments({"docker-credential-staithe"}, "");
  EXPECT_EQ(outcome.status, 1);
  EXPECT_EQ(outcome.out, "usage: docker-credential-staithe <store|get|erase|list|version>\n");
  EXPECT_EQ(run_arguments({"x", "get", "ghcr.io"}, "").status, 1);
  EXPECT_EQ(run_arguments({}, "").status, 1);
  outcome = run("version", "");
  EXPECT_EQ(outcome.status, 0);
  EXPECT_EQ(outcome.out, "docker-credential-staithe (staithe) " STAITHE_VERSION "\n");
}

// CVE-2020-5260: a second line would be a second, hidden question.
TEST_F(DockerCredential, GetRefusesAUrlThatIsNotOneHost) {
  serve_contoso();
  for (const std::string& url :
       {std::string("evil.example\nhost=contoso.azurecr.io"), std::string("a\0b", 3),
        std::string("https://user:topsecret@contoso.azurecr.io"), std::string(200'000, 'a')}) {
    const Outcome outcome = run("get", url);
    EXPECT_EQ(outcome.status, 1);
    EXPECT_NE(outcome.out, kNotFound);
    EXPECT_EQ(outcome.out, outcome.err);
    EXPECT_THAT(outcome.out, Not(HasSubstr("topsecret")));
    EXPECT_EQ(outcome.out.find('\n'), outcome.out.size() - 1);
  }
  EXPECT_EQ(requests_, 0);
}

TEST_F(DockerCredential, StoreAndEraseOfAManagedRegistrySucceedAndKeepNothing) {
  serve_contoso();
  login("contoso.azurecr.io");
  login("broken.azurecr.io");
  EXPECT_FALSE(fs::exists(own_file()));
  const Outcome outcome = run("erase", "contoso.azurecr.io");
  EXPECT_EQ(outcome.status, 0);
  EXPECT_THAT(outcome.out, IsEmpty());
}

TEST_F(DockerCredential, KeepsTheUsersOwnLoginsForOtherRegistries) {
  serve_contoso();
  login("ghcr.io");
  EXPECT_EQ(run("get", "https://ghcr.io").out,
            R"({"ServerURL":"https://ghcr.io","Username":"ann","Secret":"own-secret"})"
            "\n");
  EXPECT_EQ(run("erase", "ghcr.io").status, 0);
  EXPECT_EQ(run("get", "ghcr.io").out, kNotFound);
  EXPECT_EQ(run("erase", "ghcr.io").status, 0) << "docker logout twice";
}

TEST_F(DockerCredential, StoreRefusesWhatIsNoLoginWithoutShowingIt) {
  serve_contoso();
  for (const char* input :
       {"", "topsecret", "[\"topsecret\"]",
        R"({"ServerURL":"ghcr.io","Username":"u","Secret":["topsecret"]})",
        R"({"ServerURL":7,"Username":"topsecret","Secret":"topsecret"})",
        R"({"ServerURL":"https://u:topsecret@ghcr.io","Username":"u","Secret":"topsecret"})"}) {
    const Outcome outcome = run("store", input);
    EXPECT_EQ(outcome.status, 1) << input;
    EXPECT_THAT(outcome.out, Not(HasSubstr("topsecret")));
    EXPECT_THAT(outcome.err, Not(HasSubstr("topsecret")));
  }
}

TEST_F(DockerCredential, ListHasTheDaemonsAndTheUsersOwn) {
  serve_contoso();
  login("ghcr.io");
  const Outcome outcome = run("list", "unused");
  EXPECT_EQ(outcome.status, 0);
  EXPECT_EQ(json::parse(outcome.out),
            json::parse(R"({"https://contoso.azurecr.io":")" + std::string(kNull) +
                        R"(","https://index.docker.io/v1/":"robot","https://ghcr.io":"ann"})"));
}

TEST_F(DockerCredential, ListNeverFailsForTheDaemonOrTheFile) {
  EXPECT_EQ(run("list", "unused").out, "{}\n");
  login("ghcr.io");
  EXPECT_EQ(run("list", "").out, "{\"https://ghcr.io\":\"ann\"}\n");
  std::ofstream(own_file()) << "{damaged";
  Outcome outcome = run("list", "");
  EXPECT_EQ(outcome.status, 0);
  EXPECT_EQ(outcome.out, "{}\n");
  EXPECT_THAT(outcome.err, HasSubstr(".damaged-1"));
  serve("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]");
  EXPECT_EQ(run("list", "").out, "{}\n");
}

TEST_F(DockerCredential, WithoutADaemonOnlyAzuresRegistriesHearOfIt) {
  const Outcome acr = run("get", "https://contoso.azurecr.io");
  EXPECT_EQ(acr.status, 1);
  EXPECT_THAT(acr.out, AllOf(HasSubstr("no credential for contoso.azurecr.io"),
                             HasSubstr("systemctl start staithed")));
  EXPECT_EQ(acr.out, acr.err);
  EXPECT_EQ(run("get", "ghcr.io").out, kNotFound);
  login("contoso.azurecr.io");
  EXPECT_THAT(run("get", "contoso.azurecr.io").out, HasSubstr("own-secret"));
  login("ghcr.io");
  EXPECT_THAT(run("get", "ghcr.io").out, HasSubstr("own-secret"));
}

TEST_F(DockerCredential, ThatMayNotAskIsLikeWithoutADaemon) {
  serve(refusal("403 Forbidden", "DENIED", "this user may not ask: [access] users"));
  EXPECT_EQ(run("get", "https://index.docker.io/v1/").out, kNotFound);
  EXPECT_THAT(run("get", "contoso.azurecr.io").out, HasSubstr("[access] users"));
  login("contoso.azurecr.io");
  EXPECT_THAT(run("get", "contoso.azurecr.io").out, HasSubstr("own-secret"));
}

TEST_F(DockerCredential, AnIdentityThatFailsIsSaidWithItsRemedy) {
  serve_contoso();
  const Outcome outcome = run("get", "broken.azurecr.io");
  EXPECT_EQ(outcome.status, 1);
  EXPECT_EQ(outcome.out, "staithe: IMDS does not answer: assign the VM an identity\n");
  EXPECT_EQ(outcome.err, outcome.out);
}

TEST_F(DockerCredential, ADaemonThatTalksNonsenseIsNoCredential) {
  const std::vector<std::string> nonsense{
      "",
      answer("[]"),
      answer("{}"),
      answer(R"({"username":"u","password":""})"),
      answer(R"({"username":"a:b","password":"p"})"),
      answer(R"({"username":"u","password":7})"),
      answer(R"({"username":"u\n","password":"p"})"),
      answer(R"({"username":"u","password":"p","expires_in_seconds":"soon"})"),
      answer("{\"username\":\"u\",\"password\":\"" + std::string(2 << 20, 'x') + "\"}")};
  std::size_t turn = 0;
  serve([&](const std::string&) { return nonsense.at(turn++); });
  for (std::size_t i = 0; i < nonsense.size(); ++i) {
    const Outcome outcome = run("get", "contoso.azurecr.io");
    EXPECT_EQ(outcome.status, 1) << nonsense[i].substr(0, 200);
    EXPECT_THAT(outcome.out, StartsWith("staithe: no credential for"));
  }
}

TEST_F(DockerCredential, ForNomadNoneIsAnAnswerOfEmptyStrings) {
  serve_contoso();
  EXPECT_EQ(nomad("contoso.azurecr.io").out, R"({"ServerURL":"contoso.azurecr.io","Username":")" +
                                                 std::string(kNull) + R"(","Secret":")" + kToken +
                                                 "\"}\n");
  for (const char* input : {"docker.io", "ghcr.io", "https://library/redis", "https://redis"}) {
    const Outcome outcome = nomad(input);
    EXPECT_EQ(outcome.status, 0) << input;
    EXPECT_EQ(outcome.out,
              R"({"ServerURL":")" + std::string(input) + R"(","Username":"","Secret":""})" + "\n");
    EXPECT_THAT(outcome.err, IsEmpty());
  }
  const Outcome failed = nomad("broken.azurecr.io");
  EXPECT_EQ(failed.status, 1);
  EXPECT_THAT(failed.err, HasSubstr("assign the VM an identity")) << "Nomad quotes stderr";
  stop();
  EXPECT_THAT(asked_,
              Contains(HasSubstr(R"("registry":"docker.io","repository":"library/redis")")));
}

TEST_F(DockerCredential, ForwardsToTheStoreThatTheUserNames) {
  install_helper("pass", R"(case "$1" in
  get) read -r url; [ "$url" = ghcr.io ] || { echo "credentials not found in native keychain"; exit 1; }
       echo "{\"ServerURL\":\"$url\",\"Username\":\"ann\",\"Secret\":\"from-pass\"}" ;;
  list) echo '{"ghcr.io":"ann"}' ;;
  store) cat >> $log ;;
  erase) cat >> $log ;;
esac)");
  serve_contoso();
  EXPECT_THAT(run("get", "ghcr.io").out, HasSubstr("from-pass"));
  EXPECT_EQ(run("get", "quay.io").out, kNotFound);
  EXPECT_THAT(run("list", "").out, HasSubstr(R"("ghcr.io":"ann")"));
  login("quay.io", "new-secret");
  EXPECT_EQ(run("erase", "quay.io").status, 0);
  EXPECT_THAT(helper_log(), AllOf(HasSubstr("new-secret"), HasSubstr("get store=\n"),
                                  Not(HasSubstr("store=pass"))));
  EXPECT_FALSE(fs::exists(own_file()));
}

TEST_F(DockerCredential, AStoreThatFailsIsSaidOnlyWhereItMatters) {
  install_helper("pass", R"([ "$1" = get ] && { echo '{"Secret":"topsecret"}'; exit 2; }
echo "gpg: no key"; exit 2)");
  serve_contoso();
  Outcome outcome = run("get", "ghcr.io");
  EXPECT_EQ(outcome.out, "staithe: docker-credential-pass get failed with status 2\n");
  outcome = run("erase", "ghcr.io");
  EXPECT_EQ(outcome.status, 1);
  EXPECT_THAT(outcome.out, HasSubstr("gpg: no key"));
  EXPECT_EQ(run("erase", "contoso.azurecr.io").status, 0);
  EXPECT_EQ(run("get", "contoso.azurecr.io").status, 0);
  EXPECT_EQ(run("list", "").status, 0);
}

TEST_F(DockerCredential, NamesNoStoreThatIsNoneOrItself) {
  for (const char* suffix :
       {"staithe", "staithe-nomad", "../pass", "Pass", "pass;id", "a b", "-x\n"}) {
    variables_["STAITHE_DOCKER_STORE"] = suffix;
    const Outcome outcome = run("get", "ghcr.io");
    EXPECT_EQ(outcome.status, 1) << suffix;
    EXPECT_THAT(outcome.out, StartsWith("staithe: $STAITHE_DOCKER_STORE")) << suffix;
  }
  variables_["STAITHE_DOCKER_STORE"] = "nowhere";
  variables_["PATH"] = directory_;
  EXPECT_THAT(run("get", "ghcr.io").out, HasSubstr("docker-credential-nowhere is not on the PATH"));
}

TEST_F(DockerCredential, FailsIfItsOutputCannotBeWritten) {
  serve_contoso();
  const Environment environment{{{"STAITHE_SOCKET", socket_}}, 1000, {}};
  std::istringstream in("contoso.azurecr.io");
  std::ostringstream out;
  out.setstate(std::ios::badbit);
  std::ostringstream err;
  const char* argv[] = {"docker-credential-staithe", "get"};
  EXPECT_EQ(run_docker_credential(2, argv, {in, out, err, environment}), 1);
}

}  // namespace
}  // namespace staithe::daemon
