// `staithe completion bash|zsh|fish`: what a shell completes, made of the command line itself.
//
// Names of images and registries are asked of the daemon at each completion, by `staithe completion
// images` and `registries`, which say nothing and take no time where it does not answer.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>

#include "daemon/cli.h"
#include "daemon/cli_description.h"

namespace CLI {
class App;
}

namespace staithe::daemon {

// See VerifyCommand.
class CompletionCommand {
 public:
  explicit CompletionCommand(CLI::App& app);
  CompletionCommand(const CompletionCommand&) = delete;
  CompletionCommand& operator=(const CompletionCommand&) = delete;

  // The exit status; none if another command was given.
  std::optional<int> run(const CliContext& context, const std::filesystem::path& socket);

 private:
  int print_names(const CliContext& context, const std::filesystem::path& socket);

  const CLI::App& app_;
  CLI::App* command_;
  std::string shell_;
  bool as_json_ = false;
};

// Pure.
std::string bash_completion(const CliDescription& cli);
std::string zsh_completion(const CliDescription& cli);
std::string fish_completion(const CliDescription& cli);

}  // namespace staithe::daemon
