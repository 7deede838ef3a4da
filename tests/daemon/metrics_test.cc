#include "daemon/metrics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "daemon/metric_text.h"
#include "daemon/metrics_door.h"
#include "daemon/status_page.h"
#include "tests/fake/house.h"
#include "tests/fake/metrics.h"
#include "tests/fake/web_callers.h"

namespace staithe::daemon {
namespace {

using testing::HasSubstr;

using fake::Answer;
using fake::Asked;
using fake::House;
using fake::Metrics;
using fake::Reply;

class MetricsTest : public testing::Test {
 protected:
  MetricsTest() {
    house_.run(access_.load({}));
    house_.upstream.on("https://r.example/v2/app/manifests/", [this](const Asked& asked) {
      return Reply{.status = 200,
                   .headers = {{"Content-Type", "application/vnd.oci.image.manifest.v1+json"},
                               {"Docker-Content-Digest", digest_.to_string()}},
                   .body = asked.method == "HEAD" ? "" : bytes_};
    });
    door_.admit(proxy::HostPolicy({}, {}));
  }

  Metrics metrics() { return Metrics(metrics_text(sources_)); }

  Answer ask(const std::string& method, const std::string& target,
             const std::string& fields = "Host: localhost\r\n") {
    proxy::Server server(house_.io.get_executor(), {.connections = 10, .connection = {}}, door_,
                         house_.store.disk_pool());
    server.listen(*proxy::ListenAddress::parse("127.0.0.1:0"), 0);
    server.start();
    Answer answer = house_.run(house_.ask_at(
        server.addresses().front(),
        method + " " + target + " HTTP/1.1\r\n" + fields + "Connection: close\r\n\r\n"));
    house_.run(server.stop());
    return answer;
  }

  House house_;
  const std::string bytes_ = R"({"schemaVersion":2})";
  const cache::Digest digest_ = cache::digest_of(cache::Algorithm::sha256, bytes_);
  TaskGroup tasks_{house_.io.get_executor(), [](std::string_view, std::string_view) {}};
  Access access_{house_.io.get_executor(), house_.clock, tasks_, ::geteuid()};
  proxy::UpstreamMeters upstreams_;
  MetricSources sources_{.store = house_.store,
                         .proxy = house_.proxy,
                         .registries = house_.registries,
                         .fills = house_.fills,
                         .upstreams = upstreams_,
                         .access = access_,
                         .connections = [this] { return house_.server().figures(); },
                         .started = house_.clock.wall()};
  bool ready_ = true;
  MetricsDoor door_{{.metrics = sources_,
                     .is_ready = [this] { return ready_; },
                     .clock = house_.clock,
                     .status = [] { return boost::json::object{{"state", "ready"}}; }}};
};

TEST_F(MetricsTest, AreReadableBeforeAnythingHasHappened) {
  const Metrics all = metrics();
  EXPECT_EQ(all.families().size(), metric_table().size());
  EXPECT_EQ(all.value("staithe_build_info", {{"version", STAITHE_VERSION}}), 1);
  EXPECT_EQ(all.value("staithe_cache_mode", {{"mode", "read-write"}}), 1);
  EXPECT_EQ(all.sum("staithe_cache_mode"), 1);
  // What an alert looks at has a series from the start.
  EXPECT_TRUE(all.has("staithe_evictions_total", {{"reason", "max_size"}}));
  EXPECT_TRUE(all.has("staithe_denied_total", {{"reason", "user"}}));
  EXPECT_TRUE(all.has("staithe_denied_total", {{"reason", "unknown"}}));
  EXPECT_TRUE(all.has("staithe_quarantined_total"));
  EXPECT_GT(all.value("process_resident_memory_bytes"), 1e6);
  EXPECT_GT(all.value("process_start_time_seconds"), 1.7e9);
}

TEST_F(MetricsTest, CountWhatWasAnsweredAlsoAtTheFront) {
  const std::string target = "/v2/app/manifests/" + digest_.to_string();
  for (int i = 0; i < 2; ++i) ASSERT_EQ(house_.get(target).status, 200);
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(house_.get_kept(target).ends_with(bytes_));
  const Metrics all = metrics();
  EXPECT_EQ(all.value("staithe_requests_total",
                      {{"registry", "r.example"}, {"kind", "manifest"}, {"result", "hit"}}),
            4);
  EXPECT_EQ(all.sum("staithe_requests_total"), 5);
  EXPECT_EQ(all.value("staithe_bytes_served_total", {{"source", "cache"}}), 4.0 * bytes_.size());
  EXPECT_EQ(all.value("staithe_bytes_served_total", {{"source", "upstream"}}), bytes_.size());
  EXPECT_EQ(all.value("staithe_cache_manifests"), 1);
  EXPECT_EQ(all.value("staithe_upstream_state", {{"registry", "r.example"}, {"state", "ok"}}), 1);
}

TEST_F(MetricsTest, TellOfTlsWhereItIsSpoken) {
  EXPECT_FALSE(metrics().has("staithe_tls_certificate_expiry_seconds"));
  sources_.tls = [] {
    return TlsState{.file = "/x.pem",
                    .expires_in = std::chrono::seconds(-5),
                    .figures = {.handshakes = 7, .failed = 2}};
  };
  const Metrics all = metrics();
  EXPECT_EQ(all.value("staithe_tls_certificate_expiry_seconds"), -5);
  EXPECT_EQ(all.value("staithe_tls_handshakes_total", {{"result", "ok"}}), 7);
  EXPECT_EQ(all.value("staithe_tls_handshakes_total", {{"result", "error"}}), 2);
}

TEST_F(MetricsTest, NeverFallAcrossAReload) {
  house_.get("/v2/app/manifests/1");
  house_.get("/v2/r.example/app/manifests/" + digest_.to_string());
  const auto before = metrics().counters();
  proxy::RegistrySettings other;
  other.name = "other.example";
  house_.registries.replace({other}, false);
  const Metrics after = metrics();
  for (const auto& [key, value] : before)
    EXPECT_GE(after.value(key.first, key.second), value) << key.first;
  EXPECT_FALSE(after.has("staithe_upstream_state", {{"registry", "r.example"}, {"state", "ok"}}))
      << "what is measured now is of the registries that there are now";
}

TEST_F(MetricsTest, HaveNoLabelThatAClientHasMade) {
  for (int i = 0; i < 50; ++i) {
    const std::string name = "evil" + std::to_string(i);
    house_.get("/v2/" + name + ".example/app/manifests/" + name);
    house_.get("/v2/r.example/" + name + "/manifests/" + name);
    house_.get("/v2/app/" + name, "User-Agent: " + name + "\r\n");
  }
  const std::string text = metrics_text(sources_);
  EXPECT_EQ(text.find("evil"), text.npos);
  EXPECT_LE(Metrics(text).values_of("registry").size(), 2U);
}

TEST_F(MetricsTest, AreServedAtTheirAddressWithNothingBeside) {
  const Answer answer = ask("GET", "/metrics");
  EXPECT_EQ(answer.status, 200);
  EXPECT_EQ(answer.field("Content-Type"), "text/plain; version=0.0.4; charset=utf-8");
  EXPECT_EQ(Metrics(answer.body).families().size(), metric_table().size());
  EXPECT_TRUE(answer.complete);
  const Answer head = ask("HEAD", "/metrics");
  EXPECT_EQ(head.status, 200);
  EXPECT_TRUE(head.body.empty());
  EXPECT_EQ(ask("GET", "/metrics?name=x").status, 200);
  for (const char* target : {"/v1/status", "/v1/registries", "/v1/credentials", "/v2/",
                             "/v1/config", "/metrics/", "/nothing"}) {
    EXPECT_EQ(ask("GET", target).status, 404) << target;
  }
  for (const char* target : {"/v1/reload", "/v1/purge", "/metrics"})
    EXPECT_EQ(ask("POST", target).status, 405) << target;
  const Answer page = ask("GET", "/");
  EXPECT_EQ(page.status, 200);
  EXPECT_EQ(page.field("Content-Security-Policy"), status_page_policy());
  EXPECT_THAT(page.body, HasSubstr("ready"));
}

TEST_F(MetricsTest, SayAtTheirAddressWhetherTheDaemonIsReady) {
  EXPECT_EQ(ask("GET", "/healthz").status, 200);
  EXPECT_EQ(ask("GET", "/readyz").status, 200);
  ready_ = false;
  EXPECT_EQ(ask("GET", "/healthz").status, 200);
  EXPECT_EQ(ask("GET", "/readyz").status, 503);
}

TEST_F(MetricsTest, AreNotForWebPages) {
  EXPECT_EQ(ask("GET", "/metrics", "Host: evil.example\r\n").status, 403);
  EXPECT_EQ(ask("GET", "/metrics", "Host: localhost\r\nOrigin: http://evil.example\r\n").status,
            403);
  EXPECT_EQ(ask("GET", "/metrics", "Host: 127.0.0.1:9464\r\n").status, 200);
}

// Hosts and browsers' marks, each with each, at all that the metrics address has.
TEST_F(MetricsTest, AreNotForOtherSitesPages) {
  proxy::Server server(house_.io.get_executor(), {.connections = 10, .connection = {}}, door_,
                       house_.store.disk_pool());
  server.listen(*proxy::ListenAddress::parse("127.0.0.1:0"), 0);
  server.start();
  const std::vector<std::string> methods = {"GET", "HEAD", "OPTIONS", "POST"};
  const std::vector<std::string> targets = {"/metrics", "/healthz", "/readyz", "/"};
  std::vector<std::string> asked;
  for (std::size_t i = 0; i < targets.size(); ++i)
    asked.insert(asked.end(), methods.begin(), methods.end());
  for (const fake::WebCaller& caller : fake::web_callers()) {
    std::string text;
    for (std::size_t i = 0; i < asked.size(); ++i) {
      text += asked[i] + " " + targets[i / methods.size()] + " HTTP/1.1\r\n" + caller.fields;
      text += i + 1 == asked.size() ? "Connection: close\r\n\r\n" : "\r\n";
    }
    const Answer all = house_.run(house_.ask_at(server.addresses().front(), text));
    const auto answers = fake::answers_in(all.head + "\r\n" + all.body, asked);
    ASSERT_EQ(answers.size(), caller.is_well_formed ? asked.size() : 1) << caller.fields;
    for (std::size_t i = 0; i < answers.size(); ++i) {
      const bool reads = asked[i] == "GET" || asked[i] == "HEAD";
      const bool welcome = caller.is_loopback && !caller.is_cross_site;
      const int expected = !caller.is_well_formed ? 400 : !welcome ? 403 : reads ? 200 : 405;
      ASSERT_EQ(answers[i].status, expected) << asked[i] << '\n' << caller.fields;
      ASSERT_EQ(answers[i].head.find("Access-Control"), std::string::npos);
      if (expected != 200) ASSERT_EQ(answers[i].body.find("staithe_"), std::string::npos);
    }
  }
  house_.run(server.stop());
}

}  // namespace
}  // namespace staithe::daemon
