// `staithe explain IMAGE`: why an image is pulled as it is.
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

// See VerifyCommand.
class ExplainCommand {
 public:
  explicit ExplainCommand(CLI::App& app);
  ExplainCommand(const ExplainCommand&) = delete;
  ExplainCommand& operator=(const ExplainCommand&) = delete;

  // The exit status, 1 if no rule matches the image; none if another command was given.
  std::optional<int> run(const CliContext& context, const std::filesystem::path& socket);

 private:
  CLI::App* command_;
  std::string image_;
  bool as_json_ = false;
};

// Pure: the answer of GET /v1/explain for people.
std::string render_explanation(const boost::json::value& answer, const Style& style);

}  // namespace staithe::daemon
