// The commands of `staithe` that deal with what is cached: ls, pin, unpin, purge.
#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "daemon/cli.h"

namespace CLI {
class App;
}

namespace staithe::daemon {

// A group of commands; see CredentialCommands.
class CacheCommands {
 public:
  explicit CacheCommands(CLI::App& app);
  CacheCommands(const CacheCommands&) = delete;
  CacheCommands& operator=(const CacheCommands&) = delete;

  // The exit status; none if another command was given.
  std::optional<int> run(const CliContext& context, const std::filesystem::path& socket);

 private:
  int list_images(const CliContext& context, const std::filesystem::path& socket);
  int list_blobs(const CliContext& context, const std::filesystem::path& socket);
  int pin(const CliContext& context, const std::filesystem::path& socket);
  int unpin(const CliContext& context, const std::filesystem::path& socket);
  int purge(const CliContext& context, const std::filesystem::path& socket);

  CLI::App* ls_;
  CLI::App* pin_;
  CLI::App* unpin_;
  CLI::App* purge_;
  std::string image_;
  std::string older_than_;
  bool as_json_ = false;
  bool blobs_ = false;
  bool all_ = false;
};

}  // namespace staithe::daemon
