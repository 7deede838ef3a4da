#include "proxy/auth/caller_credential.h"

#include <gtest/gtest.h>

#include "proxy/auth/base64.h"

namespace staithe::proxy::auth {
namespace {

using Kind = CallerCredential::Kind;

std::string basic(std::string_view pair) { return "Basic " + encode_base64(pair); }

TEST(CallerCredential, IsAUserNameAndAPassword) {
  const auto credential = parse_caller_credential(basic("alice:pass:word ~"));
  ASSERT_TRUE(credential);
  EXPECT_EQ(credential->kind, Kind::basic);
  EXPECT_EQ(credential->username, "alice");
  EXPECT_EQ(credential->secret->reveal(), "pass:word ~");
  EXPECT_EQ(parse_caller_credential("bAsIc   " + encode_base64("a:b"))->username, "a");
}

TEST(CallerCredential, IsAToken) {
  const auto credential = parse_caller_credential("bearer abc.def-_~+/=");
  ASSERT_TRUE(credential);
  EXPECT_EQ(credential->kind, Kind::bearer);
  EXPECT_EQ(credential->secret->reveal(), "abc.def-_~+/=");
  EXPECT_EQ(credential->username, "");
}

// skopeo sends an empty pair where it has none.
TEST(CallerCredential, IsNoneWhereThereIsNothing) {
  for (const std::string& field : {std::string(), basic(":")}) {
    const auto credential = parse_caller_credential(field);
    ASSERT_TRUE(credential) << field;
    EXPECT_EQ(credential->kind, Kind::anonymous);
    EXPECT_EQ(credential->secret, nullptr);
  }
}

TEST(CallerCredential, OfAnotherFormIsRefusedAndNotQuoted) {
  using namespace std::string_literals;
  for (const std::string& field :
       {"Basic"s, "Basic "s, "Basic !secret!"s, basic("secret"), basic("secret:"), basic(":secret"),
        basic("a:secret\n"), basic("a\0:secret"s), basic(std::string(2000, 'a') + ":secret"),
        "Bearer"s, "Bearer "s, "Bearer a secret"s, "Bearer secret\x7f"s, "Bearer secret\xc3\xa9"s,
        "Digest username=\"secret\""s, "Negotiate c2VjcmV0"s, "secret"s, " Basic YTpi"s}) {
    const auto credential = parse_caller_credential(field);
    ASSERT_FALSE(credential) << field;
    EXPECT_EQ(credential.error().code, Errc::bad_request);
    EXPECT_EQ(credential.error().detail.find("secret"), std::string::npos);
  }
}

}  // namespace
}  // namespace staithe::proxy::auth
