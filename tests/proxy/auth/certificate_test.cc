#include "proxy/auth/certificate.h"

#include <gtest/gtest.h>
#include <openssl/err.h>

#include <boost/json/parse.hpp>
#include <string>

#include "proxy/auth/base64.h"
#include "proxy/auth/json.h"
#include "tests/proxy/auth/make_certificate.h"

namespace staithe::proxy::auth {
namespace {

using namespace std::chrono_literals;

constexpr std::string_view endpoint = "https://login.microsoftonline.com/tenant/oauth2/v2.0/token";

Certificate::Assertion assertion(std::string id = "1") {
  return {.client_id = "app",
          .audience = std::string(endpoint),
          .id = std::move(id),
          .now = 1'760'000'000s};
}

struct Parts {
  std::string signed_text, signature;
  json::value header, claims;
};
Parts split(const std::string& jwt) {
  const std::size_t first = jwt.find('.'), second = jwt.find('.', first + 1);
  const auto decoded = [&](std::size_t from, std::size_t to) {
    return decode_base64url(std::string_view(jwt).substr(from, to - from)).value();
  };
  return {.signed_text = jwt.substr(0, second),
          .signature = decoded(second + 1, jwt.size()),
          .header = json::parse(decoded(0, first)),
          .claims = json::parse(decoded(first + 1, second))};
}

TEST(Certificate, SignsWhatItsPublicKeyVerifies) {
  const Pair pair = make_pair();
  const Certificate certificate = Certificate::parse(pair.key + pair.certificate).value();
  const Parts parts = split(certificate.sign(assertion()));
  EXPECT_TRUE(verifies_ps256(pair, parts.signed_text, parts.signature));
  EXPECT_FALSE(verifies_ps256(pair, parts.signed_text + "x", parts.signature));
  EXPECT_FALSE(verifies_ps256(make_pair({.new_key = true}), parts.signed_text, parts.signature));
}

TEST(Certificate, MakesTheAssertionThatEntraAsksFor) {
  const Pair pair = make_pair();
  const Certificate certificate = Certificate::parse(pair.certificate + pair.key).value();
  const Parts parts = split(certificate.sign(assertion("0b4c")));
  EXPECT_EQ(certificate.thumbprint(), encode_base64url(sha256_of(pair)));
  EXPECT_EQ(parts.header, json::parse(R"({"alg":"PS256","typ":"JWT","x5t#S256":")" +
                                      certificate.thumbprint() + "\"}"));
  EXPECT_EQ(parts.claims, json::parse(R"({"aud":")" + std::string(endpoint) +
                                      R"(","iss":"app","sub":"app","jti":"0b4c","nbf":1759999970,)"
                                      R"("iat":1760000000,"exp":1760000570})"));
}

TEST(Certificate, LivesTenMinutesFromBeginningToEnd) {
  const Pair pair = make_pair();
  const Certificate certificate = Certificate::parse(pair.key + pair.certificate).value();
  const Parts parts = split(certificate.sign(assertion()));
  const auto at = [&](const char* name) { return parts.claims.at(name).as_int64(); };
  EXPECT_EQ(at("exp") - at("nbf"), 600);
  EXPECT_LT(at("nbf"), at("iat"));
}

TEST(Certificate, TellsItsEndAlsoIfItHasNone) {
  const Pair pair = make_pair({.not_after = "20301231235959Z"});
  EXPECT_EQ(Certificate::parse(pair.key + pair.certificate)->not_after().time_since_epoch(),
            1924991999s);
  const Pair endless = make_pair({.not_after = "99991231235959Z"});
  EXPECT_EQ(Certificate::parse(endless.key + endless.certificate)->not_after().time_since_epoch(),
            253402300799s);
}

TEST(Certificate, StandsInEitherOrderWithItsChainAfterIt) {
  const Pair pair = make_pair();
  const Pair authority = make_pair({.new_key = true});
  const std::string thumbprint = encode_base64url(sha256_of(pair));
  for (const std::string& text : {pair.key + pair.certificate, pair.certificate + pair.key,
                                  pair.certificate + authority.certificate + pair.key,
                                  pair.key + pair.certificate + authority.certificate,
                                  "Bag Attributes\n  friendlyName: x\n" + pair.key +
                                      "\nsubject=CN = x\n" + pair.certificate}) {
    const auto certificate = Certificate::parse(text);
    ASSERT_TRUE(certificate) << certificate.error().detail;
    EXPECT_EQ(certificate->thumbprint(), thumbprint);
  }
}

TEST(Certificate, RefusesWhatCannotBeUsedAndQuotesNothing) {
  const Pair pair = make_pair();
  const Pair other = make_pair({.new_key = true});
  const std::string cut = pair.key.substr(0, pair.key.size() / 2);
  const struct {
    std::string pem;
    std::string_view why;
  } table[] = {
      {"", "there is no private key in it"},
      {"garbage", "there is no private key in it"},
      {std::string(50'000, '\0'), "there is no private key in it"},
      {pair.certificate, "there is no private key in it"},
      {cut + pair.certificate, "there is no private key in it"},
      {pair.key, "there is no certificate in it"},
      {pair.key + pair.certificate.substr(0, 200), "there is no certificate in it"},
      {encrypted_key(pair) + pair.certificate, "its key is encrypted"},
      {ec_key() + pair.certificate, "its key is not RSA"},
      {make_pair({.bits = 1024}).key + pair.certificate, "its key has fewer than 2048 bits"},
      {other.key + pair.certificate, "its key does not belong to its (first) certificate"},
      {pair.key + other.certificate + pair.certificate,
       "its key does not belong to its (first) certificate"},
  };
  for (const auto& row : table) {
    const auto certificate = Certificate::parse(row.pem);
    ASSERT_FALSE(certificate) << row.why;
    EXPECT_EQ(certificate.error().code, Errc::identity_missing);
    EXPECT_TRUE(certificate.error().detail.starts_with(row.why)) << certificate.error().detail;
    EXPECT_FALSE(certificate.error().detail.contains("-----"));
    EXPECT_LT(certificate.error().detail.size(), 200U);
  }
}

// A broken file leaves nothing behind that the next call would trip over.
TEST(Certificate, IsReadAfterOneThatWasRefused) {
  const Pair pair = make_pair();
  EXPECT_FALSE(
      Certificate::parse("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"));
  EXPECT_EQ(ERR_peek_error(), 0U);
  EXPECT_TRUE(Certificate::parse(pair.key + pair.certificate));
  EXPECT_EQ(ERR_peek_error(), 0U);
}

}  // namespace
}  // namespace staithe::proxy::auth
