// `staithe setup`: configures the clients of this machine, and takes that back.
#pragma once

#include <boost/json/object.hpp>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "daemon/cli.h"
#include "daemon/setup.h"
#include "daemon/setup_apply.h"
#include "daemon/setup_probe.h"

namespace CLI {
class App;
}

namespace staithe::daemon {

// The command: added to the program's, then run if it was given. Lives as long as `app`, which
// writes into it while it parses.
class SetupCommand {
 public:
  explicit SetupCommand(CLI::App& app);
  SetupCommand(const SetupCommand&) = delete;
  SetupCommand& operator=(const SetupCommand&) = delete;

  // The exit status; none if another command was given.
  std::optional<int> run(const CliContext& context, const std::filesystem::path& socket);

 private:
  int undo(const CliContext& context, const SetupDisk& disk, const std::vector<Client>& clients);
  int plan(const CliContext& context, const SetupDisk& disk, const std::filesystem::path& socket,
           std::vector<Client> clients);

  CLI::App* command_;
  std::vector<std::string> clients_;
  std::vector<std::string> registries_;
  std::string root_ = "/";
  std::string config_;
  std::string image_;
  bool apply_ = false;
  bool undo_ = false;
  bool force_ = false;
  bool tls_ = false;
  bool as_json_ = false;
};

// What setup did or would do for one client.
struct SetupOutcome {
  Plan plan;
  bool applied = false;
  std::string failure;   // why it was not applied
  std::string image;     // of the self-test; empty if there was none
  std::string untested;  // why there was no self-test
  std::vector<TestStep> test;
};

// Pure: for people, as a text; for programs.
std::string render_setup(const SetupOutcome& outcome, bool apply, const Style& style);
boost::json::object to_json(const SetupOutcome& outcome);
std::string render_undo(Client client, const Undone& undone, const Style& style);
boost::json::object to_json(Client client, const Undone& undone);

}  // namespace staithe::daemon
