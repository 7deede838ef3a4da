#include "daemon/control.h"

#include <gtest/gtest.h>

#include <boost/json.hpp>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "daemon/status_page.h"
#include "tests/daemon/control_plane.h"
#include "tests/fake/web_callers.h"

namespace staithe::daemon {
namespace {

using fake::Answer;
using fake::House;

class ControlTest : public testing::Test {
 protected:
  static Config defaults() { return *parse_config("", "staithe.toml", Environment()); }

  Answer ask(const std::string& text) {
    proxy::Server server(house_.io.get_executor(),
                         {.connections = 10, .connection = {.body_bytes = 1000}}, control_,
                         house_.store.disk_pool());
    server.listen(*proxy::ListenAddress::parse("127.0.0.1:0"), 0);
    server.start();
    Answer answer = house_.run(house_.ask_at(server.addresses().front(), text));
    house_.run(server.stop());
    return answer;
  }
  Answer get(const std::string& path) {
    return ask("GET " + path + " HTTP/1.1\r\nHost: staithe\r\nConnection: close\r\n\r\n");
  }

  House house_;
  const Config config_ = defaults();
  ControlPlane plane_{house_, config_, house_.registries};
  Control& control_ = plane_.control;
};

TEST_F(ControlTest, StatusHoldsWhatTheContractNames) {
  const auto digest = house_.play_blob("app", "some bytes");
  house_.get("/v2/r.example/app/blobs/" + digest.to_string());
  control_.set_addresses({"127.0.0.1:5050"});
  control_.set_state(Control::State::ready);
  const Answer answer = get("/v1/status");
  ASSERT_EQ(answer.status, 200);
  const auto status = boost::json::parse(answer.body).as_object();
  for (const char* key : {"version", "host", "pid", "uptime_seconds", "state", "listen", "cache",
                          "traffic", "registries", "fills", "warm"})
    EXPECT_TRUE(status.contains(key)) << key;
  const auto& cache = status.at("cache").as_object();
  for (const char* key :
       {"directory", "bytes", "max_bytes", "free_bytes", "blobs", "manifests", "evicted",
        "quarantined", "mode", "mode_reason", "next_victims", "reconciled", "scrub"})
    EXPECT_TRUE(cache.contains(key)) << key;
  const auto& traffic = status.at("traffic").as_object();
  for (const char* key : {"requests", "hits", "misses", "collapsed", "stale", "errors", "hit_ratio",
                          "bytes_served", "bytes_saved", "bytes_fetched"})
    EXPECT_TRUE(traffic.contains(key)) << key;
  EXPECT_EQ(traffic.at("misses").to_number<int>(), 1);
  EXPECT_EQ(traffic.at("bytes_fetched").to_number<int>(), 10);
  EXPECT_EQ(status.at("state").as_string(), "ready");
  const auto& registries = status.at("registries").as_array();
  ASSERT_EQ(registries.size(), 2U);  // One was asked for, one is only configured.
  for (const auto& registry : registries) {
    for (const char* key :
         {"name", "upstream", "upstreams", "identity", "identity_kind", "state", "paused_seconds",
          "last_error", "last_error_class", "tokens", "credentials"})
      EXPECT_TRUE(registry.as_object().contains(key)) << key;
  }
  EXPECT_EQ(registries.at(0).at("name").as_string(), "r.example");
  EXPECT_EQ(registries.at(0).at("state").as_string(), "ok");
  EXPECT_EQ(registries.at(0).at("retries").to_number<int>(), 0);
  EXPECT_TRUE(registries.at(0).at("retry_in_seconds").is_null());
  EXPECT_TRUE(registries.at(0).at("rate_limit").is_null());
  EXPECT_EQ(registries.at(1).at("state").as_string(), "idle");
}

TEST_F(ControlTest, StatusTellsHowManyPullsTheRegistryStillGrants) {
  house_.upstream.on("https://r.example",
                     {fake::Reply{.status = 404,
                                  .headers = {{"ratelimit-limit", "100;w=21600"},
                                              {"ratelimit-remaining", "76;w=21600"},
                                              {"docker-ratelimit-source", "203.0.113.7"}}}});
  EXPECT_EQ(house_.get("/v2/r.example/app/manifests/1").status, 404);
  const auto status = boost::json::parse(get("/v1/status").body);
  const auto& told = status.at("registries").at(0).at("rate_limit");
  EXPECT_EQ(told.at("limit").to_number<int>(), 100);
  EXPECT_EQ(told.at("remaining").to_number<int>(), 76);
  EXPECT_EQ(told.at("window_seconds").to_number<int>(), 21600);
}

TEST_F(ControlTest, StatusTellsWhatGoesNextAndWhatWasSaved) {
  auto status = boost::json::parse(get("/v1/status").body).as_object();
  EXPECT_TRUE(status.at("cache").at("next_victims").as_array().empty());
  EXPECT_TRUE(status.at("traffic").at("hit_ratio").is_null()) << "nothing was asked for yet";
  std::vector<std::string> digests;
  for (int i = 0; i < 6; ++i) {
    const auto digest = house_.play_blob("app", "blob " + std::to_string(i));
    digests.push_back(digest.to_string());
    const std::string path = "/v2/r.example/app/blobs/" + digests.back();
    house_.get(path);
    house_.run_until_true([&] { return !house_.fills.under_way(digest); });
    if (i == 0) {
      for (int again = 0; again < 2; ++again) house_.get(path);
    }
  }
  status = boost::json::parse(get("/v1/status").body).as_object();
  const auto& next = status.at("cache").at("next_victims").as_array();
  ASSERT_EQ(next.size(), 5U);
  for (std::size_t i = 0; i < next.size(); ++i) {
    EXPECT_EQ(next[i].at("digest").as_string(), digests[i]) << "the first of six goes first";
    EXPECT_EQ(next[i].at("kind").as_string(), "blob");
    EXPECT_EQ(next[i].at("bytes").to_number<int>(), 4096);
    EXPECT_EQ(next[i].at("why").as_string(), "probation") << "all uses were of one pull";
    EXPECT_GE(next[i].at("last_used_seconds_ago").to_number<int>(), 0);
    EXPECT_LT(next[i].at("last_used_seconds_ago").to_number<int>(), 600);
  }
  EXPECT_EQ(status.at("traffic").at("hit_ratio").to_number<double>(), 0.25);
  EXPECT_EQ(status.at("traffic").at("bytes_saved").to_number<int>(), 12);
}

TEST_F(ControlTest, ShowsTheStatusAsAPageThatNobodyKeepsOrFrames) {
  control_.set_state(Control::State::ready);
  const auto digest = house_.play_blob("app", "some bytes");
  house_.get("/v2/r.example/app/blobs/" + digest.to_string());
  const Answer page = get("/");
  ASSERT_EQ(page.status, 200);
  EXPECT_EQ(page.field("Content-Type"), "text/html; charset=utf-8");
  EXPECT_EQ(page.field("Content-Security-Policy"), status_page_policy());
  EXPECT_EQ(page.field("X-Content-Type-Options"), "nosniff");
  EXPECT_EQ(page.field("Referrer-Policy"), "no-referrer");
  EXPECT_EQ(page.field("Cross-Origin-Resource-Policy"), "same-origin");
  EXPECT_EQ(page.field("Cross-Origin-Opener-Policy"), "same-origin");
  EXPECT_EQ(page.field("Cache-Control"), "no-store");
  EXPECT_TRUE(page.body.starts_with("<!doctype html>"));
  EXPECT_NE(page.body.find("r.example"), std::string::npos);
  const Answer head = ask("HEAD / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
  EXPECT_EQ(head.status, 200);
  EXPECT_TRUE(head.body.empty());
  EXPECT_EQ(
      ask("POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n").status,
      405);
}

// A browser that reaches this socket through a forwarded port must not be the hand of other sites.
TEST_F(ControlTest, ServesItsOwnPageAndNoOtherSites) {
  const auto asked = [&](const std::string& fields, const std::string& method = "GET",
                         const std::string& path = "/v1/status") {
    return ask(method + " " + path + " HTTP/1.1\r\n" + fields + "Connection: close\r\n" +
               (method == "POST" ? "Content-Length: 2\r\n\r\n{}" : "\r\n"))
        .status;
  };
  for (const char* fields :
       {"Host: localhost:8080\r\nSec-Fetch-Site: same-origin\r\n",
        "Host: localhost:8080\r\nSec-Fetch-Site: none\r\n", "Host: 127.0.0.1:8080\r\n",
        "Host: [::1]:8080\r\n", "Host: staithe\r\n"})
    EXPECT_EQ(asked(fields), 200) << fields;
  EXPECT_EQ(asked("Host: \r\n"), 400);
  EXPECT_EQ(asked(""), 400);
  for (const char* fields :
       {"Host: evil.example\r\n", "Host: evil.example:8080\r\nSec-Fetch-Site: same-origin\r\n",
        "Host: 192.0.2.1\r\n", "Host: [2001:db8::1]\r\n",
        "Host: localhost\r\nSec-Fetch-Site: cross-site\r\n",
        "Host: localhost\r\nSec-Fetch-Site: same-site\r\n",
        "Host: localhost\r\nOrigin: https://evil.example\r\n",
        "Host: localhost\r\nOrigin: null\r\n"}) {
    EXPECT_EQ(asked(fields), 403) << fields;
    EXPECT_EQ(asked(fields, "POST", "/v1/verify"), 403) << fields;
    EXPECT_EQ(asked(fields, "POST", "/v1/warm"), 403) << fields;
    EXPECT_EQ(asked(fields, "POST", "/v1/reload"), 403) << fields;
  }
  // A link to the page, which a person follows; nothing else may be opened so.
  const std::string link =
      "Host: localhost:8080\r\nSec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: navigate\r\n";
  EXPECT_EQ(asked(link + "Sec-Fetch-Dest: document\r\n", "GET", "/"), 200);
  EXPECT_EQ(asked(link + "Sec-Fetch-Dest: iframe\r\n", "GET", "/"), 403);
  EXPECT_EQ(asked(link + "Sec-Fetch-Dest: document\r\n", "GET", "/v1/status"), 403);
  EXPECT_EQ(asked(link + "Sec-Fetch-Dest: document\r\nOrigin: null\r\n", "POST", "/"), 403);
}

// Hosts and browsers' marks, each with each. Programs may call the socket anything that is no name
// of the world's.
TEST_F(ControlTest, IsNoHandOfOtherSitesHoweverTheyCallIt) {
  proxy::Server server(house_.io.get_executor(),
                       {.connections = 10, .connection = {.body_bytes = 1000}}, control_,
                       house_.store.disk_pool());
  server.listen(*proxy::ListenAddress::parse("127.0.0.1:0"), 0);
  server.start();
  struct Asked {
    std::string method, target;
    int status;  // for who is welcome
  };
  const std::vector<Asked> asked = {{"GET", "/v1/status", 200},
                                    {"HEAD", "/", 200},
                                    {"POST", "/v1/reload", 200},
                                    {"OPTIONS", "/v1/status", 405}};
  std::vector<std::string> methods;
  for (const Asked& one : asked) methods.push_back(one.method);
  for (const fake::WebCaller& caller : fake::web_callers()) {
    std::string text;
    for (const Asked& one : asked) {
      text += one.method + " " + one.target + " HTTP/1.1\r\n" + caller.fields;
      text += &one == &asked.back() ? "Connection: close\r\n\r\n" : "\r\n";
    }
    const Answer all = house_.run(house_.ask_at(server.addresses().front(), text));
    const auto answers = fake::answers_in(all.head + "\r\n" + all.body, methods);
    ASSERT_EQ(answers.size(), caller.is_well_formed ? asked.size() : 1) << caller.fields;
    const bool welcome = (caller.is_loopback || !caller.has_dot) && !caller.is_cross_site;
    for (std::size_t i = 0; i < answers.size(); ++i) {
      const int expected = !caller.is_well_formed ? 400 : welcome ? asked[i].status : 403;
      ASSERT_EQ(answers[i].status, expected) << asked[i].target << '\n' << caller.fields;
      ASSERT_EQ(answers[i].head.find("Access-Control"), std::string::npos);
    }
  }
  house_.run(server.stop());
}

TEST_F(ControlTest, TellsTheEffectiveConfiguration) {
  const auto answer = boost::json::parse(get("/v1/config").body).as_object();
  EXPECT_TRUE(parse_config(std::string_view(answer.at("toml").as_string()), "x", Environment()));
  EXPECT_TRUE(answer.at("json").is_object());
}

TEST_F(ControlTest, IsReadyOnlyWhileServing) {
  EXPECT_EQ(get("/readyz").status, 503);
  control_.set_state(Control::State::ready);
  EXPECT_EQ(get("/readyz").status, 200);
  control_.set_state(Control::State::draining);
  EXPECT_EQ(get("/readyz").status, 503);
}

// Of a chunked body; each chunk is a line.
std::vector<boost::json::object> lines_of(const std::string& body) {
  std::vector<boost::json::object> lines;
  std::istringstream stream(body);
  for (std::string line; std::getline(stream, line);)
    if (line.starts_with('{')) lines.push_back(boost::json::parse(line).as_object());
  return lines;
}

TEST_F(ControlTest, VerifiesEverythingAndNamesWhatIsDamaged) {
  const auto good = house_.play_blob("app", "some bytes");
  const auto damaged = house_.play_blob("app", "other bytes");
  for (const auto& digest : {good, damaged})
    house_.get("/v2/r.example/app/blobs/" + digest.to_string());
  // A reader has its bytes a little before they are stored.
  house_.run_until_true([this] { return house_.store.stats().blobs == 2; });
  const auto path =
      cache::Layout(house_.store.directory()).object(cache::ObjectKind::blob, damaged);
  std::ofstream(path) << "Other bytes";
  const std::string post =
      "POST /v1/verify HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}";
  const Answer answer = ask(post);
  ASSERT_EQ(answer.status, 200);
  auto last = lines_of(answer.body).back();
  EXPECT_TRUE(last.at("done").as_bool());
  EXPECT_EQ(last.at("objects").to_number<int>(), 2);
  EXPECT_EQ(last.at("total_objects").to_number<int>(), 2);
  EXPECT_EQ(last.at("bytes").to_number<int>(), 21);
  EXPECT_EQ(last.at("damaged").to_number<int>(), 1);
  EXPECT_EQ(last.at("damaged_digests"), (boost::json::array{damaged.to_string()}));
  EXPECT_EQ(last.at("unreadable_digests"), boost::json::array());
  EXPECT_EQ(house_.store.stats().quarantined, 1U);
  last = lines_of(ask(post).body).back();
  EXPECT_EQ(last.at("objects").to_number<int>(), 1);
  EXPECT_EQ(last.at("damaged").to_number<int>(), 0);
  EXPECT_EQ(get("/v1/verify").status, 405);
}

TEST_F(ControlTest, SaysWhatItDoesNotOffer) {
  EXPECT_EQ(get("/v1/nothing").status, 404);
  EXPECT_EQ(ask("POST /v1/nothing HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: "
                "2\r\n\r\n{}")
                .status,
            405);
}

}  // namespace
}  // namespace staithe::daemon
