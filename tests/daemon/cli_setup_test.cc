#include "daemon/cli_setup.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <boost/json/parse.hpp>
#include <sstream>
#include <string>
#include <vector>

#include "daemon/setup_service.h"
#include "tests/daemon/setup_tree.h"
#include "tests/fake/control_daemon.h"

namespace staithe::daemon {
namespace {

namespace json = boost::json;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using testing::StartsWith;

constexpr const char* kHosts = "/etc/containerd/certs.d/docker.io/hosts.toml";

class SetupCommandTest : public testing::Test, protected fake::ControlDaemon {
 protected:
  SetupCommandTest() {
    program("containerd", "echo containerd containerd.io 1.7.24 abc");
    program("podman", "echo podman version 4.3.1");
  }
  // A program of the tree, as a script.
  void program(const std::string& name, const std::string& does) {
    tree_.write("/usr/bin/" + name, "#!/bin/sh\n" + does + "\n", 0755);
  }
  int run(std::vector<std::string> arguments) {
    out_.str("");
    err_.str("");
    arguments.insert(arguments.begin(), {"staithe", "--socket", socket_, "setup"});
    arguments.insert(arguments.end(), {"--root", tree_.root()});
    std::vector<const char*> argv;
    for (const std::string& argument : arguments) argv.push_back(argument.c_str());
    const Environment environment;
    return run_cli(static_cast<int>(argv.size()), argv.data(),
                   {out_, err_, environment, Terminal{}});
  }
  // A daemon whose registry listener is nobody's port.
  void serve_daemon(const std::string& listen = "127.0.0.1:1") {
    serve([listen](const std::string& request) {
      if (request.starts_with("GET /v1/status"))
        return fake::answer(R"({"listen":[")" + listen + R"("]})");
      if (request.starts_with("GET /v1/images"))
        return fake::answer(R"({"images":[{"name":"contoso.azurecr.io/app:1"}]})");
      return fake::answer(
          R"({"toml":"","json":{"registry":[{"name":"*.azurecr.io","identity":"vm","default":false},)"
          R"({"name":"docker.io","identity":null,"default":true}],)"
          R"("identity":{"vm":{"kind":"managed-identity"}}}})");
    });
  }

  fake::SetupTree tree_;
  std::ostringstream out_;
  std::ostringstream err_;
};

TEST_F(SetupCommandTest, ShowsTheDiffAndChangesNothing) {
  const fake::Tree before = tree_.tree();
  EXPECT_EQ(run({"containerd"}), kExitOk) << err_.str();
  EXPECT_THAT(out_.str(),
              StartsWith("staithed is not running: its address and registries are those "
                         "of the built-in configuration\n\n"
                         "containerd 1.7.24\n"));
  EXPECT_THAT(out_.str(),
              HasSubstr("--- /dev/null\n+++ /etc/containerd/certs.d/docker.io/hosts.toml\n"));
  EXPECT_THAT(out_.str(), HasSubstr("+[host.\"http://127.0.0.1:5050\"]\n"));
  EXPECT_THAT(out_.str(), HasSubstr("nothing is written yet: staithe setup containerd --apply\n"));
  EXPECT_THAT(out_.str(), HasSubstr("then: systemctl restart containerd"));
  EXPECT_EQ(tree_.tree(), before);
}

TEST_F(SetupCommandTest, WritesAndTakesBack) {
  const fake::Tree before = tree_.tree();
  EXPECT_EQ(run({"containerd", "podman", "--apply"}), kExitOk) << err_.str();
  EXPECT_THAT(out_.str(), HasSubstr("staithe setup containerd --undo puts back"));
  EXPECT_THAT(out_.str(), HasSubstr("now: systemctl restart containerd"));
  EXPECT_THAT(out_.str(), HasSubstr("not tested: staithed was not asked"));
  EXPECT_TRUE(tree_.exists(kHosts));
  EXPECT_EQ(run({"containerd", "--apply"}), kExitOk);
  EXPECT_THAT(out_.str(), HasSubstr("say already what they have to"));
  EXPECT_EQ(run({"containerd", "podman", "--undo"}), kExitOk) << err_.str();
  EXPECT_THAT(out_.str(), HasSubstr("as it was: /etc/containerd/config.toml"));
  EXPECT_EQ(tree_.tree(), before);
  EXPECT_EQ(run({"containerd", "--undo"}), kExitOk);
  EXPECT_THAT(out_.str(), HasSubstr("there is nothing to undo"));
}

TEST_F(SetupCommandTest, ShowsWhatIsInstalledWithoutAName) {
  EXPECT_EQ(run({}), kExitOk) << err_.str();
  EXPECT_THAT(out_.str(), HasSubstr("containerd 1.7.24\n"));
  EXPECT_THAT(out_.str(), HasSubstr("podman 4.3.1\n"));
  EXPECT_THAT(out_.str(),
              HasSubstr("not installed: docker, crio, buildkit, k3s, rke2, kubelet, nomad\n"));
}

TEST_F(SetupCommandTest, TakesWhatItServesFromTheDaemon) {
  serve_daemon("127.0.0.1:6060");
  EXPECT_EQ(run({"podman"}), kExitOk) << err_.str();
  EXPECT_THAT(out_.str(), HasSubstr("+location = \"127.0.0.1:6060/docker.io\"\n"));
  EXPECT_THAT(out_.str(), HasSubstr("+location = \"127.0.0.1:6060/contoso.azurecr.io\"\n"));
  EXPECT_THAT(out_.str(), Not(HasSubstr("quay.io")));
}

TEST_F(SetupCommandTest, TakesItFromTheTreesConfigurationWithoutADaemon) {
  tree_.write("/etc/staithe/staithe.toml",
              "[listen]\nregistry = [\"[::1]:7000\", \"127.0.0.1:7000\"]\n"
              "[[registry]]\nname = \"r.example:5000\"\n");
  EXPECT_EQ(run({"containerd"}), kExitOk) << err_.str();
  EXPECT_THAT(out_.str(), HasSubstr("/etc/containerd/certs.d/r.example:5000/hosts.toml"));
  EXPECT_THAT(out_.str(), HasSubstr("http://127.0.0.1:7000"));
  tree_.write("/etc/staithe/staithe.toml", "[listen]\nregistry = [\"unix:/run/x\"]\n");
  EXPECT_EQ(run({"containerd"}), kExitFailed);
  EXPECT_THAT(err_.str(), HasSubstr("no listener that clients can be told of"));
  tree_.write("/etc/staithe/staithe.toml", "[nonsense]\n");
  EXPECT_EQ(run({"containerd"}), kExitFailed);
  EXPECT_THAT(err_.str(), HasSubstr("staithe.toml:1: "));
}

TEST_F(SetupCommandTest, SetsUpOnlyTheRegistriesThatAreNamed) {
  EXPECT_EQ(run({"podman", "--registry", "fabrikam.azurecr.io", "--registry", "quay.io"}), kExitOk)
      << err_.str();
  EXPECT_THAT(out_.str(), HasSubstr("+location = \"fabrikam.azurecr.io\"\n"));
  EXPECT_THAT(out_.str(), HasSubstr("+location = \"quay.io\"\n"));
  EXPECT_THAT(out_.str(), Not(HasSubstr("docker.io")));
  EXPECT_EQ(run({"podman", "--registry", "elsewhere.example"}), kExitFailed);
  EXPECT_THAT(err_.str(),
              HasSubstr("staithed does not serve elsewhere.example: add a [[registry]]"));
  EXPECT_EQ(run({"podman", "--registry", "x\n[[y]]"}), kExitFailed);
  EXPECT_THAT(err_.str(), HasSubstr("is no registry's host name"));
}

TEST_F(SetupCommandTest, FailsIfTheTestPullFails) {
  serve_daemon();
  EXPECT_EQ(run({"containerd", "--apply"}), kExitFailed);
  EXPECT_THAT(out_.str(), HasSubstr("test with contoso.azurecr.io/app:1, as containerd asks:\n"));
  EXPECT_THAT(
      out_.str(),
      HasSubstr(
          "FAILED, listener: staithed does not answer at 127.0.0.1:1 (Connection refused): "));
  EXPECT_TRUE(tree_.exists(kHosts));  // what was written stays, and can be taken back
  EXPECT_EQ(run({"containerd", "--undo"}), kExitOk);
}

TEST_F(SetupCommandTest, RefusesAndSaysWhatToWriteByHand) {
  tree_.write(
      "/etc/containerd/config.toml",
      "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".registry.mirrors.\"docker.io\"]\n"
      "endpoint = [\"https://m\"]\n");
  const fake::Tree before = tree_.tree();
  EXPECT_EQ(run({"containerd", "--apply"}), kExitFailed);
  EXPECT_THAT(out_.str(), HasSubstr("by hand:\n"));
  EXPECT_THAT(out_.str(), HasSubstr("    [plugins.\"io.containerd.grpc.v1.cri\".registry]\n"));
  EXPECT_THAT(out_.str(), HasSubstr("nothing is written for containerd\n"));
  EXPECT_EQ(tree_.tree(), before);
}

TEST_F(SetupCommandTest, ShowsBothWhenOurLinesWereChanged) {
  run({"containerd", "--apply"});
  tree_.write(kHosts, "# mine now\n");
  EXPECT_EQ(run({"containerd", "--undo"}), kExitFailed);
  EXPECT_THAT(out_.str(), HasSubstr("-[host.\"http://127.0.0.1:5050\"]\n"));
  EXPECT_THAT(out_.str(), HasSubstr("+# mine now\n"));
  EXPECT_THAT(out_.str(), HasSubstr("nothing is changed. staithe setup containerd --undo --force"));
  EXPECT_EQ(tree_.text(kHosts), "# mine now\n");
  EXPECT_EQ(run({"containerd", "--undo", "--force"}), kExitOk);
  EXPECT_FALSE(tree_.exists(kHosts));
}

TEST_F(SetupCommandTest, ShowsNoSecretsOfTheFilesAround) {
  tree_.write("/etc/containerd/config.toml",
              "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".registry.configs.\"r\".auth]\n"
              "  password = \"hidden\"\n[plugins.\"io.containerd.grpc.v1.cri\".registry]\n");
  for (const bool as_json : {false, true}) {
    EXPECT_EQ(run(as_json ? std::vector<std::string>{"containerd", "--json"}
                          : std::vector<std::string>{"containerd"}),
              kExitOk);
    EXPECT_THAT(out_.str(), HasSubstr("password = (not shown)"));
    EXPECT_THAT(out_.str(), Not(HasSubstr("hidden")));
  }
}

TEST_F(SetupCommandTest, HasStableJson) {
  EXPECT_EQ(run({"containerd", "--json", "--apply"}), kExitOk);
  const json::value answer = json::parse(out_.str());
  EXPECT_EQ(answer.at("address"), "127.0.0.1:5050");
  EXPECT_EQ(answer.at("running"), false);
  const json::object& client = answer.at("clients").at(0).as_object();
  std::vector<std::string> keys;
  for (const auto& member : client) keys.emplace_back(member.key());
  EXPECT_THAT(keys, ElementsAre("client", "found", "version", "changes", "settled", "refusals",
                                "warnings", "restarts", "applied", "failure", "test"));
  EXPECT_EQ(client.at("applied"), true);
  EXPECT_EQ(client.at("changes").at(0).at("action"), "create");
  EXPECT_THAT(std::string(client.at("changes").at(0).at("diff").as_string()), StartsWith("--- "));

  EXPECT_EQ(run({"containerd", "--json", "--undo"}), kExitOk);
  const json::value undone = json::parse(out_.str()).at("clients").at(0);
  EXPECT_EQ(undone.at("undone"), true);
  EXPECT_THAT(undone.at("conflicts").as_array(), IsEmpty());
  EXPECT_FALSE(undone.at("restored").as_array().empty());
}

TEST_F(SetupCommandTest, KnowsWrongUsage) {
  for (const std::vector<std::string>& arguments :
       std::vector<std::vector<std::string>>{{"--apply"},
                                             {"--undo"},
                                             {"nonsense"},
                                             {"containerd", "--apply", "--undo"},
                                             {"containerd", "--force"},
                                             {"containerd", "--image", "UPPER/case"},
                                             {"containerd", "--nonsense"}}) {
    EXPECT_EQ(run(arguments), kExitBadUsage) << arguments.back();
    EXPECT_THAT(err_.str(), HasSubstr("staithe: ")) << arguments.back();
  }
}

TEST_F(SetupCommandTest, HelpHasExamples) {
  EXPECT_EQ(run({"--help"}), kExitOk);
  EXPECT_THAT(out_.str(), HasSubstr("staithe setup containerd --undo"));
}

TEST(SetupService, SurvivesAnswersThatAreNoneOfOurs) {
  for (const char* text : {"{}", "[]", "null", R"({"listen":"x","json":{"registry":{}}})",
                           R"({"listen":[1,"unix:/x"],"json":[]})"}) {
    const json::value value = json::parse(text);
    EXPECT_FALSE(service_of(value, value, value)) << text;
  }
  // Nothing gets into other programs' files that is not a host's name.
  const json::value status = json::parse(R"({"listen":["127.0.0.1:5050"]})");
  const json::value config = json::parse(
      R"({"json":{"registry":[{"name":"a\"]\n[x]"},{"name":"docker.io"}],"identity":{}}})");
  const auto found = service_of(config, status, json::value());
  ASSERT_TRUE(found);
  EXPECT_THAT(found->service.hosts(), ElementsAre("docker.io"));
}

}  // namespace
}  // namespace staithe::daemon
