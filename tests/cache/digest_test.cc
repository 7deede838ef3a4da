#include "cache/digest.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <unordered_set>

namespace staithe::cache {
namespace {

using testing::HasSubstr;

const std::string empty_sha256 =
    "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
const std::string abc_sha512 =
    "sha512:ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a"
    "2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f";

TEST(Digest, IsReadAndWrittenAsTheSpecHasIt) {
  for (const std::string& text : {empty_sha256, abc_sha512}) {
    const auto digest = Digest::parse(text);
    ASSERT_TRUE(digest) << text;
    EXPECT_EQ(digest->to_string(), text);
    EXPECT_EQ(text, std::string(digest->algorithm_name()) + ":" + digest->hex());
  }
}

TEST(Digest, IsTheHashOfTheBytes) {
  EXPECT_EQ(digest_of(Algorithm::sha256, "").to_string(), empty_sha256);
  EXPECT_EQ(digest_of(Algorithm::sha512, "abc").to_string(), abc_sha512);
}

TEST(Digest, OutsideItsGrammarIsRefusedWithASentence) {
  const std::string hex = empty_sha256.substr(7);
  for (const std::string& text :
       {std::string(), std::string("sha256"), std::string("sha256:"), hex, ":" + hex,
        "sha1:" + hex.substr(0, 40), "md5:" + hex.substr(0, 32), "SHA256:" + hex,
        "sha256:" + hex.substr(1), "sha256:" + hex + "0", "sha512:" + hex, "sha256:" + hex + "\n",
        " sha256:" + hex, "sha256: " + hex.substr(1), "sha256:E" + hex.substr(1),
        "sha256:g" + hex.substr(1), "sha256:../" + hex.substr(3), "sha256+b64:" + hex,
        "sha256:" + hex.substr(0, 63) + std::string(1, '\0')}) {
    const auto digest = Digest::parse(text);
    ASSERT_FALSE(digest) << text;
    EXPECT_EQ(digest.error().code, Errc::digest_invalid);
    EXPECT_THAT(digest.error().detail, HasSubstr("digest"));
  }
}

TEST(Digest, OfTwoAlgorithmsAreTwo) {
  const Digest a = digest_of(Algorithm::sha256, "abc");
  const Digest b = digest_of(Algorithm::sha512, "abc");
  EXPECT_NE(a, b);
  const std::unordered_set<Digest> both{a, b, a};
  EXPECT_EQ(both.size(), 2u);
}

TEST(Hasher, TakesItsBytesInAnyPieces) {
  const std::string bytes(100'000, 'x');
  for (const std::size_t step : {1ul, 63ul, 64ul, 65ul, 4096ul, 99'999ul}) {
    Hasher hasher(Algorithm::sha256);
    for (std::size_t at = 0; at < bytes.size(); at += step)
      hasher.update(std::span(bytes).subspan(at).first(std::min(step, bytes.size() - at)));
    EXPECT_EQ(hasher.digest(), digest_of(Algorithm::sha256, bytes));
  }
}

TEST(Hasher, GoesOnAfterItWasAskedAndACopyGoesItsOwnWay) {
  Hasher hasher(Algorithm::sha256);
  hasher.update(std::string_view("ab"));
  EXPECT_EQ(hasher.digest(), digest_of(Algorithm::sha256, "ab"));
  Hasher copy(hasher);
  hasher.update(std::string_view("c"));
  copy.update(std::string_view("d"));
  EXPECT_EQ(hasher.digest(), digest_of(Algorithm::sha256, "abc"));
  EXPECT_EQ(copy.digest(), digest_of(Algorithm::sha256, "abd"));
  copy = hasher;
  EXPECT_EQ(copy.digest(), hasher.digest());
}

}  // namespace
}  // namespace staithe::cache
