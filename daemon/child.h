// Runs another program and waits for it: no shell, a bounded answer, a bounded time.
//
// What the program reads is handed over in memory and never in its arguments or environment, so a
// secret may be in it. What it writes is wiped by whoever asked for it.
#pragma once

#include <chrono>
#include <cstddef>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "cache/error.h"

namespace staithe::daemon {

// The first executable file of that name in the directories of `path` ($PATH); empty if there is
// none. Relative directories are passed over: what stands in the working directory is not a program
// of the system.
std::filesystem::path find_program(std::string_view name, std::string_view path);

struct ChildCall {
  std::filesystem::path program;
  std::vector<std::string> arguments;   // without the program's name
  std::string_view input;               // its stdin
  bool show_stderr = false;             // on ours; else it goes nowhere
  std::string_view without_variable{};  // taken out of the environment it inherits
  std::size_t most_bytes = 1 << 20;     // of its stdout
  std::chrono::milliseconds timeout = std::chrono::seconds(10);
};

struct ChildResult {
  int status = 0;  // exit status; 128 + N if signal N ended it
  std::string output;
};

// Fails if the program cannot be started, writes too much or takes too long; then it is killed.
Result<ChildResult> run_child(const ChildCall& call);

}  // namespace staithe::daemon
