#include "proxy/auth/certificate.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>

#include <array>
#include <boost/json/serialize.hpp>
#include <boost/json/value.hpp>
#include <ctime>
#include <vector>

#include "cache/openssl.h"
#include "proxy/auth/base64.h"
#include "proxy/auth/secret.h"

namespace staithe::proxy::auth {
namespace {

// 5 to 10 min are asked for; a little before now, for clocks that are not quite together.
constexpr std::chrono::seconds assertion_life = std::chrono::minutes(10);
constexpr std::chrono::seconds assertion_lead = std::chrono::seconds(30);
constexpr int least_key_bits = 2048;

std::unexpected<Error> refuse(std::string_view why) {
  ERR_clear_error();
  return fail(Errc::identity_missing, std::string(why));
}

bool sign_ps256(EVP_PKEY* key, std::string_view text, std::vector<unsigned char>& signature) {
  const openssl::Digest context(EVP_MD_CTX_new());
  EVP_PKEY_CTX* how = nullptr;
  if (!context || EVP_DigestSignInit(context.get(), &how, EVP_sha256(), nullptr, key) != 1 ||
      EVP_PKEY_CTX_set_rsa_padding(how, RSA_PKCS1_PSS_PADDING) != 1 ||
      EVP_PKEY_CTX_set_rsa_mgf1_md(how, EVP_sha256()) != 1 ||
      EVP_PKEY_CTX_set_rsa_pss_saltlen(how, RSA_PSS_SALTLEN_DIGEST) != 1)
    return false;
  const auto* bytes = reinterpret_cast<const unsigned char*>(text.data());
  std::size_t size = 0;
  if (EVP_DigestSign(context.get(), nullptr, &size, bytes, text.size()) != 1) return false;
  signature.resize(size);
  if (EVP_DigestSign(context.get(), signature.data(), &size, bytes, text.size()) != 1) return false;
  signature.resize(size);
  return true;
}

}  // namespace

Result<Certificate> Certificate::parse(std::string_view pem) {
  bool asked = false;
  const auto key_text = openssl::reader_of(pem);
  const std::shared_ptr<EVP_PKEY> key(
      PEM_read_bio_PrivateKey(key_text.get(), nullptr, &openssl::no_password, &asked),
      &EVP_PKEY_free);
  if (!key) {
    return refuse(asked ? "its key is encrypted: store it without a passphrase (openssl pkey), in "
                          "a file that only staithed can read"
                        : "there is no private key in it: put the key and the certificate into "
                          "one PEM file");
  }
  if (EVP_PKEY_get_base_id(key.get()) != EVP_PKEY_RSA)
    return refuse("its key is not RSA, which Entra asks for");
  if (EVP_PKEY_get_bits(key.get()) < least_key_bits)
    return refuse("its key has fewer than 2048 bits");
  const auto certificate_text = openssl::reader_of(pem);
  const openssl::Certificate certificate(
      PEM_read_bio_X509(certificate_text.get(), nullptr, &openssl::no_password, &asked));
  if (!certificate)
    return refuse(
        "there is no certificate in it: put the key and the certificate into one PEM "
        "file");
  if (X509_check_private_key(certificate.get(), key.get()) != 1)
    return refuse("its key does not belong to its (first) certificate");
  Certificate read;
  read.key_ = key;
  std::array<unsigned char, EVP_MAX_MD_SIZE> hash{};
  unsigned size = 0;
  if (X509_digest(certificate.get(), EVP_sha256(), hash.data(), &size) != 1)
    return refuse("its certificate cannot be hashed");
  read.thumbprint_ =
      encode_base64url({reinterpret_cast<const char*>(hash.data()), std::size_t{size}});
  std::tm ends{};
  if (ASN1_TIME_to_tm(X509_get0_notAfter(certificate.get()), &ends) != 1)
    return refuse("the end of its certificate cannot be read");
  read.not_after_ = std::chrono::sys_seconds(std::chrono::seconds(::timegm(&ends)));
  ERR_clear_error();
  return read;
}

std::string Certificate::sign(const Assertion& assertion) const {
  namespace json = boost::json;
  const std::int64_t now = assertion.now.count();
  const json::object header{{"alg", "PS256"}, {"typ", "JWT"}, {"x5t#S256", thumbprint_}};
  const json::object claims{{"aud", assertion.audience},
                            {"iss", assertion.client_id},
                            {"sub", assertion.client_id},
                            {"jti", assertion.id},
                            {"nbf", now - assertion_lead.count()},
                            {"iat", now},
                            {"exp", now + (assertion_life - assertion_lead).count()}};
  std::string text =
      encode_base64url(json::serialize(header)) + "." + encode_base64url(json::serialize(claims));
  std::vector<unsigned char> signature;
  if (!sign_ps256(key_.get(), text, signature)) {
    ERR_clear_error();
    throw Failure(Errc::identity_missing, "the certificate's key does not sign (PS256)");
  }
  text +=
      "." + encode_base64url({reinterpret_cast<const char*>(signature.data()), signature.size()});
  return text;
}

}  // namespace staithe::proxy::auth
