#include "daemon/command_line.h"

#include <string_view>

#include "cache/escape.h"
#include "daemon/options.h"

namespace staithe::daemon {
namespace {

constexpr std::string_view kUsage = "usage: staithed [--config FILE] [--check]";

std::string help() {
  return std::string(kUsage) +
         "\n\n"
         "Serves container registries to this machine: keeps their credentials, caches what is\n"
         "pulled through it.\n\n"
         "  --config FILE  the configuration; without it /etc/staithe/staithe.toml, and if that\n"
         "                 does not exist, the built-in defaults\n"
         "  --check        read the configuration, report everything that is wrong with it, exit\n"
         "  --help         this text\n"
         "  --version      the version\n\n"
         "Exit status: 0 asked to stop, 1 failed while running, 2 bad configuration or arguments,\n"
         "3 the cache directory is in use by another instance.\n"
         "Signals: SIGTERM and SIGINT drain and stop, SIGHUP reads the configuration again.\n\n"
         "The configuration's keys and their defaults:\n" +
         options_help();
}

Exit wrong(const std::string& what) {
  return {kExitUsage, "staithed: " + what + " (" + std::string(kUsage) + ")\n"};
}

}  // namespace

std::variant<Run, Exit> parse_command_line(int argc, const char* const* argv) {
  constexpr std::string_view kConfig = "--config";
  Run run;
  const auto set_config = [&](std::string_view file) -> std::optional<Exit> {
    if (file.empty()) return wrong("--config needs the name of a file");
    if (run.config_file) return wrong("--config is given twice");
    run.config_file = file;
    return std::nullopt;
  };
  for (int i = 1; i < argc; ++i) {
    const std::string_view argument = argv[i];
    if (argument == "--help" || argument == "-h") return Exit{0, help()};
    if (argument == "--version") return Exit{0, "staithed " STAITHE_VERSION "\n"};
    if (argument == "--check") {
      run.check = true;
    } else if (argument == kConfig) {
      const std::string_view file = i + 1 < argc ? argv[++i] : "";
      if (auto fault = set_config(file)) return *fault;
    } else if (argument.starts_with("--config=")) {
      if (auto fault = set_config(argument.substr(kConfig.size() + 1))) return *fault;
    } else {
      return wrong("unknown argument \"" + printable(argument, 80) + "\"");
    }
  }
  return run;
}

}  // namespace staithe::daemon
