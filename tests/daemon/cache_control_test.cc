// The control socket's view of the cache, over a real socket and with callers of other users.
#include "daemon/cache_control.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <boost/json.hpp>
#include <string>

#include "tests/daemon/control_plane.h"

namespace staithe::daemon {
namespace {

namespace json = boost::json;
using fake::House;
using fake::OtherUser;
using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;

constexpr unsigned somebody = 54321;

class CacheControlTest : public testing::Test {
 protected:
  std::string ask_as(unsigned uid, const std::string& method, const std::string& path,
                     const std::string& body = {}) {
    return socket_.ask_as(uid, method, path, body);
  }
  std::string post(const std::string& path, const std::string& body) {
    return socket_.post(path, body);
  }
  static int status_of(const std::string& answer) { return ControlSocket::status_of(answer); }
  // Of a whole body or a chunked one.
  static json::value body_of(const std::string& answer) {
    std::string body = answer.substr(std::min(answer.find("\r\n\r\n") + 4, answer.size()));
    if (answer.find("Transfer-Encoding: chunked\r\n") != std::string::npos) {
      std::string whole;
      for (std::size_t at = 0; at < body.size();) {
        const std::size_t size = std::stoul(body.substr(at), nullptr, 16);
        at = body.find("\r\n", at) + 2;
        whole += body.substr(at, size);
        at += size + 2;
      }
      body = whole;
    }
    boost::system::error_code error;
    json::value value = json::parse(body, error);
    EXPECT_FALSE(error) << answer;
    return value;
  }
  static std::string message_of(const std::string& answer) {
    return std::string(body_of(answer).at("errors").at(0).at("message").as_string());
  }
  json::value get(const std::string& path) { return body_of(ask_as(::geteuid(), "GET", path)); }

  // Pulls an image of one layer through the proxy.
  cache::Digest pull(const std::string& repository, const std::string& tag,
                     const std::string& layer) {
    const cache::Digest blob = house_.play_blob(repository, layer);
    const std::string manifest =
        R"({"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","layers":[)"
        R"({"digest":")" +
        blob.to_string() + R"(","size":)" + std::to_string(layer.size()) + "}]}";
    house_.upstream.on(
        "https://r.example/v2/" + repository + "/manifests/" + tag, [manifest](const fake::Asked&) {
          return fake::Reply{
              .status = 200,
              .headers = {{"Content-Type", "application/vnd.oci.image.manifest.v1+json"}},
              .body = manifest};
        });
    EXPECT_EQ(house_.get("/v2/r.example/" + repository + "/manifests/" + tag).status, 200);
    EXPECT_EQ(house_.get("/v2/r.example/" + repository + "/blobs/" + blob.to_string()).status, 200);
    house_.run_until_true([&] { return house_.store.object(blob) != nullptr; });
    return blob;
  }

  House house_;
  const Config config_ = *parse_config("", "staithe.toml", Environment());
  ControlPlane plane_{house_, config_, house_.registries};
  ControlSocket socket_{house_, plane_};
};

TEST_F(CacheControlTest, BlobsAreToldWithEverythingThatIsKnownOfThem) {
  EXPECT_EQ(get("/v1/blobs"), json::parse(R"({"blobs":[]})"));
  const cache::Digest blob = pull("app", "1", "some bytes");
  const json::value answer = get("/v1/blobs");
  const json::array& blobs = answer.at("blobs").as_array();
  ASSERT_EQ(blobs.size(), 2u);
  for (const json::value& one : blobs)
    for (const char* key : {"digest", "kind", "bytes", "last_used_unix_seconds", "verified",
                            "verified_unix_seconds", "pinned", "repositories"})
      EXPECT_TRUE(one.as_object().contains(key)) << key;
  const json::object& last = blobs[0].as_object();
  EXPECT_EQ(last.at("digest"), json::value(blob.to_string()));
  EXPECT_EQ(last.at("kind"), "blob");
  EXPECT_EQ(last.at("bytes").to_number<int>(), 10);
  EXPECT_EQ(last.at("repositories"), (json::array{"r.example/app"}));
  EXPECT_EQ(blobs[1].at("kind"), "manifest");
}

TEST_F(CacheControlTest, ALongListComesWholeAndInPieces) {
  for (int i = 0; i < 2000; ++i) {
    const auto manifest = std::make_shared<const cache::Manifest>(
        cache::Manifest{.digest = cache::digest_of(cache::Algorithm::sha256, std::to_string(i)),
                        .media_type = "a/b",
                        .bytes = std::to_string(i)});
    house_.store.put_manifest(manifest);
    house_.store.link("r.example/app", manifest->digest);
  }
  const std::string answer = ask_as(::geteuid(), "GET", "/v1/blobs");
  EXPECT_THAT(answer, HasSubstr("Transfer-Encoding: chunked\r\n"));
  EXPECT_EQ(body_of(answer).at("blobs").as_array().size(), 2000u);
  EXPECT_EQ(get("/v1/images").at("images").as_array().size(), 2000u);
  EXPECT_THAT(ask_as(::geteuid(), "HEAD", "/v1/blobs"), StartsWith("HTTP/1.1 200 OK\r\n"));
}

TEST_F(CacheControlTest, ImagesAreToldByName) {
  pull("app", "1", "some bytes");
  const json::value answer = get("/v1/images");
  const json::array& images = answer.at("images").as_array();
  ASSERT_EQ(images.size(), 1u);
  const json::object& image = images[0].as_object();
  EXPECT_EQ(image.at("name"), "r.example/app:1");
  EXPECT_EQ(image.at("media_type"), "application/vnd.oci.image.manifest.v1+json");
  EXPECT_EQ(image.at("complete"), true);
  EXPECT_EQ(image.at("pinned"), false);
  EXPECT_EQ(image.at("bytes_cached"), image.at("bytes_needed"));
  EXPECT_TRUE(image.at("tag_age_seconds").is_number());
  EXPECT_TRUE(image.at("last_used_unix_seconds").is_number());
  EXPECT_TRUE(image.at("digest").is_string());
}

TEST_F(CacheControlTest, AnImageIsPinnedRefusedToThePurgeUnpinnedAndPurged) {
  const cache::Digest blob = pull("app", "1", "some bytes");
  const json::value pinned = body_of(post("/v1/pin", R"({"image":"r.example/app:1"})"));
  EXPECT_EQ(pinned.at("complete"), true);
  EXPECT_EQ(pinned.at("image"), "r.example/app:1");
  const json::value status = get("/v1/status");
  EXPECT_EQ(status.at("cache").at("pins").to_number<int>(), 1);
  EXPECT_EQ(status.at("cache").at("pinned_bytes").to_number<int>(), 8192);
  EXPECT_EQ(get("/v1/images").at("images").at(0).at("pinned"), true);
  EXPECT_EQ(get("/v1/blobs").at("blobs").at(0).at("pinned"), true);

  const std::string refused = post("/v1/purge", R"({"image":"r.example/app:1"})");
  EXPECT_EQ(status_of(refused), 409);
  EXPECT_THAT(message_of(refused), HasSubstr("staithe unpin r.example/app:1"));
  const json::value spared = body_of(post("/v1/purge", R"({"all":true})"));
  EXPECT_EQ(spared.at("removed").at("blobs").to_number<int>(), 0);
  EXPECT_EQ(spared.at("kept").at("pinned").at("objects").to_number<int>(), 2);

  EXPECT_EQ(status_of(post("/v1/unpin", R"({"image":"r.example/app:1"})")), 200);
  EXPECT_EQ(status_of(post("/v1/unpin", R"({"image":"r.example/app:1"})")), 404);
  const json::value purged = body_of(post("/v1/purge", R"({"image":"r.example/app:1"})"));
  EXPECT_EQ(purged.at("removed").at("blobs").to_number<int>(), 1);
  EXPECT_EQ(purged.at("removed").at("manifests").to_number<int>(), 1);
  EXPECT_EQ(purged.at("removed").at("tags").to_number<int>(), 1);
  EXPECT_EQ(purged.at("faults"), json::array());
  EXPECT_EQ(house_.store.object(blob), nullptr);
  EXPECT_EQ(status_of(post("/v1/purge", R"({"image":"r.example/app:1"})")), 404);
}

TEST_F(CacheControlTest, APinOfWhatIsNotCachedHoldsAndSaysSo) {
  const json::value pinned = body_of(post("/v1/pin", R"({"image":"r.example/app"})"));
  EXPECT_EQ(pinned.at("image"), "r.example/app:latest");
  EXPECT_EQ(pinned.at("complete"), false);
  EXPECT_EQ(pinned.at("digest"), nullptr);
  pull("app", "latest", "some bytes");
  // The walk over the image follows the tag.
  house_.run_until_true([&] { return house_.store.stats().pinned_bytes == 8192; });
  EXPECT_EQ(get("/v1/status").at("cache").at("pinned_bytes").to_number<int>(), 8192);
}

TEST_F(CacheControlTest, TheOldIsPurgedByItsAge) {
  pull("app", "1", "some bytes");
  const json::value purged = body_of(post("/v1/purge", R"({"older_than_seconds":3600})"));
  EXPECT_EQ(purged.at("removed").at("blobs").to_number<int>(), 0);
}

TEST_F(CacheControlTest, QuestionsThatAreNoneAreRefusedWithASentence) {
  for (const auto& [path, body] : std::vector<std::pair<std::string, std::string>>{
           {"/v1/pin", ""},
           {"/v1/pin", "[]"},
           {"/v1/pin", "{}"},
           {"/v1/pin", R"({"image":7})"},
           {"/v1/pin", R"({"image":"UPPER/x"})"},
           {"/v1/pin", R"({"image":"r.example/app","more":1})"},
           {"/v1/pin", R"({"image":")" + std::string(5000, 'a') + "\"}"},
           {"/v1/unpin", R"({"image":null})"},
           {"/v1/purge", "{}"},
           {"/v1/purge", R"({"all":false})"},
           {"/v1/purge", R"({"all":"yes"})"},
           {"/v1/purge", R"({"all":true,"image":"r.example/app"})"},
           {"/v1/purge", R"({"all":true,"older_than_seconds":5})"},
           {"/v1/purge", R"({"older_than_seconds":0})"},
           {"/v1/purge", R"({"older_than_seconds":-1})"},
           {"/v1/purge", R"({"older_than_seconds":1e300})"},
           {"/v1/purge", R"({"older_than_seconds":9223372036854775807})"},
           {"/v1/purge", R"({"older_than_seconds":"30d"})"}}) {
    const std::string answer = post(path, body);
    EXPECT_EQ(status_of(answer), 400) << path << " " << body.substr(0, 60);
    EXPECT_FALSE(message_of(answer).empty());
  }
  const std::string unknown = post("/v1/pin", R"({"image":"nobody.example/app"})");
  EXPECT_EQ(status_of(unknown), 404) << "a slip in a registry's name";
  EXPECT_THAT(message_of(unknown), HasSubstr("r.example"));
  EXPECT_EQ(get("/v1/status").at("cache").at("pins").to_number<int>(), 0);
}

TEST_F(CacheControlTest, EachPathHasItsMethod) {
  for (const char* path : {"/v1/pin", "/v1/unpin", "/v1/purge", "/v1/warm"}) {
    const std::string answer = ask_as(::geteuid(), "GET", path);
    EXPECT_EQ(status_of(answer), 405);
    EXPECT_THAT(answer, HasSubstr("Allow: POST\r\n"));
  }
  EXPECT_EQ(status_of(post("/v1/blobs", "{}")), 405);
  EXPECT_EQ(status_of(post("/v1/explain?image=r.example/app", "{}")), 405);
}

TEST_F(CacheControlTest, OnlyRootAndTheOwnUserChangeWhatIsCached) {
  if (!OtherUser::possible()) GTEST_SKIP() << "only root can become somebody else";
  for (const char* path : {"/v1/pin", "/v1/unpin", "/v1/purge", "/v1/warm"}) {
    EXPECT_EQ(status_of(ask_as(somebody, "POST", path, R"({"all":true})")), 403) << path;
  }
  for (const char* path : {"/v1/images", "/v1/explain?image=r.example/app"})
    EXPECT_EQ(status_of(ask_as(somebody, "GET", path)), 200) << "whoever can connect may look";
}

}  // namespace
}  // namespace staithe::daemon
