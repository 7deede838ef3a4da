#include "proxy/auth/jwt.h"

#include "proxy/auth/base64.h"

#include <gtest/gtest.h>

#include <string>

#include "cache/random.h"
#include "proxy/auth/json.h"
#include "tests/proxy/auth/make_jwt.h"

namespace staithe::proxy::auth {
namespace {

TEST(Base64Url, IsReadStrictly) {
  const struct {
    std::string_view text, bytes;
  } table[] = {{"", ""},           {"Zg", "f"},         {"Zm8", "fo"},         {"Zm9v", "foo"},
               {"Zm9vYg", "foob"}, {"_-8", "\xff\xef"}, {"Zm9vYmFy", "foobar"}};
  for (const auto& row : table) EXPECT_EQ(decode_base64url(row.text), row.bytes) << row.text;
  // Padding, the other alphabet, spaces, a lone character, bits that mean nothing.
  for (const std::string_view text :
       {"Zg==", "Zm8=", "+/8", "Zm 9v", "Z", "Zm9vY", "Zh", "Zm9", "Zg\n", "Z.g", "\xff\xff"}) {
    EXPECT_FALSE(decode_base64url(text)) << text;
  }
  SeededRandom random(2);
  for (int i = 0; i < 2000; ++i) {
    std::string bytes;
    for (auto n = random.next() % 50; n > 0; --n) bytes += static_cast<char>(random.next());
    EXPECT_EQ(decode_base64url(base64url(bytes)), bytes);
  }
}

TEST(Jwt, ClaimsAreReadWithoutCheckingTheSignature) {
  const Claims claims =
      read_jwt(make_jwt(R"({"iss":"Azure Container Registry","aud":"contoso.azurecr.io",
        "exp":1760004500,"iat":1760000000,"nbf":1759999700,"version":"1.0",
        "permissions":{"actions":["read"],"notActions":null},
        "access":[{"type":"repository","name":"app/web","actions":["pull","push"]},
                  {"type":"registry","name":"catalog","actions":null}]})"))
          .value();
  EXPECT_EQ(claims.expires, 1760004500);
  EXPECT_EQ(claims.issued, 1760000000);
  EXPECT_EQ(claims.not_before, 1759999700);
  EXPECT_EQ(claims.issuer, "Azure Container Registry");
  EXPECT_EQ(claims.audience, std::vector<std::string>{"contoso.azurecr.io"});
  ASSERT_TRUE(claims.access);
  EXPECT_EQ(claims.access->size(), 2U);
  EXPECT_TRUE(claims.may_grant("app/web", "pull"));
  EXPECT_FALSE(claims.may_grant("app/web", "delete"));
  EXPECT_FALSE(claims.may_grant("app/we", "pull"));
  EXPECT_FALSE(claims.may_grant("catalog", "pull"));
}

TEST(Jwt, MissingClaimsAreNoError) {
  const Claims claims = read_jwt(make_jwt("{}")).value();
  EXPECT_FALSE(claims.expires || claims.issued || claims.not_before || claims.access);
  EXPECT_TRUE(claims.may_grant("anything", "pull"));
  EXPECT_TRUE(read_jwt(make_jwt(R"({"exp":null,"aud":null,"iss":null})")));
}

TEST(Jwt, AnEmptyAccessListGrantsNothing) {
  EXPECT_FALSE(read_jwt(make_jwt(R"({"access":[]})"))->may_grant("a", "pull"));
  EXPECT_FALSE(read_jwt(make_jwt(R"({"access":null})"))->may_grant("a", "pull"));
  EXPECT_TRUE(read_jwt(make_jwt(R"({"access":[{"type":"repository","name":"a","actions":["*"]}]})"))
                  ->may_grant("a", "pull"));
}

TEST(Jwt, DatesMayHaveFractionsAndAudiencesMayBeMany) {
  const Claims claims =
      read_jwt(make_jwt(R"({"exp":1760004500.9,"iat":1.76e9,"aud":["a","b"]})")).value();
  EXPECT_EQ(claims.expires, 1760004500);
  EXPECT_EQ(claims.issued, 1760000000);
  EXPECT_EQ(claims.audience, (std::vector<std::string>{"a", "b"}));
}

TEST(Jwt, WhatIsNoneIsRefusedWithoutQuotingIt) {
  const std::string good = make_jwt("{}");
  std::string deep = R"({"a":)";
  for (int i = 0; i < 100; ++i) deep += "[";
  const std::string table[] = {
      "",
      "opaque-secret-token",
      "secret.token",
      "a.b.c.d.secret",
      good + "=",
      good + ".x",
      "." + good,
      make_jwt("not json secret"),
      make_jwt("[]"),
      make_jwt("\"secret\""),
      make_jwt("{} {}"),
      make_jwt("{\"exp\":1"),
      make_jwt(R"({"exp":"secret"})"),
      make_jwt(R"({"exp":{}})"),
      make_jwt(R"({"exp":1e400})"),
      make_jwt(R"({"exp":123456789012345678901234567890})"),
      make_jwt(R"({"iss":7})"),
      make_jwt(R"({"aud":7})"),
      make_jwt(R"({"aud":[7]})"),
      make_jwt(R"({"access":{}})"),
      make_jwt(R"({"access":["secret"]})"),
      make_jwt(R"({"access":[{"type":"repository","name":"a","actions":"pull secret x"},7]})"),
      make_jwt(deep),
      make_jwt("{\"a\":\"\xff\"}"),
      "a.b.c secret",
      std::string(max_jwt_bytes + 1, 'a'),
  };
  for (const std::string& text : table) {
    const Result<Claims> claims = read_jwt(text);
    ASSERT_FALSE(claims) << text;
    EXPECT_EQ(claims.error().code, Errc::upstream_nonsense);
    EXPECT_FALSE(claims.error().detail.contains("secret")) << claims.error().detail;
    EXPECT_LT(claims.error().detail.size(), 200U);
  }
}

TEST(Jwt, AnyChangedByteIsReadOrRefused) {
  const std::string good = make_jwt(
      R"({"exp":1760004500,"access":[{"type":"repository","name":"a","actions":["pull"]}]})");
  SeededRandom random(9);
  for (int i = 0; i < 20'000; ++i) {
    std::string text = good;
    for (auto n = 1 + random.next() % 4; n > 0; --n)
      text[random.next() % text.size()] = static_cast<char>(random.next());
    (void)read_jwt(text);
  }
}

TEST(Json, NumbersMayComeAsText) {
  const json::value value =
      parse_json_object(R"({"a":"3599","b":3599,"c":"","d":null,"e":"3599s","f":"-1","g":true,
                            "h":" 1","i":"99999999999999999999","j":1.5,"k":[1]})")
          .value();
  const json::object& object = value.get_object();
  EXPECT_EQ(number_field(object, "a"), 3599);
  EXPECT_EQ(number_field(object, "b"), 3599);
  EXPECT_EQ(number_field(object, "c"), std::nullopt);
  EXPECT_EQ(number_field(object, "d"), std::nullopt);
  EXPECT_EQ(number_field(object, "missing"), std::nullopt);
  EXPECT_EQ(number_field(object, "f"), -1);
  EXPECT_EQ(number_field(object, "j"), 1);
  for (const auto* name : {"e", "g", "h", "i", "k"})
    EXPECT_FALSE(number_field(object, name)) << name;
  EXPECT_EQ(text_field(object, "a"), "3599");
  EXPECT_EQ(text_field(object, "d"), "");
  EXPECT_FALSE(text_field(object, "b"));
}

TEST(Json, OnlyAnObjectOfModestDepthIsTaken) {
  EXPECT_TRUE(parse_json_object(R"( {"a":[[[[[[["x"]]]]]]]} )"));
  EXPECT_FALSE(parse_json_object(R"({"a":[[[[[[[["x"]]]]]]]]})"));
  for (const std::string_view text :
       {"", " ", "[]", "1", "null", "{", "{}x", "{'a':1}", "{\"a\":1,}", "<html></html>",
        "{\"a\":\"\x01\"}", "// c\n{}", "\xef\xbb\xbf{}"}) {
    EXPECT_FALSE(parse_json_object(text)) << text;
  }
}

}  // namespace
}  // namespace staithe::proxy::auth
