#include "cache/manifest.h"

#include <gtest/gtest.h>

namespace staithe::cache {
namespace {

Manifest example(std::string bytes) {
  return {.digest = digest_of(Algorithm::sha256, bytes),
          .media_type = "application/vnd.oci.image.manifest.v1+json",
          .bytes = bytes};
}

TEST(ManifestRecord, GivesBackBytesAndMediaTypeAsTheyWere) {
  for (const std::string& bytes : {std::string("{}"), std::string("{\n\n}\n"), std::string("\n"),
                                   std::string(), std::string("{\"a\": \"\0\"}", 10)}) {
    const Manifest manifest = example(bytes);
    const auto again = from_record(manifest.digest, to_record(manifest));
    ASSERT_TRUE(again);
    EXPECT_EQ(again->bytes, bytes);
    EXPECT_EQ(again->media_type, manifest.media_type);
    EXPECT_EQ(again->digest, manifest.digest);
  }
}

TEST(ManifestRecord, IsRefusedIfItIsNotThatOfTheDigest) {
  const Manifest manifest = example("{}");
  const std::string record = to_record(manifest);
  for (const std::string& wrong : {std::string(), std::string("{}"), std::string("\n{}"),
                                   record + " ", record.substr(0, record.size() - 1),
                                   std::string(record.size(), '\0'), to_record(example("[]"))}) {
    const auto read = from_record(manifest.digest, wrong);
    ASSERT_FALSE(read) << wrong;
    EXPECT_EQ(read.error().code, Errc::digest_invalid);
  }
}

}  // namespace
}  // namespace staithe::cache
