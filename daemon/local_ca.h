// A certificate for this machine's TLS listener, and an authority that has signed it and nothing
// else ever will.
//
// The authority's key lives as long as the call that makes both, so whoever trusts it trusts this
// one certificate; and it may speak for localhost and loopback addresses only (name constraints),
// whatever becomes of it. Blocking, some milliseconds.
#pragma once

#include <chrono>
#include <string>
#include <string_view>

#include "cache/clock.h"
#include "cache/error.h"

namespace staithe::daemon {

struct LocalCertificate {
  std::string authority;  // PEM: what clients are to trust
  std::string server;     // PEM: the private key, and the certificate for localhost, 127.0.0.1, ::1
};

// How long both are good. Go's and OpenSSL's clients take more; who renews it is a person.
inline constexpr std::chrono::days local_certificate_life{825};
// So long before the end setup makes new ones, and status warns.
inline constexpr std::chrono::days local_certificate_renewal{60};

// Good from an hour before `now`, since clocks differ. Throws Failure(storage_failed).
LocalCertificate make_local_certificate(WallTime now);

// What of an earlier one is at hand serves on: both are there, belong together, are for the names
// above, and end later than local_certificate_renewal from `now`.
bool is_good_local_certificate(std::string_view authority, std::string_view server, WallTime now);

}  // namespace staithe::daemon
