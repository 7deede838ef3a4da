// Keys and certificates of the tests, made while they run.
#pragma once

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>
#include <openssl/x509.h>

#include <array>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>

namespace staithe::proxy::auth {

struct Pair {
  std::string key, certificate;  // PEM
  std::shared_ptr<EVP_PKEY> rsa;
  std::shared_ptr<X509> x509;
};

struct PairOptions {
  std::size_t bits = 2048;
  bool new_key = false;  // instead of the one that all share, since making one takes long
  const char* not_after = "20351231235959Z";
  const char* name = "staithe test";
};

inline void must(bool done, const char* what) {
  if (!done) throw std::runtime_error(what);
}

inline std::string text_of(BIO* bio) {
  char* data = nullptr;
  const long size = BIO_get_mem_data(bio, &data);
  return {data, static_cast<std::size_t>(size)};
}

using Bio = std::unique_ptr<BIO, decltype(&BIO_free_all)>;
inline Bio memory() { return {BIO_new(BIO_s_mem()), &BIO_free_all}; }

inline std::string pem_of(EVP_PKEY* key) {
  const Bio bio = memory();
  must(PEM_write_bio_PKCS8PrivateKey(bio.get(), key, nullptr, nullptr, 0, nullptr, nullptr) == 1,
       "key");
  return text_of(bio.get());
}

inline Pair make_pair(PairOptions options = {}) {
  static const std::shared_ptr<EVP_PKEY> shared(EVP_RSA_gen(2048), &EVP_PKEY_free);
  Pair pair;
  pair.rsa = options.new_key || options.bits != 2048
                 ? std::shared_ptr<EVP_PKEY>(EVP_RSA_gen(options.bits), &EVP_PKEY_free)
                 : shared;
  pair.x509 = std::shared_ptr<X509>(X509_new(), &X509_free);
  X509* x509 = pair.x509.get();
  ASN1_INTEGER_set(X509_get_serialNumber(x509), 1);
  must(ASN1_TIME_set_string(X509_getm_notBefore(x509), "20200101000000Z") == 1, "beginning");
  must(ASN1_TIME_set_string(X509_getm_notAfter(x509), options.not_after) == 1, "end");
  X509_set_pubkey(x509, pair.rsa.get());
  X509_NAME* name = X509_get_subject_name(x509);
  X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC,
                             reinterpret_cast<const unsigned char*>(options.name), -1, -1, 0);
  X509_set_issuer_name(x509, name);
  must(X509_sign(x509, pair.rsa.get(), EVP_sha256()) > 0, "signature");
  pair.key = pem_of(pair.rsa.get());
  const Bio bio = memory();
  must(PEM_write_bio_X509(bio.get(), x509) == 1, "certificate");
  pair.certificate = text_of(bio.get());
  return pair;
}

inline std::string encrypted_key(const Pair& pair) {
  const Bio bio = memory();
  must(PEM_write_bio_PKCS8PrivateKey(bio.get(), pair.rsa.get(), EVP_aes_128_cbc(), "passphrase", 10,
                                     nullptr, nullptr) == 1,
       "encrypted key");
  return text_of(bio.get());
}

inline std::string ec_key() {
  const std::shared_ptr<EVP_PKEY> key(EVP_EC_gen("P-256"), &EVP_PKEY_free);
  return pem_of(key.get());
}

// Of the certificate's DER form, made here from that form.
inline std::string sha256_of(const Pair& pair) {
  unsigned char* der = nullptr;
  const int size = i2d_X509(pair.x509.get(), &der);
  must(size > 0, "DER");
  std::array<unsigned char, 32> hash{};
  unsigned hash_size = 0;
  must(EVP_Digest(der, static_cast<std::size_t>(size), hash.data(), &hash_size, EVP_sha256(),
                  nullptr) == 1,
       "digest");
  OPENSSL_free(der);
  return {reinterpret_cast<const char*>(hash.data()), hash.size()};
}

// RSASSA-PSS with SHA-256, its salt as long as the digest (RFC 7518 section 3.5).
inline bool verifies_ps256(const Pair& pair, std::string_view text, std::string_view signature) {
  const std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> context(EVP_MD_CTX_new(),
                                                                        &EVP_MD_CTX_free);
  EVP_PKEY_CTX* how = nullptr;
  must(EVP_DigestVerifyInit(context.get(), &how, EVP_sha256(), nullptr, pair.rsa.get()) == 1 &&
           EVP_PKEY_CTX_set_rsa_padding(how, RSA_PKCS1_PSS_PADDING) == 1 &&
           EVP_PKEY_CTX_set_rsa_mgf1_md(how, EVP_sha256()) == 1 &&
           EVP_PKEY_CTX_set_rsa_pss_saltlen(how, RSA_PSS_SALTLEN_DIGEST) == 1,
       "verification");
  const bool good =
      EVP_DigestVerify(context.get(), reinterpret_cast<const unsigned char*>(signature.data()),
                       signature.size(), reinterpret_cast<const unsigned char*>(text.data()),
                       text.size()) == 1;
  ERR_clear_error();
  return good;
}

}  // namespace staithe::proxy::auth
