#include "proxy/upstream_meter.h"

#include <gtest/gtest.h>

#include <set>

#include "tests/fake/house.h"

namespace staithe::proxy {
namespace {

using fake::Asked;
using fake::Reply;

TEST(CodeLabel, IsTheStatusOrItsClass) {
  EXPECT_EQ(code_label(200), "200");
  EXPECT_EQ(code_label(429), "429");
  EXPECT_EQ(code_label(418), "4xx");
  EXPECT_EQ(code_label(0), "none");
  EXPECT_EQ(code_label(999), "other");
  std::set<std::string_view> all;
  for (int status = 0; status < 1000; ++status) all.insert(code_label(status));
  EXPECT_LE(all.size(), 30U) << "no server can make labels";
}

TEST(UpstreamKind, IsWhatIsAskedFor) {
  EXPECT_EQ(upstream_kind_of("manifests/latest"), UpstreamKind::manifest);
  EXPECT_EQ(upstream_kind_of("blobs/sha256:00"), UpstreamKind::blob);
  EXPECT_EQ(upstream_kind_of("tags/list?n=1"), UpstreamKind::tags);
  EXPECT_EQ(upstream_kind_of("referrers/sha256:00"), UpstreamKind::referrers);
}

TEST(UpstreamMeters, KeepTheirCountsWhateverBecomesOfTheUpstreams) {
  UpstreamMeters meters;
  {
    const auto meter = meters.of("r.example");
    meter->note(UpstreamKind::blob, 206);
    meter->note_bytes(10);
    meters.tokens_of("r.example")->note(auth::Kind::refresh, true);
  }
  const UpstreamMeter& meter = *meters.all().at("r.example");
  EXPECT_EQ(meter.requests().at({UpstreamKind::blob, "206"}), 1U);
  EXPECT_EQ(meter.bytes(), 10U);
  EXPECT_EQ(meter.tokens().fetched(auth::Kind::refresh), 1U);
  EXPECT_EQ(meter.tokens().failed(auth::Kind::refresh), 0U);
}

// Through the whole way that a request takes upstream.
class MeteredUpstream : public testing::Test {
 protected:
  MeteredUpstream()
      : upstream(io.get_executor(),
                 {.base = *Url::parse("https://r.example"),
                  .prefix = {},
                  .ca_file = {},
                  .redirects = {.registry = Url::parse("https://r.example")->origin(),
                                .data_hosts = {"data.example"},
                                .acr_suffixes = {}},
                  .limits = {},
                  .meter = meter},
                 std::make_unique<fake::NoCredentials>(), http, clock) {}

  // The answer's body, or why there is none.
  std::string ask(const std::string& what, bool patient = true) {
    std::string told = "waits";
    asio::co_spawn(io, read(what, patient), [&](std::exception_ptr error, std::string text) {
      told = std::move(text);
      try {
        if (error) std::rethrow_exception(error);
      } catch (const std::exception& e) {
        told = e.what();
      }
    });
    clock.settle();
    return told;
  }
  asio::awaitable<std::string> read(std::string what, bool patient) {
    const auto response =
        co_await upstream.send({.repository = "app", .what = what, .patient = patient});
    co_return co_await read_all(*response, 1000);
  }
  std::uint64_t count(UpstreamKind kind, std::string_view code) {
    const auto found = meter->requests().find({kind, code});
    return found == meter->requests().end() ? 0 : found->second;
  }

  asio::io_context io;
  fake::ManualClock clock{io};
  fake::FakeHttpClient http{clock};
  std::shared_ptr<UpstreamMeter> meter = std::make_shared<UpstreamMeter>();
  Upstream upstream;
};

TEST_F(MeteredUpstream, CountsWhatWasSentAndReceived) {
  http.on("https://r.example/v2/app/blobs/",
          {Reply{.status = 307, .headers = {{"Location", "https://data.example/x"}}}});
  http.on("https://data.example/x", {Reply{.status = 200, .body = "ten bytes!"}});
  http.on("https://r.example/v2/app/manifests/",
          {Reply::failure(Errc::denied, "refused by the network")});
  EXPECT_EQ(ask("blobs/sha256:0"), "ten bytes!");
  ask("manifests/1");
  EXPECT_EQ(count(UpstreamKind::blob, "307"), 1U);
  EXPECT_EQ(count(UpstreamKind::blob, "200"), 1U);
  EXPECT_EQ(count(UpstreamKind::manifest, "none"), 1U);
  EXPECT_EQ(meter->bytes(), 10U);
}

TEST_F(MeteredUpstream, CountsTheSecondsThatUpstreamAsksFor) {
  http.on("https://r.example/v2/app/manifests/",
          {Reply{.status = 429, .headers = {{"Retry-After", "40"}}}});
  ask("manifests/1", false);
  EXPECT_EQ(count(UpstreamKind::manifest, "429"), 1U);
  EXPECT_GE(meter->paused(), std::chrono::seconds(40));
  EXPECT_LT(meter->paused(), std::chrono::seconds(45));
  const auto before = meter->paused();
  ask("manifests/1", false);
  EXPECT_EQ(meter->paused(), before) << "nobody asked within the pause";
}

}  // namespace
}  // namespace staithe::proxy
