// A certificate with its RSA key, for client assertions to Entra (azure-protocol.md section 6.3).
//
// Pure but for OpenSSL. The key stays in OpenSSL's memory, which it wipes; whoever handed the PEM
// text in wipes that.
#pragma once

#include <chrono>
#include <memory>
#include <string>
#include <string_view>

#include "cache/error.h"

struct evp_pkey_st;
struct x509_st;

namespace staithe::proxy::auth {

class Certificate {
 public:
  // A key and a certificate that belong together, in either order, with others after the first
  // certificate (its chain) ignored. Fails with identity_missing: no key, no certificate, an
  // encrypted key, not RSA of 2048 bits or more, the two are not a pair. Never quotes the text.
  static Result<Certificate> parse(std::string_view pem);

  // In seconds: certificates that never end do so in the year 9999, beyond what WallTime counts.
  std::chrono::sys_seconds not_after() const { return not_after_; }
  // base64url(SHA-256(DER)): the header's "x5t#S256".
  const std::string& thumbprint() const { return thumbprint_; }

  struct Assertion {
    std::string client_id;
    std::string audience;  // the token endpoint
    std::string id;        // never used before
    std::chrono::seconds now;
  };
  // A signed JWT (PS256), good for ten minutes. Throws Failure(identity_missing) if OpenSSL does
  // not sign. The caller wipes it.
  std::string sign(const Assertion& assertion) const;

 private:
  std::shared_ptr<evp_pkey_st> key_;
  std::string thumbprint_;
  std::chrono::sys_seconds not_after_{};
};

}  // namespace staithe::proxy::auth
