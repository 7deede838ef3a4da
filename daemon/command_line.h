// What staithed was asked to do: `staithed [--config FILE] [--check] [--help] [--version]`.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <variant>

namespace staithe::daemon {

struct Run {
  std::optional<std::filesystem::path> config_file;  // none: the default file, which may be absent
  bool check = false;                                // read the configuration, report, exit
};

// Print `text` (to stdout if `code` is 0, else to stderr) and exit.
struct Exit {
  int code;
  std::string text;  // ends with a line feed
};

inline constexpr int kExitUsage = 2;  // bad configuration or arguments

std::variant<Run, Exit> parse_command_line(int argc, const char* const* argv);

}  // namespace staithe::daemon
