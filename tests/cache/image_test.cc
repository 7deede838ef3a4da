#include "cache/image.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "cache/random.h"

namespace staithe::cache {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

std::string digest(char c) { return "sha256:" + std::string(64, c); }
std::string descriptor(char c, std::string_view more = "") {
  return R"({"digest":")" + digest(c) + "\"" + std::string(more) + "}";
}
std::vector<std::string> names(const std::vector<Descriptor>& descriptors) {
  std::vector<std::string> names;
  for (const Descriptor& one : descriptors) names.push_back(one.digest.to_string());
  return names;
}

TEST(References, OfAManifestAreItsConfigAndItsLayers) {
  const auto found = references_of(
      R"({"schemaVersion":2,"config":)" + descriptor('a', ",\"size\":7") + R"(,"layers":[)" +
      descriptor('b') + "," + descriptor('c', ",\"size\":9007199254740993") + "]}");
  EXPECT_THAT(names(found.blobs), ElementsAre(digest('a'), digest('b'), digest('c')));
  EXPECT_EQ(found.blobs[0].size_bytes, 7u);
  EXPECT_EQ(found.blobs[1].size_bytes, std::nullopt);
  EXPECT_EQ(found.blobs[2].size_bytes, 9007199254740993u);
  EXPECT_THAT(found.manifests, IsEmpty());
}

TEST(References, OfAnIndexAreManifests) {
  const auto found =
      references_of(R"({"manifests":[)" + descriptor('a') + "," + descriptor('b') + "]}");
  EXPECT_THAT(names(found.manifests), ElementsAre(digest('a'), digest('b')));
  EXPECT_THAT(found.blobs, IsEmpty());
}

TEST(References, OfArtifactsAndOfDockersFirstSchemaAreKnownToo) {
  EXPECT_THAT(names(references_of(R"({"blobs":[)" + descriptor('a') + "]}").blobs),
              ElementsAre(digest('a')));
  EXPECT_THAT(
      names(references_of(R"({"fsLayers":[{"blobSum":")" + digest('b') + R"("},{"blobSum":7}]})")
                .blobs),
      ElementsAre(digest('b')));
}

TEST(References, AreNamedOnceEach) {
  const auto found =
      references_of(R"({"config":)" + descriptor('a') + R"(,"layers":[)" + descriptor('a') + "," +
                    descriptor('b') + "," + descriptor('b') + "]}");
  EXPECT_THAT(names(found.blobs), ElementsAre(digest('a'), digest('b')));
}

TEST(References, PassOverWhatIsNoDigest) {
  const auto found = references_of(
      R"({"config":{"digest":"sha256:../../etc/passwd"},"layers":[null,1,[],{},{"digest":null},)"
      R"({"digest":["x"]},{"digest":"md5:abc"},{"digest":"SHA256:)" +
      std::string(64, 'a') + R"("},)" + descriptor('c', R"(,"size":-1)") + "]," +
      R"("manifests":{"digest":")" + digest('d') + R"("}})");
  EXPECT_THAT(names(found.blobs), ElementsAre(digest('c')));
  EXPECT_EQ(found.blobs[0].size_bytes, std::nullopt);
  EXPECT_THAT(found.manifests, IsEmpty());
}

TEST(References, OfWhatIsNoManifestAreNone) {
  std::string deep;
  for (int i = 0; i < 100'000; ++i) deep += R"({"layers":[)";
  for (const std::string& text :
       {std::string(), std::string("null"), std::string("[]"), std::string("{"),
        std::string("\xff\xfe"), std::string("{}"), std::string("\"layers\""), deep,
        std::string(9 << 20, ' '), R"({"layers":[)" + descriptor('a') + "]} trailing"}) {
    const auto found = references_of(text);
    EXPECT_THAT(found.blobs, IsEmpty());
    EXPECT_THAT(found.manifests, IsEmpty());
  }
}

TEST(References, AreBounded) {
  std::string text = R"({"layers":[)";
  for (int i = 0; i < 12'000; ++i) {
    if (i > 0) text += ",";
    text += R"({"digest":")" + digest_of(Algorithm::sha256, std::to_string(i)).to_string() + "\"}";
  }
  const auto found = references_of(text + "]}");
  EXPECT_EQ(found.blobs.size(), most_references);
  EXPECT_TRUE(found.cut);
}

TEST(References, OfAnythingEndWithoutAFault) {
  SeededRandom random(7);
  const std::string good = R"({"manifests":[)" + descriptor('a') + R"(],"config":)" +
                           descriptor('b') + R"(,"layers":[)" + descriptor('c') + "]}";
  for (int round = 0; round < 20'000; ++round) {
    std::string text = good.substr(0, random.next() % (good.size() + 1));
    for (int i = 0; i < 3 && !text.empty(); ++i)
      text[random.next() % text.size()] = static_cast<char>(random.next());
    const auto found = references_of(text);
    EXPECT_LE(found.blobs.size() + found.manifests.size(), 3u);
  }
}

}  // namespace
}  // namespace staithe::cache
