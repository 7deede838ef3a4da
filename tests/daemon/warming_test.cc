// Warming over a played upstream, with the real store and the real control socket's handler.
#include "daemon/warming.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <boost/json.hpp>
#include <string>
#include <vector>

#include "daemon/standing_warm.h"
#include "daemon/warm_control.h"
#include "tests/fake/house.h"

namespace staithe::daemon {
namespace {

namespace json = boost::json;
using fake::House;
using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using testing::SizeIs;

constexpr const char* manifest_type = "application/vnd.oci.image.manifest.v1+json";
constexpr const char* index_type = "application/vnd.oci.image.index.v1+json";

std::string descriptor(const cache::Digest& digest, std::size_t size,
                       const std::string& more = {}) {
  return R"({"digest":")" + digest.to_string() + R"(","size":)" + std::to_string(size) + more + "}";
}

class WarmerTest : public testing::Test {
 protected:
  explicit WarmerTest(cache::Size max_size = {.bytes = 1 << 30}) : house_(max_size) {}

  // Plays a manifest with these layers; gives its digest.
  cache::Digest play(const std::string& repository, const std::string& tag,
                     const std::vector<std::string>& layers) {
    std::string list;
    for (const std::string& layer : layers)
      list +=
          (list.empty() ? "" : ",") + descriptor(house_.play_blob(repository, layer), layer.size());
    return play_document(repository, tag, manifest_type, R"("layers":[)" + list + "]");
  }
  cache::Digest play_document(const std::string& repository, const std::string& tag,
                              const std::string& type, const std::string& content) {
    const std::string text = R"({"schemaVersion":2,"mediaType":")" + type + R"(",)" + content + "}";
    const auto digest = cache::digest_of(cache::Algorithm::sha256, text);
    for (const std::string& reference : {tag, digest.to_string()}) {
      if (reference.empty()) continue;
      house_.upstream.on(
          "https://r.example/v2/" + repository + "/manifests/" + reference,
          [=](const fake::Asked& asked) {
            return fake::Reply{
                .status = 200,
                .headers = {{"Content-Type", type}, {"Docker-Content-Digest", digest.to_string()}},
                .body = asked.method == "HEAD" ? "" : text};
          });
    }
    return digest;
  }
  Warmer::Order order(const std::vector<std::string>& names, const std::string& platform = "all") {
    Warmer::Order order{.asker = "request", .images = {}, .platform = {}};
    for (const std::string& name : names) order.images.push_back(*parse_image_name(name));
    order.platform = *parse_platform_choice(platform);
    return order;
  }
  asio::awaitable<void> note(json::object line) {
    lines_.push_back(std::move(line));
    co_return;
  }
  // Gives the sum.
  json::object warm(const std::vector<std::string>& names, const std::string& platform = "all") {
    lines_.clear();
    house_.run(warmer_.run(order(names, platform),
                           [this](json::object line) { return note(std::move(line)); }));
    EXPECT_THAT(lines_, Not(IsEmpty()));
    return lines_.back();
  }
  // "image r.example/app:1 done" of each line.
  std::vector<std::string> events(const std::string& kind) const {
    std::vector<std::string> texts;
    for (const json::object& line : lines_)
      if (line.at("kind").as_string() == kind && line.at("state").as_string() != "fetching")
        texts.push_back(std::string(line.at("image").as_string()) + " " +
                        std::string(line.at("state").as_string()));
    return texts;
  }
  static std::string error_of(const json::object& sum) {
    return sum.at("errors").as_array().empty()
               ? ""
               : std::string(sum.at("errors").at(0).at("error").as_string());
  }

  House house_;
  Warmer warmer_{{.clock = house_.clock,
                  .store = house_.store,
                  .registries = house_.registries,
                  .proxy = house_.proxy,
                  .fills = house_.fills}};
  std::vector<json::object> lines_;
};

TEST_F(WarmerTest, BringsEverythingThatAnImageNeeds) {
  play("app", "1", {"layer one", "layer two"});
  const json::object sum = warm({"r.example/app:1"});
  EXPECT_EQ(sum.at("failed"), 0);
  EXPECT_EQ(sum.at("blobs"), 2);
  EXPECT_EQ(sum.at("bytes_fetched"), 18);
  EXPECT_THAT(events("blob"), ElementsAre("r.example/app:1 done", "r.example/app:1 done"));
  EXPECT_THAT(events("image"), ElementsAre("r.example/app:1 done"));
  for (const char* layer : {"layer one", "layer two"})
    EXPECT_TRUE(house_.store.object(cache::digest_of(cache::Algorithm::sha256, layer)));
}

TEST_F(WarmerTest, FetchesNothingTwice) {
  play("app", "1", {"layer one"});
  warm({"r.example/app:1"});
  const json::object sum = warm({"r.example/app:1", "r.example/app:1"});
  EXPECT_EQ(sum.at("bytes_fetched"), 0);
  EXPECT_THAT(events("image"), Contains("r.example/app:1 cached"));
  EXPECT_EQ(house_.upstream_gets(cache::digest_of(cache::Algorithm::sha256, "layer one")), 1u);
}

// A digest that one repository shows is no right of another: upstream is asked for each.
TEST_F(WarmerTest, ASharedLayerIsFetchedOnceAndProvedForEachRepository) {
  play("a", "1", {"shared bytes"});
  play("b", "1", {"shared bytes"});
  const json::object sum = warm({"r.example/a:1", "r.example/b:1"});
  EXPECT_EQ(sum.at("failed"), 0);
  const auto digest = cache::digest_of(cache::Algorithm::sha256, "shared bytes");
  EXPECT_EQ(house_.upstream_gets(digest), 1u);
  EXPECT_EQ(sum.at("bytes_fetched"), 12);
  EXPECT_TRUE(house_.store.link_age("r.example/a", digest));
  EXPECT_TRUE(house_.store.link_age("r.example/b", digest));
}

TEST_F(WarmerTest, WalksAnIndexToTheManifestsOfAPlatform) {
  const auto amd64 = play("app", "", {"for amd64"});
  const auto arm64 = play("app", "", {"for arm64"});
  play_document(
      "app", "1", index_type,
      R"("manifests":[)" +
          descriptor(amd64, 9, R"(,"platform":{"os":"linux","architecture":"amd64"})") + "," +
          descriptor(arm64, 9, R"(,"platform":{"os":"linux","architecture":"arm64"})") + "]");
  warm({"r.example/app:1"}, "linux/arm64");
  EXPECT_TRUE(house_.store.has_manifest(arm64));
  EXPECT_FALSE(house_.store.has_manifest(amd64));
  EXPECT_FALSE(house_.store.object(cache::digest_of(cache::Algorithm::sha256, "for amd64")));
  const json::object none = warm({"r.example/app:1"}, "windows/amd64");
  EXPECT_THAT(error_of(none), HasSubstr("it is there for linux/amd64, linux/arm64"));
  EXPECT_EQ(warm({"r.example/app:1"}).at("failed"), 0);
  EXPECT_TRUE(house_.store.has_manifest(amd64));
}

TEST_F(WarmerTest, AnImageThatFailsNamesItsCauseAndTheOthersGoOn) {
  play("app", "1", {"layer one"});
  // Upstream shows this manifest, and not its layer.
  play_document("bad", "1", manifest_type,
                R"("layers":[)" + descriptor(cache::digest_of(cache::Algorithm::sha256, "x"), 1) +
                    "," + descriptor(cache::digest_of(cache::Algorithm::sha256, "y"), 1) + "]");
  house_.upstream.on("https://r.example/v2/bad/blobs/",
                     [](const fake::Asked&) { return fake::Reply{.status = 404}; });
  const json::object sum = warm({"r.example/bad:1", "no.example/app:1", "r.example/app:1"});
  EXPECT_EQ(sum.at("failed"), 2);
  EXPECT_THAT(sum.at("errors").as_array(), SizeIs(2));
  EXPECT_THAT(error_of(sum), HasSubstr("blob sha256:"));
  EXPECT_EQ(sum.at("errors").at(1).at("image").as_string(), "no.example/app:1");
  EXPECT_THAT(events("image"), Contains("r.example/app:1 done"));
  // Its second layer is of no use then.
  EXPECT_EQ(house_.upstream_gets(cache::digest_of(cache::Algorithm::sha256, "y")), 0u);
}

TEST_F(WarmerTest, StandsBackWhileAClientPulls) {
  play("app", "1", {"layer one", "layer two"});
  fake::Gate gate(house_.io.get_executor());
  const auto wanted = cache::digest_of(cache::Algorithm::sha256, "a client's");
  house_.upstream.on("https://r.example/v2/other/blobs/" + wanted.to_string(),
                     [&gate](const fake::Asked&) {
                       return fake::Reply{.status = 200,
                                          .headers = {{"Content-Length", "10"}},
                                          .body = "a client's",
                                          .gate = &gate};
                     });
  bool pulled = false;
  asio::co_spawn(house_.io,
                 house_.ask("GET /v2/r.example/other/blobs/" + wanted.to_string() +
                            " HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"),
                 [&](std::exception_ptr, fake::Answer) { pulled = true; });
  house_.run_until_true([&] { return gate.waiting() > 0; });
  bool warmed = false;
  asio::co_spawn(house_.io,
                 warmer_.run(order({"r.example/app:1"}),
                             [this](json::object line) { return note(std::move(line)); }),
                 [&](std::exception_ptr) { warmed = true; });
  house_.run_until_true(
      [&] { return !lines_.empty() && lines_.back().at("kind").as_string() == "waiting"; });
  const auto gets = [&](std::string_view layer) {
    return house_.upstream_gets(cache::digest_of(cache::Algorithm::sha256, layer));
  };
  EXPECT_EQ(gets("layer one") + gets("layer two"), 0u);
  EXPECT_EQ(warmer_.running().at(0).at("waits_for_client_fills"), 1);
  // Not for ever: on a machine that never stops pulling it would never end.
  const Instant waiting_since = house_.clock.now();
  house_.run_until_true([&] { return gets("layer one") > 0; });
  EXPECT_GT(house_.clock.now() - waiting_since, std::chrono::seconds(4));
  EXPECT_EQ(gets("layer two"), 0u) << "one at a time";
  house_.run_until_true([&] { return gets("layer two") > 0; });
  EXPECT_GT(house_.clock.now() - waiting_since, std::chrono::seconds(8));
  EXPECT_FALSE(pulled);
  gate.open();
  house_.run_until_true([&] { return pulled && warmed; });
  EXPECT_EQ(lines_.back().at("failed"), 0);
  EXPECT_THAT(warmer_.running(), IsEmpty());
}

TEST_F(WarmerTest, EndsWhenTheDaemonStopsOrItsClientLeaves) {
  play("app", "1", {"layer one"});
  EXPECT_THROW(house_.run(warmer_.run(order({"r.example/app:1"}),
                                      [](json::object) -> asio::awaitable<void> {
                                        throw std::runtime_error("the client is gone");
                                        co_return;
                                      })),
               std::runtime_error);
  EXPECT_THAT(warmer_.running(), IsEmpty());
  EXPECT_EQ(warm({"r.example/app:1"}).at("failed"), 0);
  warmer_.stop();
  EXPECT_THROW(house_.run(warmer_.run(order({"r.example/app:1"}),
                                      [this](json::object line) { return note(std::move(line)); })),
               Failure);
}

// The transfer that it has left behind is its own, not a client's to stand back for.
TEST_F(WarmerTest, TheNextWarmJoinsWhatAnInterruptedOneHasBegun) {
  play("app", "1", {"layer one"});
  const auto layer = cache::digest_of(cache::Algorithm::sha256, "layer one");
  // It breaks off in the middle, and the rest waits.
  fake::Gate gate(house_.io.get_executor());
  house_.upstream.on("https://r.example/v2/app/blobs/" + layer.to_string(),
                     [&gate, times = 0](const fake::Asked& asked) mutable {
                       fake::Reply reply = House::blob_reply(asked, "layer one");
                       if (++times == 1) {
                         reply.breaks_after = 5;
                       } else {
                         reply.gate = &gate;
                       }
                       return reply;
                     });
  EXPECT_THROW(house_.run(warmer_.run(order({"r.example/app:1"}),
                                      [](json::object line) -> asio::awaitable<void> {
                                        if (line.at("kind").as_string() != "image")
                                          throw std::runtime_error("the client is gone");
                                        co_return;
                                      })),
               std::runtime_error);
  EXPECT_TRUE(house_.fills.under_way(layer));
  bool warmed = false;
  asio::co_spawn(house_.io,
                 warmer_.run(order({"r.example/app:1"}),
                             [this](json::object line) { return note(std::move(line)); }),
                 [&](std::exception_ptr) { warmed = true; });
  house_.run_until_true(
      [&] { return !lines_.empty() && lines_.back().at("kind").as_string() != "image"; });
  EXPECT_EQ(lines_.back().at("kind").as_string(), "blob");
  gate.open();
  house_.run_until_true([&] { return warmed; });
  EXPECT_EQ(lines_.back().at("failed"), 0);
  EXPECT_THAT(events("blob"), ElementsAre("r.example/app:1 done"));
}

TEST_F(WarmerTest, AManifestThatGoesDownForEverIsRefused) {
  cache::Digest below = play("app", "", {"layer"});
  for (int i = 0; i < 6; ++i)
    below = play_document("app", i == 5 ? "1" : "", index_type,
                          R"("manifests":[)" + descriptor(below, 1) + "]");
  EXPECT_THAT(error_of(warm({"r.example/app:1"})), HasSubstr("is no image"));
}

class SmallCacheTest : public WarmerTest {
 protected:
  SmallCacheTest() : WarmerTest({.bytes = 8 << 20}) {}
};

TEST_F(SmallCacheTest, WhatHasNoRoomIsRefusedBeforeAnythingIsFetched) {
  play("a", "1", {std::string(5 << 20, 'a')});
  play("b", "1", {std::string(5 << 20, 'b')});
  const json::object sum = warm({"r.example/a:1", "r.example/b:1"});
  EXPECT_EQ(sum.at("failed"), 1);
  EXPECT_THAT(error_of(sum), HasSubstr("r.example/b:1 takes 5.0 MiB more"));
  EXPECT_THAT(error_of(sum), HasSubstr("raise cache.max_size"));
  EXPECT_THAT(events("image"), ElementsAre("r.example/b:1 failed", "r.example/a:1 done"));
}

TEST(WarmOrder, IsReadStrictly) {
  const auto order =
      parse_warm_order(R"({"images":["busybox","docker.io/busybox:latest","r.example/a"],)"
                       R"("platform":"all"})");
  ASSERT_TRUE(order) << order.error().detail;
  EXPECT_THAT(order->images, SizeIs(2));  // two of them are one image
  EXPECT_FALSE(order->platform.platform);
  EXPECT_EQ(*parse_warm_order(R"({"images":["a"]})")->platform.platform, own_platform());
  for (const char* body :
       {"", "[]", "{}", R"({"images":"a"})", R"({"images":[]})", R"({"images":[1]})",
        R"({"images":["a b"]})", R"({"images":["a"],"platform":"x"})",
        R"({"images":["a"],"platform":1})", R"({"images":["a"],"more":1})"})
    EXPECT_FALSE(parse_warm_order(body)) << body;
}

TEST(WarmPause, GrowsToAnHourAndIsNeverTheSame) {
  using namespace std::chrono_literals;
  EXPECT_EQ(warm_pause(1, 1), 30s);
  EXPECT_EQ(warm_pause(1, 0), 15s);
  EXPECT_EQ(warm_pause(2, 1), 60s);
  EXPECT_EQ(warm_pause(100, 1), 1h);
  for (int failures = 1; failures < 50; ++failures)
    EXPECT_LE(warm_pause(failures, 0.5), warm_pause(failures + 1, 0.5));
}

class StandingWarmTest : public WarmerTest {
 protected:
  SeededRandom random_{1};
  StandingWarm standing_{house_.io.get_executor(),
                         {.clock = house_.clock, .random = random_, .warmer = warmer_},
                         {.images = {"r.example/app:1"}, .platform = "all"}};
};

TEST_F(StandingWarmTest, WarmsWhatIsConfiguredAndWhatAReloadAdds) {
  play("app", "1", {"layer one"});
  play("app", "2", {"layer two"});
  bool ended = false;
  asio::co_spawn(house_.io, standing_.run(), [&](std::exception_ptr) { ended = true; });
  house_.run_until_true([&] { return standing_.status().at("warm") == 1; });
  standing_.set(
      {.images = {"r.example/app:1", "r.example/app:2", "r.example/app:2"}, .platform = "all"});
  house_.run_until_true([&] { return standing_.status().at("warm") == 2; });
  EXPECT_EQ(house_.upstream_gets(cache::digest_of(cache::Algorithm::sha256, "layer one")), 1u);
  warmer_.stop();
  standing_.set({.images = {"r.example/app:3"}, .platform = "all"});
  house_.run_until_true([&] { return ended; });
}

TEST_F(StandingWarmTest, TellsWhatFailedAndWhenItTriesAgain) {
  house_.upstream.on("https://r.example/v2/app/manifests/",
                     [](const fake::Asked&) { return fake::Reply{.status = 404}; });
  bool ended = false;
  asio::co_spawn(house_.io, standing_.run(), [&](std::exception_ptr) { ended = true; });
  house_.run_until_true([&] { return !standing_.status().at("next_try_in_seconds").is_null(); });
  EXPECT_EQ(standing_.status().at("failed"), 1);
  EXPECT_THAT(std::string(standing_.status().at("errors").at(0).at("error").as_string()),
              HasSubstr("manifest 1 of r.example/app"));
  // Another list is warmed at once, not after the pause.
  play("app", "2", {"layer two"});
  standing_.set({.images = {"r.example/app:2"}, .platform = "all"});
  house_.run_until_true([&] { return standing_.status().at("warm") == 1; });
  EXPECT_EQ(standing_.status().at("failed"), 0);
  warmer_.stop();
  standing_.set({.images = {"r.example/app:3"}, .platform = "all"});
  house_.run_until_true([&] { return ended; });
}

}  // namespace
}  // namespace staithe::daemon
