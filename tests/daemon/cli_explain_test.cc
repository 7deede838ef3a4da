#include "daemon/cli_explain.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <boost/json/parse.hpp>
#include <random>
#include <sstream>
#include <string>
#include <vector>

#include "daemon/explanation.h"
#include "tests/fake/control_daemon.h"

namespace staithe::daemon {
namespace {

namespace json = boost::json;
using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;

constexpr const char* kAnswer = R"({
 "asked":"app:1","image":"docker.io/library/app:1","registry":"docker.io",
 "repository":"library/app","reference":"1",
 "rule":{"name":"docker.io","number":4,"wildcard":false,"default":true,
         "upstream_repository":"docker-hub/library/app"},
 "access":{"by":"registry.access","users":["nomad","1000"],"groups":["docker"],
           "caller":{"uid":1001,"may_pull":false}},
 "identity":{"name":"vm","kind":"managed-identity","prefix":"library/"},
 "upstreams":[{"name":"docker.io","upstream":["https://contoso.azurecr.io"],"state":"throttled",
   "paused_seconds":42,"last_error":"it answered 429","last_error_class":"throttled",
   "remedy":"wait","tokens":[{"kind":"access","expires_in_seconds":3600,"renews_in_seconds":60}],
   "credentials":[]}],
 "tag":{"digest":"sha256:aaaaaaaaaaaaaaaaaaaa","age_seconds":5,"ttl_seconds":60,
        "stale_for_seconds":604795},
 "pinned":true,"platform":"linux/amd64",
 "platforms":[{"platform":"linux/amd64","digest":"sha256:bb","state":"cached"},
              {"platform":"linux/arm64","digest":"sha256:cc","state":"missing"}],
 "parts":[
  {"kind":"index","digest":"sha256:aaaaaaaaaaaaaaaaaaaa","state":"cached","bytes":1000,
   "total":1000,"last_used_seconds_ago":3600,"pinned":true},
  {"kind":"layer","digest":"sha256:dddddddddddddddddddd","state":"fetching","bytes":52428800,
   "total":104857600,"last_used_seconds_ago":null,"readers":2,"connections":4,
   "bytes_per_second":10485760,"seconds_left":5,"pinned":false},
  {"kind":"layer","digest":"sha256:eeeeeeeeeeeeeeeeeeee","state":"missing","bytes":0,
   "total":2048,"last_used_seconds_ago":null,"pinned":false}],
 "bytes_here":52428800,"bytes_needed":104859648,
 "next_pull":{"result":"partly","asks":["HEAD manifests/1","GET blobs/sha256:ee"],
              "bytes_to_fetch":52430848}})";

TEST(Explanation, IsAPageForPeople) {
  EXPECT_EQ(render_explanation(json::parse(kAnswer), Style{}),
            R"(IMAGE  docker.io/library/app:1  (what "app:1" means)
  rule          [[registry]] docker.io, number 4, by name, the default
  repository    library/app (docker-hub/library/app upstream)
  access        root, staithed's user, users nomad, 1000, groups docker ([registry.access])  not you, uid 1001
  identity      vm (managed-identity), the one for library/

UPSTREAM
  https://contoso.azurecr.io  throttled for 42s
    tokens: access valid for 1h, renewed in 1m
    last error: it answered 429
    remedy: wait

TAG  1  pinned
  sha256:aaaaaaaaaaaa  confirmed 5s ago  trusted for 55s  served for 6d 23h while upstream fails

CONTENT  linux/amd64  50.0 MiB of 100.0 MiB are here
  KIND   DIGEST               SIZE       STATE                 LAST USED
  index  sha256:aaaaaaaaaaaa  1000 B     cached                1h ago
  layer  sha256:dddddddddddd  100.0 MiB  fetching 50.0% of it  -
    10.0 MiB/s, 5s left, 4 connections
  layer  sha256:eeeeeeeeeeee  2.0 KiB    missing               -
  also for linux/arm64

NEXT PULL  partly  partly from the cache, 50.0 MiB to fetch
  asks upstream:
    HEAD manifests/1
    GET blobs/sha256:ee
)");
}

TEST(Explanation, SaysThatNoRuleMatchesAndWhichThereAre) {
  const std::string text = render_explanation(
      json::parse(R"({"asked":"x.example/a:1","image":"x.example/a:1","registry":"x.example",
                      "rule":null,"configured":["docker.io","*.azurecr.io"]})"),
      Style{});
  EXPECT_THAT(text, StartsWith("IMAGE  x.example/a:1\n  rule  none\n"));
  EXPECT_THAT(text, HasSubstr("Configured: docker.io, *.azurecr.io."));
}

// Any part may be missing, or be something else, and every line fits.
TEST(Explanation, SurvivesWhateverItIsGiven) {
  std::mt19937 random(20261121);
  const std::string sample = kAnswer;
  for (int round = 0; round < 2000; ++round) {
    std::string text = sample;
    for (int i = 0; i < 3; ++i) {
      const std::size_t at = random() % text.size();
      const char* put[] = {"null", "1e300", "\"\\u001b[2J\"", "[]", "{}", "-1"};
      if (const std::size_t colon = text.find(':', at); colon != text.npos) {
        const std::size_t end = text.find_first_of(",}]", colon);
        text.replace(colon + 1, end - colon - 1, put[random() % 6]);
      }
    }
    boost::system::error_code error;
    const json::value value = json::parse(text, error);
    if (error) continue;
    const Style style{.columns = 40 + random() % 100};
    std::istringstream stream(render_explanation(value, style));
    for (std::string line; std::getline(stream, line);) {
      ASSERT_LE(column_count(line), style.columns) << text;
      ASSERT_EQ(line.find('\x1b'), line.npos);
    }
  }
}

TEST(Query, NamesOneImage) {
  EXPECT_EQ(*image_of_query("/v1/explain?image=r.example%2Fapp%3A1"), "r.example/app:1");
  for (const char* target : {"/v1/explain", "/v1/explain?", "/v1/explain?name=a",
                             "/v1/explain?image=a&image=b", "/v1/explain?image=%4"})
    EXPECT_FALSE(image_of_query(target)) << target;
}

TEST(Remedy, IsThereForWhatAPersonCanMend) {
  for (const Errc code :
       {Errc::unreachable, Errc::upstream_failed, Errc::upstream_nonsense, Errc::throttled,
        Errc::firewall, Errc::unauthorized, Errc::denied, Errc::identity_missing})
    EXPECT_FALSE(remedy_for(to_string(code), "r.example", "https://r.example").empty());
  EXPECT_THAT(remedy_for("unauthorized", "r.example", ""), HasSubstr("staithe renew r.example"));
  EXPECT_EQ(remedy_for("", "r.example", "https://r.example"), "");
}

class ExplainCommandTest : public testing::Test, protected fake::ControlDaemon {
 protected:
  int run(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), {"staithe", "--socket", socket_, "explain"});
    std::vector<const char*> argv;
    for (const std::string& argument : arguments) argv.push_back(argument.c_str());
    const Environment environment;
    return run_cli(static_cast<int>(argv.size()), argv.data(), {out_, err_, environment, {}});
  }
  std::ostringstream out_;
  std::ostringstream err_;
};

TEST_F(ExplainCommandTest, AsksForTheNameAsItWasGiven) {
  std::string asked;
  serve([&](const std::string& request) {
    asked = request;
    return fake::answer(kAnswer);
  });
  EXPECT_EQ(run({"R.example/app@sha256:" + std::string(64, 'a')}), kExitOk) << err_.str();
  stop();
  EXPECT_THAT(asked, StartsWith("GET /v1/explain?image=R.example%2Fapp%40sha256%3Aaa"));
  EXPECT_THAT(out_.str(), HasSubstr("NEXT PULL  partly"));
}

TEST_F(ExplainCommandTest, FailsIfNoRuleMatches) {
  serve(fake::answer(R"({"image":"x.example/a:1","rule":null,"configured":[]})"));
  EXPECT_EQ(run({"x.example/a:1"}), kExitFailed);
  EXPECT_EQ(run({"--json", "x.example/a:1"}), kExitFailed);
}

TEST_F(ExplainCommandTest, RefusesWhatIsNoNameAndSaysThatNobodyIsThere) {
  EXPECT_EQ(run({"app:"}), kExitBadUsage);
  EXPECT_EQ(run({}), kExitBadUsage);
  EXPECT_EQ(run({"app"}), kExitUnreachable);
}

}  // namespace
}  // namespace staithe::daemon
