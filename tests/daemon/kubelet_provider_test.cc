#include "daemon/kubelet_provider.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <boost/json/parse.hpp>
#include <chrono>
#include <sstream>
#include <string>
#include <vector>

#include "daemon/kubelet_request.h"
#include "tests/fake/control_daemon.h"

namespace staithe::daemon {
namespace {

namespace json = boost::json;
using namespace std::chrono_literals;
using fake::answer;
using fake::body_of;
using fake::refusal;
using testing::AllOf;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using testing::StartsWith;

const std::string kGroup = "credentialprovider.kubelet.k8s.io/";
constexpr const char* kNull = "00000000-0000-0000-0000-000000000000";

// A request with `more` fields after the image.
std::string request(const std::string& image, const std::string& more = "",
                    const std::string& version = "v1") {
  return R"({"apiVersion":")" + kGroup + version +
         R"(","kind":"CredentialProviderRequest","image":")" + image + "\"" + more + "}";
}
constexpr const char* kToken = R"(,"serviceAccountToken":"eyJpod")";
constexpr const char* kAnnotations =
    R"(,"serviceAccountAnnotations":{"kubernetes.azure.com/acr-client-id":"the-client","kubernetes.azure.com/acr-tenant-id":"the-tenant"})";

TEST(KubeletRequest, IsReadInEveryVersion) {
  for (const char* version : {"v1", "v1beta1", "v1alpha1"}) {
    const auto parsed = parse_kubelet_request(request("r.example/app:1", "", version) + "\n");
    ASSERT_TRUE(parsed) << parsed.error().detail;
    EXPECT_EQ(parsed->api_version, kGroup + version);
    EXPECT_EQ(parsed->image, "r.example/app:1");
    EXPECT_TRUE(parsed->service_account_token.empty());
  }
  const auto parsed =
      parse_kubelet_request(request("r.example/app:1", std::string(kToken) + kAnnotations));
  ASSERT_TRUE(parsed) << parsed.error().detail;
  EXPECT_EQ(parsed->service_account_token.reveal(), "eyJpod");
  EXPECT_EQ(parsed->service_account_annotations.at("kubernetes.azure.com/acr-client-id"),
            "the-client");
  EXPECT_TRUE(parse_kubelet_request(request("a\\u002fb", R"(,"serviceAccountAnnotations":{})")));
}

TEST(KubeletRequest, IsRefusedWithTheFieldThatIsWrong) {
  const std::vector<std::pair<std::string, std::string>> cases{
      {"", "not JSON"},
      {"{", "not JSON"},
      {"null", "the request is not an object"},
      {"[]", "the request is not an object"},
      {"\"topsecret\"", "the request is not an object"},
      {"{}", "apiVersion is not"},
      {request("a") + "x", "something follows its end"},
      {request("a") + request("a"), "something follows its end"},
      {request("a") + std::string(1, '\0'), "something follows its end"},
      {request(""), "image is missing"},
      {request("a", R"(,"image":"topsecret")"), "image is there twice"},
      {request("a", R"(,"im\u0061ge":"topsecret")"), "image is there twice"},
      {request("a", R"(,"Image":"topsecret")"), "Image is not a field"},
      {request("a", R"(,"secret\u001b[31m":"topsecret")"), "secret\\x1b[31m is not a field"},
      {request("a", R"(,"serviceAccountToken":7)"), "serviceAccountToken is not a string"},
      {request("a", R"(,"serviceAccountToken":null)"), "serviceAccountToken is not a string"},
      {request("a", R"(,"serviceAccountToken":["topsecret"])"),
       "serviceAccountToken is not a string"},
      {request("a", R"(,"serviceAccountToken":{"a":"topsecret"})"),
       "serviceAccountToken is not a string"},
      {request("a", R"(,"serviceAccountAnnotations":"topsecret")"),
       "serviceAccountAnnotations is not an object of strings"},
      {request("a", R"(,"serviceAccountAnnotations":[])"),
       "serviceAccountAnnotations is not an object of strings"},
      {request("a", R"(,"serviceAccountAnnotations":{"k":true})"),
       "serviceAccountAnnotations[\"k\"] is not a string"},
      {request("a", R"(,"serviceAccountAnnotations":{"k":{}})"),
       "serviceAccountAnnotations[\"k\"] is not a string"},
      {request("a", R"(,"serviceAccountAnnotations":{"k":"a","k":"topsecret"})"),
       "serviceAccountAnnotations[\"k\"] is there twice"},
      {request("a", R"(,"serviceAccountAnnotations":{},"serviceAccountAnnotations":{})"),
       "serviceAccountAnnotations is there twice"},
      {request("a", kToken, "v1beta1"), "serviceAccountToken is not a field of this apiVersion"},
      {request("a", R"(,"serviceAccountAnnotations":{})", "v1alpha1"),
       "serviceAccountAnnotations is not a field of this apiVersion"},
      {request("a", "", "v2"), "apiVersion is not"},
      {R"({"apiVersion":")" + kGroup + R"(v1","kind":"CredentialProviderResponse","image":"a"})",
       "kind is not"},
      {R"({"apiVersion":")" + kGroup + R"(v1","image":"a"})", "kind is not"},
      {request("\xff"), "not JSON"},
      {std::string(5000, '['), "the request is not an object"},
      {request(std::string(kMaxKubeletRequestBytes, 'a')), "larger than 1 MiB"}};
  for (const auto& [text, what] : cases) {
    const auto parsed = parse_kubelet_request(text);
    ASSERT_FALSE(parsed) << text.substr(0, 200);
    EXPECT_EQ(parsed.error().code, Errc::bad_request);
    EXPECT_THAT(parsed.error().detail, HasSubstr(what)) << text.substr(0, 200);
    EXPECT_THAT(parsed.error().detail, Not(HasSubstr("topsecret")));
  }
}

// Each byte of a good request, changed or the last: half a request is none.
TEST(KubeletRequest, ThatIsCutOrChangedIsRefusedOrStillWhole) {
  const std::string good = request("r.example/app:1", std::string(kToken) + kAnnotations);
  for (std::size_t i = 0; i < good.size(); ++i) {
    EXPECT_FALSE(parse_kubelet_request(good.substr(0, i)));
    for (const char c : {'\0', '"', '{', '}', ',', '\\', '\x80', ' '}) {
      std::string text = good;
      text[i] = c;
      const auto parsed = parse_kubelet_request(text);
      if (!parsed) continue;
      EXPECT_FALSE(parsed->image.empty());
      EXPECT_FALSE(parsed->service_account_token.empty());
      EXPECT_EQ(parsed->api_version, kGroup + "v1");
    }
  }
}

TEST(KubeletAnswer, HasGosDurations) {
  EXPECT_EQ(go_duration(0s), "0s");
  EXPECT_EQ(go_duration(59s), "59s");
  EXPECT_EQ(go_duration(60s), "1m0s");
  EXPECT_EQ(go_duration(3300s), "55m0s");
  EXPECT_EQ(go_duration(3600s), "1h0m0s");
  EXPECT_EQ(go_duration(10'805s), "3h0m5s");
}

TEST(KubeletAnswer, IsKeptShorterThanTheSecretLives) {
  EXPECT_EQ(cache_duration(std::nullopt), std::nullopt);
  for (const auto life : {0s, 1s, 299s, 300s, 301s, 3600s, 10'800s}) {
    const auto kept = cache_duration(life);
    ASSERT_TRUE(kept);
    EXPECT_GE(*kept, 0s);
    EXPECT_TRUE(*kept == 0s || *kept + 300s == life) << life.count();
  }
}

class KubeletProvider : public testing::Test, protected fake::ControlDaemon {
 protected:
  void serve_contoso() {
    serve([this](const std::string& asked) {
      asked_ = asked;
      if (asked.find("contoso.azurecr.io") != std::string::npos) {
        return answer(R"({"registry":"contoso.azurecr.io","username":")" + std::string(kNull) +
                      R"(","password":"the-token","expires_in_seconds":)" + life_ + "}");
      }
      if (asked.find("docker.io") != std::string::npos) {
        return answer(R"({"username":"robot","password":"p","expires_in_seconds":null})");
      }
      return refusal("404 Not Found", "NOT_MANAGED", "no credential");
    });
  }
  struct Outcome {
    int status;
    std::string out;
    std::string err;
  };
  Outcome run(const std::string& input, std::vector<const char*> more = {}) {
    more.insert(more.begin(), "staithe-credential-provider");
    const Environment environment{
        {{"STAITHE_SOCKET", socket_}, {"STAITHE_KUBELET_FALLBACK", fallback_}}, 0, {}};
    std::istringstream in(input);
    std::ostringstream out;
    std::ostringstream err;
    const int status = run_kubelet_provider(static_cast<int>(more.size()), more.data(),
                                            {in, out, err, environment});
    return {status, out.str(), err.str()};
  }
  json::value good(const std::string& input) {
    const Outcome outcome = run(input);
    EXPECT_EQ(outcome.status, 0) << outcome.err;
    EXPECT_THAT(outcome.err, IsEmpty());
    return json::parse(outcome.out);
  }

  std::string fallback_;
  std::string life_ = "9000";
  std::string asked_;
};

TEST_F(KubeletProvider, AnswersAManagedImageInTheVersionItWasAskedIn) {
  serve_contoso();
  for (const char* version : {"v1", "v1beta1", "v1alpha1"}) {
    EXPECT_EQ(good(request("contoso.azurecr.io/team/web:1", "", version)),
              json::parse(R"({"apiVersion":")" + kGroup + version +
                          R"(","kind":"CredentialProviderResponse","cacheKeyType":"Image",)"
                          R"("cacheDuration":"2h25m0s","auth":{"contoso.azurecr.io":)"
                          R"({"username":")" +
                          kNull + R"(","password":"the-token"}}})"));
  }
  stop();
  EXPECT_EQ(json::parse(body_of(asked_)),
            json::parse(R"({"registry":"contoso.azurecr.io","repository":"team/web",)"
                        R"("purpose":"pull"})"));
}

TEST_F(KubeletProvider, KeepsNoTokenLongerThanItLives) {
  for (const auto& [life, kept] : std::vector<std::pair<std::string, std::string>>{
           {"10800", "2h55m0s"}, {"301", "1s"}, {"300", "0s"}, {"10", "0s"}, {"-5", "0s"}}) {
    life_ = life;
    stop();
    std::filesystem::remove(socket_);
    serve_contoso();
    EXPECT_EQ(good(request("contoso.azurecr.io/a")).at("cacheDuration").as_string(), kept);
  }
}

TEST_F(KubeletProvider, LeavesAPasswordWithoutAnEndToTheConfiguredDuration) {
  serve_contoso();
  const json::value said = good(request("redis"));
  EXPECT_FALSE(said.as_object().contains("cacheDuration"));
  EXPECT_EQ(said.at("auth").at("docker.io").at("username").as_string(), "robot");
  stop();
  EXPECT_THAT(asked_, HasSubstr(R"("registry":"docker.io","repository":"library/redis")"));
}

// kubernetes/kubernetes#92326: such an answer, once cached, kept private images from being pulled.
TEST_F(KubeletProvider, AnswersAnybodyElsesImageWithNothingAndUncached) {
  serve_contoso();
  EXPECT_EQ(good(request("ghcr.io/team/app:1")),
            json::parse(R"({"apiVersion":")" + kGroup +
                        R"(v1","kind":"CredentialProviderResponse","cacheKeyType":"Image",)"
                        R"("cacheDuration":"0s"})"));
}

TEST_F(KubeletProvider, AsksWithThePodsIdentity) {
  serve_contoso();
  const json::value said =
      good(request("contoso.azurecr.io/team/web:1", std::string(kToken) + kAnnotations));
  EXPECT_EQ(said.at("cacheKeyType").as_string(), "Registry");
  stop();
  const json::value body = json::parse(body_of(asked_));
  EXPECT_EQ(body.at("service_account_token").as_string(), "eyJpod");
  EXPECT_EQ(body.at("client_id").as_string(), "the-client");
  EXPECT_EQ(body.at("tenant_id").as_string(), "the-tenant");
}

TEST_F(KubeletProvider, GivesTheNodesIdentityToAPodThatNamesNoneOnlyWhereThatIsAllowed) {
  serve_contoso();
  const std::string asked = request("contoso.azurecr.io/team/web:1", kToken);
  const Outcome outcome = run(asked);
  EXPECT_EQ(outcome.status, 1);
  EXPECT_THAT(outcome.err, HasSubstr("STAITHE_KUBELET_FALLBACK=node"));
  EXPECT_EQ(requests_, 0);
  fallback_ = "node";
  EXPECT_EQ(good(asked).at("cacheKeyType").as_string(), "Image");
  stop();
  EXPECT_THAT(asked_, Not(HasSubstr("eyJpod")));
}

TEST_F(KubeletProvider, RefusesHalfOfAPodsIdentity) {
  serve_contoso();
  fallback_ = "node";  // allows none, not a half
  const Outcome outcome = run(request(
      "contoso.azurecr.io/a",
      std::string(kToken) +
          R"(,"serviceAccountAnnotations":{"kubernetes.azure.com/acr-client-id":"the-client"})"));
  EXPECT_EQ(outcome.status, 1);
  EXPECT_THAT(outcome.out, IsEmpty());
  EXPECT_THAT(outcome.err, HasSubstr("no annotation kubernetes.azure.com/acr-tenant-id"));
  EXPECT_EQ(requests_, 0);
}

TEST_F(KubeletProvider, SaysInOneLineOfStderrWhatIsWrong) {
  const std::vector<std::pair<std::string, std::string>> cases{
      {request("contoso.azurecr.io/a"), "systemctl start staithed"},
      {request("a", R"(,"token":"topsecret")"), "token is not a field"},
      {request("https://contoso.azurecr.io/a"), "is not an image's name"},
      {std::string(2 << 20, ' '), "larger than 1 MiB"}};
  for (const auto& [input, what] : cases) {
    const Outcome outcome = run(input);
    EXPECT_EQ(outcome.status, 1);
    EXPECT_THAT(outcome.out, IsEmpty());
    EXPECT_THAT(outcome.err, AllOf(StartsWith("staithe-credential-provider: "), HasSubstr(what)));
    EXPECT_THAT(outcome.err, Not(HasSubstr("topsecret")));
    EXPECT_EQ(outcome.err.find('\n'), outcome.err.size() - 1);
  }
  serve(refusal("503 Service Unavailable", "UNAVAILABLE", "IMDS does not answer"));
  EXPECT_THAT(run(request("contoso.azurecr.io/a")).err, HasSubstr("IMDS does not answer"));
  EXPECT_EQ(run("", {"--verbose"}).status, 1);
}

TEST_F(KubeletProvider, ExplainsItselfToWhoRunsItByHand) {
  EXPECT_THAT(run("", {"--help"}).out, HasSubstr("--image-credential-provider-bin-dir"));
  EXPECT_EQ(run("", {"--version"}).out, "staithe-credential-provider " STAITHE_VERSION "\n");
}

}  // namespace
}  // namespace staithe::daemon
