#include "daemon/local_ca.h"

#include <openssl/bn.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509_vfy.h>
#include <openssl/x509v3.h>

#include <cstring>
#include <ctime>

#include "cache/openssl.h"

namespace staithe::daemon {
namespace {

using openssl::Bio;
using openssl::Certificate;
using openssl::Key;
using openssl::Owner;
using openssl::reader_of;
using Number = Owner<BIGNUM, ::BN_free>;
using Extension = Owner<X509_EXTENSION, ::X509_EXTENSION_free>;
using Store = Owner<X509_STORE, ::X509_STORE_free>;
using Verification = Owner<X509_STORE_CTX, ::X509_STORE_CTX_free>;

constexpr const char* names = "DNS:localhost,IP:127.0.0.1,IP:::1";
constexpr const char* constraints =
    "critical,permitted;DNS:localhost,permitted;IP:127.0.0.0/255.0.0.0,"
    "permitted;IP:0:0:0:0:0:0:0:1/FFFF:FFFF:FFFF:FFFF:FFFF:FFFF:FFFF:FFFF";
constexpr int serial_bits = 127;

void must(bool done, const char* what) {
  if (done) return;
  ::ERR_clear_error();
  throw Failure(Errc::storage_failed, std::string("the TLS certificate cannot be made (") + what +
                                          "): see that OpenSSL 3 works on this machine");
}

Key new_key() {
  Key key(EVP_EC_gen("P-256"));
  must(key != nullptr, "no key");
  return key;
}

void extend(X509* certificate, X509* issuer, int kind, const char* value) {
  X509V3_CTX context;
  X509V3_set_ctx_nodb(&context);
  ::X509V3_set_ctx(&context, issuer, certificate, nullptr, nullptr, 0);
  const Extension extension(::X509V3_EXT_conf_nid(nullptr, &context, kind, value));
  must(extension && ::X509_add_ext(certificate, extension.get(), -1) == 1, "an extension");
}

// Without its extensions and its signature.
Certificate begin(EVP_PKEY* key, const char* name, std::time_t now) {
  Certificate certificate(::X509_new());
  must(certificate != nullptr, "no memory");
  X509* const raw = certificate.get();
  const Number serial(::BN_new());
  must(serial && ::BN_rand(serial.get(), serial_bits, BN_RAND_TOP_ONE, BN_RAND_BOTTOM_ANY) == 1 &&
           ::BN_to_ASN1_INTEGER(serial.get(), ::X509_get_serialNumber(raw)) != nullptr,
       "no serial number");
  const auto life = std::chrono::seconds(local_certificate_life).count();
  must(::X509_set_version(raw, X509_VERSION_3) == 1 && ::X509_set_pubkey(raw, key) == 1 &&
           ::ASN1_TIME_set(::X509_getm_notBefore(raw), now - 3600) &&
           ::ASN1_TIME_set(::X509_getm_notAfter(raw), now + life) &&
           ::X509_NAME_add_entry_by_txt(::X509_get_subject_name(raw), "CN", MBSTRING_ASC,
                                        reinterpret_cast<const unsigned char*>(name), -1, -1,
                                        0) == 1,
       "its fields");
  return certificate;
}

std::string text_of(BIO* bio) {
  char* data = nullptr;
  const long size = BIO_get_mem_data(bio, &data);
  return {data, static_cast<std::size_t>(size)};
}

Bio memory() {
  Bio bio(::BIO_new(::BIO_s_secmem()));  // wiped when it goes
  must(bio != nullptr, "no memory");
  return bio;
}

Certificate read_certificate(std::string_view pem) {
  const Bio bio = reader_of(pem);
  return Certificate(::PEM_read_bio_X509(bio.get(), nullptr, openssl::no_password, nullptr));
}

bool is_for_loopback(X509* certificate) {
  return ::X509_check_host(certificate, "localhost", 9, 0, nullptr) == 1 &&
         ::X509_check_ip_asc(certificate, "127.0.0.1", 0) == 1 &&
         ::X509_check_ip_asc(certificate, "::1", 0) == 1;
}

}  // namespace

LocalCertificate make_local_certificate(WallTime now) {
  const std::time_t seconds = std::chrono::system_clock::to_time_t(
      std::chrono::time_point_cast<std::chrono::system_clock::duration>(now));
  // Gone, and wiped by OpenSSL, with the end of this function.
  const Key authority_key = new_key();
  const Certificate authority = begin(authority_key.get(), "Staithe on this machine", seconds);
  X509* const above = authority.get();
  must(::X509_set_issuer_name(above, ::X509_get_subject_name(above)) == 1, "its issuer");
  extend(above, above, NID_basic_constraints, "critical,CA:TRUE,pathlen:0");
  extend(above, above, NID_key_usage, "critical,keyCertSign");
  extend(above, above, NID_name_constraints, constraints);
  extend(above, above, NID_subject_key_identifier, "hash");
  must(::X509_sign(above, authority_key.get(), ::EVP_sha256()) > 0, "a signature");

  const Key key = new_key();
  const Certificate own = begin(key.get(), "localhost", seconds);
  X509* const below = own.get();
  must(::X509_set_issuer_name(below, ::X509_get_subject_name(above)) == 1, "its issuer");
  extend(below, above, NID_basic_constraints, "critical,CA:FALSE");
  extend(below, above, NID_key_usage, "critical,digitalSignature");
  extend(below, above, NID_ext_key_usage, "serverAuth");
  extend(below, above, NID_subject_alt_name, names);
  extend(below, above, NID_subject_key_identifier, "hash");
  extend(below, above, NID_authority_key_identifier, "keyid");
  must(::X509_sign(below, authority_key.get(), ::EVP_sha256()) > 0, "a signature");

  const Bio public_part = memory();
  must(::PEM_write_bio_X509(public_part.get(), above) == 1, "its text");
  const Bio private_part = memory();
  must(::PEM_write_bio_PKCS8PrivateKey(private_part.get(), key.get(), nullptr, nullptr, 0, nullptr,
                                       nullptr) == 1 &&
           ::PEM_write_bio_X509(private_part.get(), below) == 1,
       "its text");
  return {.authority = text_of(public_part.get()), .server = text_of(private_part.get())};
}

bool is_good_local_certificate(std::string_view authority, std::string_view server, WallTime now) {
  const Certificate above = read_certificate(authority);
  const Certificate below = read_certificate(server);
  const Bio keys = reader_of(server);
  const Key key(::PEM_read_bio_PrivateKey(keys.get(), nullptr, openssl::no_password, nullptr));
  bool good = above && below && key && ::X509_check_private_key(below.get(), key.get()) == 1 &&
              is_for_loopback(below.get());
  if (good) {
    const std::time_t then = std::chrono::system_clock::to_time_t(
        std::chrono::time_point_cast<std::chrono::system_clock::duration>(
            now + local_certificate_renewal));
    const Store store(::X509_STORE_new());
    const Verification verification(::X509_STORE_CTX_new());
    good = store && verification && ::X509_STORE_add_cert(store.get(), above.get()) == 1 &&
           ::X509_STORE_CTX_init(verification.get(), store.get(), below.get(), nullptr) == 1;
    if (good) {
      ::X509_STORE_CTX_set_time(verification.get(), 0, then);
      good = ::X509_STORE_CTX_set_purpose(verification.get(), X509_PURPOSE_SSL_SERVER) == 1 &&
             ::X509_verify_cert(verification.get()) == 1;
    }
  }
  ::ERR_clear_error();
  return good;
}

}  // namespace staithe::daemon
