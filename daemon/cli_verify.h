// `staithe verify`: everything that is stored, read and hashed now.
#pragma once

#include <boost/json/value.hpp>
#include <filesystem>
#include <optional>
#include <string>

#include "daemon/cli.h"
#include "daemon/terminal.h"

namespace CLI {
class App;
}

namespace staithe::daemon {

// The command: added to the program's, then run if it was given. Lives as long as `app`, which
// writes into it while it parses.
class VerifyCommand {
 public:
  explicit VerifyCommand(CLI::App& app);
  VerifyCommand(const VerifyCommand&) = delete;
  VerifyCommand& operator=(const VerifyCommand&) = delete;

  // The exit status, 1 if damage was found; none if another command was given.
  std::optional<int> run(const CliContext& context, const std::filesystem::path& socket);

 private:
  CLI::App* command_;
  bool as_json_ = false;
};

// Pure: one line of POST /v1/verify as one line of a terminal, with a bar, the speed and the time
// left after `seconds` of work.
std::string render_verify_progress(const boost::json::value& line, double seconds,
                                   const Style& style);
// Pure: what the last line says, for people, with a line feed.
std::string render_verify_result(const boost::json::value& line);

}  // namespace staithe::daemon
