#include "proxy/reference.h"

#include <gtest/gtest.h>

namespace staithe::proxy {
namespace {

TEST(Repository, FollowsTheGrammarOfTheSpec) {
  for (const char* good : {"a", "app", "team/app", "a/b/c/d", "a.b", "a_b", "a__b", "a-b", "a---b",
                           "0", "library/busybox", "x/y.z/w__v"})
    EXPECT_TRUE(is_repository(good)) << good;
  for (const char* bad : {"",   "/",  "a/", "/a", "a//b",   "A",   "a..b",  "a___b", "a._b", "a-",
                          "-a", ".a", "a.", "..", "a/../b", "a b", "a%2fb", "a\nb",  "a:b",  "é"})
    EXPECT_FALSE(is_repository(bad)) << bad;
  EXPECT_TRUE(is_repository(std::string(255, 'a')));
  EXPECT_FALSE(is_repository(std::string(256, 'a')));
}

TEST(Tag, FollowsTheGrammarOfTheSpec) {
  for (const char* good : {"1", "latest", "v1.2.3", "A_b-C.d", "_x"})
    EXPECT_TRUE(is_tag(good)) << good;
  for (const char* bad : {"", ".x", "-x", "a/b", "a b", "a:b", "a+b"})
    EXPECT_FALSE(is_tag(bad)) << bad;
  EXPECT_TRUE(is_tag(std::string(128, 'a')));
  EXPECT_FALSE(is_tag(std::string(129, 'a')));
}

TEST(Reference, IsADigestIfItHasAColon) {
  const auto tag = Reference::parse("latest");
  ASSERT_TRUE(tag);
  EXPECT_EQ(*tag->tag(), "latest");
  const std::string text = "sha256:" + std::string(64, 'a');
  const auto digest = Reference::parse(text);
  ASSERT_TRUE(digest);
  EXPECT_EQ(digest->digest()->to_string(), text);
  EXPECT_EQ(Reference::parse("sha256:abc").error().code, Errc::digest_invalid);
  EXPECT_EQ(Reference::parse("md5:" + std::string(32, 'a')).error().code, Errc::digest_invalid);
  EXPECT_EQ(Reference::parse("sha256:" + std::string(64, 'A')).error().code, Errc::digest_invalid);
  EXPECT_EQ(Reference::parse("..").error().code, Errc::name_invalid);
}

TEST(RegistryName, IsNormalised) {
  EXPECT_EQ(*parse_registry("Contoso.AzureCR.io"), "contoso.azurecr.io");
  EXPECT_EQ(*parse_registry("contoso.azurecr.io:443"), "contoso.azurecr.io");
  EXPECT_EQ(*parse_registry("localhost:5000"), "localhost:5000");
  EXPECT_EQ(*parse_registry("[::1]:5000"), "[::1]:5000");
  EXPECT_EQ(*parse_registry("index.docker.io"), "docker.io");
  for (const char* bad : {"", ".", "a..b", ".a", "a.", "a:", "a:b", "a:123456", "a b", "a/b",
                          "[::1", "a@b", "a:80:90", "-a", "a\r\nb"})
    EXPECT_FALSE(parse_registry(bad)) << bad;
}

TEST(RegistryName, IsRecognisedAsEveryClientDoes) {
  EXPECT_TRUE(looks_like_registry("contoso.azurecr.io"));
  EXPECT_TRUE(looks_like_registry("host:5000"));
  EXPECT_TRUE(looks_like_registry("localhost"));
  EXPECT_FALSE(looks_like_registry("library"));
}

}  // namespace
}  // namespace staithe::proxy
