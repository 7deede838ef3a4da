// `staithe warm IMAGE...`: images are brought into the cache ahead of their pulls.
#pragma once

#include <expected>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "daemon/cli.h"

namespace CLI {
class App;
}

namespace staithe::daemon {

// See VerifyCommand.
class WarmCommand {
 public:
  explicit WarmCommand(CLI::App& app);
  WarmCommand(const WarmCommand&) = delete;
  WarmCommand& operator=(const WarmCommand&) = delete;

  // The exit status, 1 if an image failed; none if another command was given.
  std::optional<int> run(const CliContext& context, const std::filesystem::path& socket);

 private:
  // The images of arguments and list, or what is wrong with them, a sentence each.
  std::expected<std::vector<std::string>, std::vector<std::string>> images(
      const CliContext& context) const;
  int warm(const CliContext& context, const std::filesystem::path& socket,
           const std::string& question) const;

  CLI::App* command_;
  std::vector<std::string> images_;
  std::string file_;
  std::string platform_;
  bool as_json_ = false;
};

}  // namespace staithe::daemon
