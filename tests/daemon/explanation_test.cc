// What is told of an image, over the real store and a played upstream.
#include "daemon/explanation.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <boost/json.hpp>
#include <string>
#include <vector>

#include "daemon/platform.h"
#include "tests/fake/house.h"

namespace staithe::daemon {
namespace {

namespace json = boost::json;
using fake::House;
using testing::ElementsAre;
using testing::IsEmpty;

constexpr const char* manifest_type = "application/vnd.oci.image.manifest.v1+json";

class ExplainerTest : public testing::Test {
 protected:
  // Plays an image with these blobs; gives its digest.
  cache::Digest play(const std::string& tag, const std::string& config,
                     const std::vector<std::string>& layers) {
    const auto descriptor = [&](const std::string& bytes) {
      return R"({"digest":")" + house_.play_blob("app", bytes).to_string() + R"(","size":)" +
             std::to_string(bytes.size()) + "}";
    };
    std::string list;
    for (const std::string& layer : layers) list += (list.empty() ? "" : ",") + descriptor(layer);
    const std::string text =
        R"({"schemaVersion":2,"config":)" + descriptor(config) + R"(,"layers":[)" + list + "]}";
    const auto digest = cache::digest_of(cache::Algorithm::sha256, text);
    for (const std::string& reference : {tag, digest.to_string()})
      house_.upstream.on(
          "https://r.example/v2/app/manifests/" + reference, [=](const fake::Asked&) {
            return fake::Reply{
                .status = 200, .headers = {{"Content-Type", manifest_type}}, .body = text};
          });
    return digest;
  }
  static cache::Digest digest_of(const std::string& bytes) {
    return cache::digest_of(cache::Algorithm::sha256, bytes);
  }
  void pull_blob(const std::string& bytes) {
    const auto digest = digest_of(bytes);
    EXPECT_EQ(house_.get("/v2/r.example/app/blobs/" + digest.to_string()).status, 200);
    house_.run_until_true([&] { return house_.store.object(digest) != nullptr; });
  }
  void load(AccessLists lists) { house_.run(access_.load(std::move(lists))); }
  json::object access_of(proxy::Peer caller) {
    const auto answer =
        house_.run(explainer_.explain(*parse_image_name("r.example/app:1"), caller));
    return answer.at("access").as_object();
  }
  json::object explain(const std::string& name) {
    return house_.run(explainer_.explain(*parse_image_name(name), proxy::Peer(::geteuid())));
  }
  static std::vector<std::string> asks(const json::object& answer) {
    std::vector<std::string> texts;
    for (const json::value& ask : answer.at("next_pull").at("asks").as_array())
      texts.emplace_back(ask.as_string());
    return texts;
  }
  static std::string result(const json::object& answer) {
    return std::string(answer.at("next_pull").at("result").as_string());
  }

  House house_;
  const Config config_ = *parse_config("", "staithe.toml", Environment());
  TaskGroup tasks_{house_.io.get_executor(), [](std::string_view, std::string_view) {}};
  Access access_{house_.io.get_executor(), house_.clock, tasks_, ::geteuid()};
  Explainer explainer_{{.config = config_,
                        .clock = house_.clock,
                        .store = house_.store,
                        .registries = house_.registries,
                        .fills = house_.fills,
                        .access = access_,
                        .upstreams = [] { return json::array(); }}};
};

TEST_F(ExplainerTest, KnowsNothingBeforeTheFirstPullAndAsksNobody) {
  const json::object answer = explain("r.example/app:1");
  EXPECT_EQ(answer.at("rule").at("name").as_string(), "r.example");
  EXPECT_EQ(result(answer), "miss");
  EXPECT_THAT(asks(answer), ElementsAre("GET manifests/1"));
  EXPECT_TRUE(answer.at("bytes_needed").is_null());
  EXPECT_THAT(answer.at("parts").as_array(), IsEmpty());
  EXPECT_THAT(house_.upstream.asked(), IsEmpty());
  EXPECT_THAT(house_.registries.used(), IsEmpty());
}

TEST_F(ExplainerTest, FollowsAnImageFromTheManifestToTheLastLayer) {
  const auto root = play("1", "{}", {"layer one", "layer two"});
  EXPECT_EQ(house_.get("/v2/r.example/app/manifests/1").status, 200);
  json::object answer = explain("r.example/app:1");
  EXPECT_EQ(answer.at("tag").at("digest").as_string(), root.to_string());
  ASSERT_EQ(answer.at("parts").as_array().size(), 4u);
  EXPECT_EQ(answer.at("parts").at(0).at("kind").as_string(), "manifest");
  EXPECT_EQ(answer.at("parts").at(1).at("kind").as_string(), "config");
  EXPECT_EQ(answer.at("parts").at(2).at("kind").as_string(), "layer");
  EXPECT_EQ(answer.at("parts").at(2).at("state").as_string(), "missing");
  EXPECT_EQ(answer.at("bytes_needed").to_number<int>(), 20);
  EXPECT_EQ(answer.at("next_pull").at("bytes_to_fetch").to_number<int>(), 20);

  pull_blob("layer one");
  answer = explain("r.example/app:1");
  EXPECT_EQ(answer.at("parts").at(2).at("state").as_string(), "cached");
  EXPECT_EQ(result(answer), "partly");
  EXPECT_EQ(answer.at("next_pull").at("bytes_to_fetch").to_number<int>(), 11);

  pull_blob("{}");
  pull_blob("layer two");
  answer = explain("r.example/app:1");
  EXPECT_EQ(result(answer), "hit");
  EXPECT_THAT(asks(answer), ElementsAre("HEAD manifests/1"));
  EXPECT_EQ(answer.at("bytes_here").to_number<int>(), 20);
  EXPECT_THAT(asks(explain("r.example/app@" + root.to_string())), IsEmpty());
}

// A layer that came through another repository is here, and has to be shown for this one.
TEST_F(ExplainerTest, SaysWhatHasToBeProvedYet) {
  play("1", "{}", {"shared layer"});
  house_.play_blob("other", "shared layer");
  EXPECT_EQ(house_.get("/v2/r.example/app/manifests/1").status, 200);
  const auto digest = digest_of("shared layer");
  EXPECT_EQ(house_.get("/v2/r.example/other/blobs/" + digest.to_string()).status, 200);
  house_.run_until_true([&] { return house_.store.object(digest) != nullptr; });
  EXPECT_THAT(asks(explain("r.example/app:1")),
              ElementsAre("HEAD manifests/1", "GET blobs/" + digest_of("{}").to_string(),
                          "HEAD blobs/" + digest.to_string()));
}

TEST_F(ExplainerTest, SaysWhoMayPullAndWhetherTheOneWhoAsksMay) {
  load({});
  EXPECT_EQ(json::serialize(access_of(proxy::Peer(4000U))),
            R"({"by":null,"users":[],"groups":[],"caller":{"uid":4000,"may_pull":true}})");
  std::vector<proxy::RegistrySettings> settings = house_.registries.configured();
  settings.front().access = proxy::AccessSettings{.users = {"4000"}, .groups = {"4100"}};
  house_.registries.replace(settings, true);
  load({.all = {}, .own = {{"r.example", *settings.front().access}}});
  EXPECT_EQ(json::serialize(access_of(proxy::Peer(4000U))),
            R"({"by":"registry.access","users":["4000"],"groups":["4100"],)"
            R"("caller":{"uid":4000,"may_pull":true}})");
  EXPECT_EQ(json::serialize(access_of(proxy::Peer(4001U)).at("caller")),
            R"({"uid":4001,"may_pull":false})");
  EXPECT_EQ(json::serialize(access_of(proxy::Peer()).at("caller")),
            R"({"uid":null,"may_pull":false})");
  EXPECT_EQ(access_.denied(), 0U) << "a question is no attempt";
}

TEST_F(ExplainerTest, ANameWithoutARuleListsTheRules) {
  const json::object answer = explain("x.example/app");
  EXPECT_TRUE(answer.at("rule").is_null());
  EXPECT_EQ(json::serialize(answer.at("configured")), R"(["r.example","docker.io"])");
  EXPECT_EQ(explain("app").at("image").as_string(), "docker.io/library/app:latest");
}

}  // namespace
}  // namespace staithe::daemon
