// `staithe [--socket PATH] COMMAND`: what the operator types. Commands of interface.md section 5
// that do not exist in this version are not listed and are a usage error.
#pragma once

#include <chrono>
#include <functional>
#include <iostream>

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
  std::istream& in = std::cin;
  std::function<std::chrono::system_clock::time_point()> now = std::chrono::system_clock::now;
};

// Returns the exit status. `status --watch` returns when SIGINT or SIGTERM arrives, or when `out`
// takes no more.
int run_cli(int argc, const char* const* argv, const CliContext& context);

}  // namespace staithe::daemon
