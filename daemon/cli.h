// `staithe [--socket PATH] COMMAND`: what the operator types. Commands of interface.md section 5
// that do not exist in this version are not listed and are a usage error.
#pragma once

#include <filesystem>
#include <ostream>

#include "daemon/options.h"
#include "daemon/terminal.h"

namespace staithe::daemon {

inline constexpr int kExitOk = 0;
inline constexpr int kExitFailed = 1;
inline constexpr int kExitBadUsage = 2;
inline constexpr int kExitUnreachable = 3;

// Where a command runs.
struct CliContext {
  std::ostream& out;
  std::ostream& err;
  const Environment& environment;
  Terminal terminal;
};

// Returns the exit status. `status --watch` returns when SIGINT or SIGTERM arrives, or when `out`
// takes no more.
int run_cli(int argc, const char* const* argv, const CliContext& context);

// $STAITHE_SOCKET, else the default; for a user other than root the system's daemon, if the user
// has none of his own and the system's is there.
std::filesystem::path control_socket_of(const Environment& environment);

}  // namespace staithe::daemon
