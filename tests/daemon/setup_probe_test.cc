#include "daemon/setup_probe.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <string>
#include <vector>

#include "cache/digest.h"
#include "tests/fake/machine.h"

namespace staithe::daemon {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

std::string digest(const std::string& text) {
  return cache::digest_of(cache::Algorithm::sha256, text).to_string();
}

// A listener that has one image for one platform below an index.
class ProbeTest : public testing::Test {
 protected:
  ProbeTest() {
    put("blobs", config_);
    manifest_ = R"({"config":{"digest":")" + digest(config_) + R"("},"layers":[]})";
    put("manifests", manifest_);
    index_ = R"({"manifests":[{"digest":")" + digest(manifest_) + R"("}]})";
    put("manifests", index_);
    answers_["/v2/library/app/manifests/1"] = {200, digest(index_), "", index_};
    answers_["/v2/"] = {200, "", "application/json", "{}"};
  }
  void put(const std::string& kind, const std::string& body) {
    answers_["/v2/library/app/" + kind + "/" + digest(body)] = {200, digest(body), "", body};
  }
  std::vector<TestStep> pull(Asks asks) {
    return test_pull(asks, *parse_image_name("app:1"),
                     [this](std::string_view method, const std::string& target,
                            std::string_view) -> Result<ListenerAnswer> {
                       asked_.push_back(std::string(method) + " " + target);
                       std::string path = target.substr(0, target.find('?'));
                       if (const std::size_t host = path.find("docker.io/"); host != path.npos)
                         path.erase(host, 10);
                       const auto found = answers_.find(path);
                       if (found == answers_.end()) {
                         return ListenerAnswer{
                             404, "", "",
                             R"({"errors":[{"code":"X","message":"it is not there"}]})"};
                       }
                       ListenerAnswer answer = found->second;
                       if (method == "HEAD") answer.body.clear();
                       return answer;
                     });
  }
  std::map<std::string, ListenerAnswer> answers_;
  std::vector<std::string> asked_;
  std::string config_ = "{}";
  std::string manifest_;
  std::string index_;
};

TEST_F(ProbeTest, AsksAsContainerdDoes) {
  for (const TestStep& step : pull(Asks::by_ns)) EXPECT_TRUE(step.good) << step.finding;
  EXPECT_THAT(asked_,
              ElementsAre("GET /v2/", "HEAD /v2/library/app/manifests/1?ns=docker.io",
                          "GET /v2/library/app/manifests/" + digest(index_) + "?ns=docker.io",
                          "GET /v2/library/app/manifests/" + digest(manifest_) + "?ns=docker.io",
                          "GET /v2/library/app/blobs/" + digest(config_) + "?ns=docker.io"));
}

TEST_F(ProbeTest, AsksAsDockerdDoesWithoutSayingWhom) {
  for (const TestStep& step : pull(Asks::by_nothing)) EXPECT_TRUE(step.good) << step.finding;
  EXPECT_EQ(asked_[1], "HEAD /v2/library/app/manifests/1");
}

TEST_F(ProbeTest, AsksAsPodmanDoesByPathAndWithoutHead) {
  for (const TestStep& step : pull(Asks::by_path)) EXPECT_TRUE(step.good) << step.finding;
  EXPECT_EQ(asked_[1], "GET /v2/docker.io/library/app/manifests/1");
}

TEST_F(ProbeTest, EndsAtTheFirstFailureAndSaysWhatTheDaemonSays) {
  answers_.erase("/v2/library/app/manifests/" + digest(manifest_));
  const auto steps = pull(Asks::by_ns);
  ASSERT_EQ(steps.size(), 3u);
  EXPECT_FALSE(steps[2].good);
  EXPECT_EQ(steps[2].what, "platform");
  EXPECT_EQ(steps[2].finding, "staithed answered 404: it is not there");
}

TEST_F(ProbeTest, FindsBytesThatAreNotWhatTheirNameSays) {
  answers_["/v2/library/app/blobs/" + digest(config_)].body = "{ }";
  const auto steps = pull(Asks::by_ns);
  EXPECT_FALSE(steps.back().good);
  EXPECT_THAT(steps.back().finding, HasSubstr("and not " + digest(config_)));
}

TEST_F(ProbeTest, NoticesAnotherProgramBehindThePort) {
  answers_["/v2/"].status = 404;
  const auto steps = pull(Asks::by_ns);
  ASSERT_EQ(steps.size(), 1u);
  EXPECT_THAT(steps[0].finding, HasSubstr("another program listens there"));
}

TEST_F(ProbeTest, SurvivesManifestsThatAreNone) {
  for (const char* body : {"", "[]", "null", "{\"config\":1}", "{\"manifests\":[1]}", "{"}) {
    answers_["/v2/library/app/manifests/1"] = {200, digest(body), "", body};
    answers_["/v2/library/app/manifests/" + digest(body)] = {200, digest(body), "", body};
    pull(Asks::by_ns);
  }
}

TEST(Probe, SaysThatNobodyListens) {
  // Port 1 of loopback: nobody's.
  const auto answer = ask_at("127.0.0.1:1", std::chrono::seconds(5))("GET", "/v2/", "");
  ASSERT_FALSE(answer);
  EXPECT_THAT(answer.error().detail, HasSubstr("staithed does not answer at 127.0.0.1:1"));
}

TEST(Probe, WritesNsAsContainerdDoes) {
  EXPECT_EQ(client_target(Asks::by_ns, *parse_image_name("r.example:5000/a/b:1"), "manifests", "1"),
            "/v2/a/b/manifests/1?ns=r.example%3A5000");
}

TEST(ProbeCredential, KnowsWhetherThereIsOneAndNeverShowsIt) {
  fake::FakeMachine machine;
  machine.program("staithe-credential-provider",
                  R"({"kind":"CredentialProviderResponse","auth":{"contoso.azurecr.io":)"
                  R"({"username":"u","password":"hidden"}}})");
  TestStep step = test_credential(Asks::kubelet_credential, machine, "contoso.azurecr.io");
  EXPECT_TRUE(step.good);
  EXPECT_THAT(step.finding, Not(HasSubstr("hidden")));
  EXPECT_THAT(machine.inputs.at(0), HasSubstr(R"("image":"contoso.azurecr.io/)"));

  machine.program("docker-credential-staithe-nomad", R"({"Username":"u","Secret":"hidden"})");
  EXPECT_TRUE(test_credential(Asks::nomad_credential, machine, "contoso.azurecr.io").good);
  EXPECT_EQ(machine.inputs.at(1), "contoso.azurecr.io");
  machine.program("docker-credential-staithe-nomad", R"({"Username":"","Secret":""})");
  step = test_credential(Asks::nomad_credential, machine, "contoso.azurecr.io");
  EXPECT_FALSE(step.good);
  EXPECT_THAT(step.finding, HasSubstr("there is no credential"));
  EXPECT_FALSE(test_credential(Asks::nomad_credential, fake::FakeMachine(), "r").good);
}

}  // namespace
}  // namespace staithe::daemon
