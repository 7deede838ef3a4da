// `docker-credential-staithe ACTION` and, under another name, `docker-credential-staithe-nomad`:
// the credential helper protocol of docker (azure-protocol.md section 10) as a thin client of
// staithed.
//
// A registry that the daemon has a credential for is the daemon's; every other one is the user's
// own matter (login_store.h). No daemon, and none that may be asked, is no reason to fail for a
// registry that was never its own.
#pragma once

#include <istream>
#include <ostream>
#include <string_view>

#include "daemon/environment.h"

namespace staithe::daemon {

// docker compares this one letter by letter, and takes it for "no credentials".
inline constexpr std::string_view kCredentialsNotFound = "credentials not found in native keychain";

// Where a helper runs.
struct HelperContext {
  std::istream& in;
  std::ostream& out;
  std::ostream& err;
  const Environment& environment;
};

// Returns the exit status. docker reads errors from stdout and shows stderr as it comes, Nomad
// quotes stderr; so what failed is said on both. "Not found" is an answer: it is said on stdout
// only.
int run_docker_credential(int argc, const char* const* argv, const HelperContext& context);

}  // namespace staithe::daemon
