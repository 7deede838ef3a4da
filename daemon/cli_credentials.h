// The commands of `staithe` that deal with credentials: token, pull-secret, renew, login, logout.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>

#include "daemon/cli.h"

namespace CLI {
class App;
}

namespace staithe::daemon {

// A group of commands: added to the program's, then run if one of them was given. Lives as long as
// `app`, which writes into it while it parses.
class CredentialCommands {
 public:
  explicit CredentialCommands(CLI::App& app);
  CredentialCommands(const CredentialCommands&) = delete;
  CredentialCommands& operator=(const CredentialCommands&) = delete;

  // The exit status; none if another command was given.
  std::optional<int> run(const CliContext& context, const std::filesystem::path& socket);

  // True if what is wrong with the command line may hold a token, so that it must not be quoted.
  static bool may_hold_secret(int argc, const char* const* argv);
  // What to say instead.
  static std::string_view why_not_an_argument();

 private:
  int token(const CliContext& context, const std::filesystem::path& socket);
  int pull_secret(const CliContext& context, const std::filesystem::path& socket);
  int renew(const CliContext& context, const std::filesystem::path& socket);
  int login(const CliContext& context, const std::filesystem::path& socket);
  int logout(const CliContext& context, const std::filesystem::path& socket);

  CLI::App* token_;
  CLI::App* pull_secret_;
  CLI::App* renew_;
  CLI::App* login_;
  CLI::App* logout_;
  std::string registry_;
  std::string name_;
  std::string namespace_;
  bool as_json_ = false;
  bool raw_ = false;
  bool token_stdin_ = false;
};

}  // namespace staithe::daemon
