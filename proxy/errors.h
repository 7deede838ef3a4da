// How an Errc is told to a client: one table of HTTP status and OCI error code.
//
// No client is answered 401 or 429 by it: the one makes clients send somebody else's credentials,
// the other makes them hammer (registry-clients.md, section 1). What the daemon may not read is
// 403. Where callers prove their own right (verify_callers), and nowhere else, Proxy asks them.
#pragma once

#include <string>
#include <string_view>

#include "cache/error.h"

namespace staithe::proxy {

struct ErrorReply {
  int status;
  std::string_view code;  // of the OCI distribution spec
};

ErrorReply reply_for(Errc code);
// For a blob that cannot be delivered: 404 is the one status on which every client that can move on
// to another source does so at once (registry-clients.md, section 4), so every fault of upstream or
// of the store is a 404 here; the sentence tells the true cause.
ErrorReply reply_for_blob(Errc code);

// {"errors":[{"code":...,"message":...}]}
std::string error_body(std::string_view code, std::string_view message);

// True if a 403's body is that of a registry's network rules (ACR: "client with IP '203.0.113.7' is
// not allowed access"): no fault of a credential, and mended elsewhere.
bool tells_of_firewall(std::string_view body);

// RFC 9110's reason phrase.
std::string_view reason_phrase(int status);

}  // namespace staithe::proxy
