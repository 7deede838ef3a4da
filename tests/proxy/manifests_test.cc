#include "proxy/manifests.h"

#include <gtest/gtest.h>

namespace staithe::proxy {
namespace {

constexpr const char* oci = "application/vnd.oci.image.manifest.v1+json";
const std::string image = R"({"schemaVersion":2,"config":{},"layers":[]})";

TEST(CheckManifest, KeepsBytesAndTypeAsTheyCame) {
  const std::string odd = "{ \"schemaVersion\":2,\n\"layers\" : [] }\n";
  const auto manifest = check_manifest(std::string(oci) + "; charset=utf-8", odd, nullptr, "");
  ASSERT_TRUE(manifest) << manifest.error().detail;
  EXPECT_EQ(manifest->bytes, odd);
  EXPECT_EQ(manifest->media_type, std::string(oci) + "; charset=utf-8");
  EXPECT_EQ(manifest->digest, cache::digest_of(cache::Algorithm::sha256, odd));
}

TEST(CheckManifest, TakesTheTypeFromTheDocumentIfTheHeaderIsMissing) {
  const std::string typed = std::string(R"({"mediaType":")") + oci + R"("})";
  EXPECT_EQ(check_manifest("", typed, nullptr, "")->media_type, oci);
  EXPECT_FALSE(check_manifest("", image, nullptr, ""));
}

TEST(CheckManifest, RefusesADocumentWithTwoMeanings) {
  EXPECT_FALSE(check_manifest(oci, R"({"manifests":[],"layers":[]})", nullptr, ""));
  EXPECT_FALSE(check_manifest(oci, R"({"manifests":[],"config":{}})", nullptr, ""));
  EXPECT_FALSE(check_manifest(
      oci, R"({"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]})", nullptr,
      ""));
}

TEST(CheckManifest, RefusesWhatIsNoManifest) {
  for (const char* bytes : {"", "<html>", "[]", "null", "\"x\"", "{", "{}garbage"})
    EXPECT_FALSE(check_manifest(oci, bytes, nullptr, "")) << bytes;
  EXPECT_FALSE(check_manifest(oci, std::string(1000, '['), nullptr, ""));
  EXPECT_FALSE(check_manifest("text\x01plain", image, nullptr, ""));
  EXPECT_FALSE(check_manifest(std::string(300, 'a'), image, nullptr, ""));
}

TEST(CheckManifest, ComparesTheDigestThatWasAskedForAndTheOneThatWasTold) {
  const auto right = cache::digest_of(cache::Algorithm::sha256, image);
  const auto wrong = cache::digest_of(cache::Algorithm::sha256, "x");
  EXPECT_TRUE(check_manifest(oci, image, &right, ""));
  EXPECT_FALSE(check_manifest(oci, image, &wrong, ""));
  EXPECT_TRUE(check_manifest(oci, image, nullptr, right.to_string()));
  EXPECT_FALSE(check_manifest(oci, image, nullptr, wrong.to_string()));
  EXPECT_FALSE(check_manifest(oci, image, nullptr, "garbage"));
  const auto long_digest = cache::digest_of(cache::Algorithm::sha512, image);
  EXPECT_EQ(check_manifest(oci, image, nullptr, long_digest.to_string())->digest, long_digest);
}

}  // namespace
}  // namespace staithe::proxy
