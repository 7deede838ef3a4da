// The commands of interface.md section 5: each is there, takes --json, says by examples how it is
// used, and ends with the exit statuses of the contract.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <boost/json/parse.hpp>
#include <sstream>
#include <string>
#include <vector>

#include "daemon/cli.h"
#include "daemon/cli_description.h"
#include "tests/fake/control_daemon.h"

namespace staithe::daemon {
namespace {

using testing::Contains;
using testing::HasSubstr;
using testing::StartsWith;

struct Outcome {
  int status;
  std::string out;
  std::string err;
};

Outcome run(std::vector<std::string> arguments, const std::string& input = {}) {
  arguments.insert(arguments.begin(), "staithe");
  std::vector<const char*> argv;
  for (const std::string& argument : arguments) argv.push_back(argument.c_str());
  std::ostringstream out;
  std::ostringstream err;
  std::istringstream in(input);
  const Environment environment;
  const int status =
      run_cli(static_cast<int>(argv.size()), argv.data(), {out, err, environment, Terminal{}, in});
  return {status, out.str(), err.str()};
}

struct Contract {
  const char* command;
  std::vector<std::string> flags;      // beside --json
  std::vector<std::string> arguments;  // of a good call
  bool needs_daemon = true;
};

const std::vector<Contract> contract = {
    {"status", {"--watch"}, {}},
    {"explain", {}, {"app:1"}},
    {"ls", {"--blobs"}, {}},
    {"warm", {"--file", "--platform"}, {"app:1"}},
    {"pin", {}, {"app:1"}},
    {"unpin", {}, {"app:1"}},
    {"purge", {"--all"}, {"--all"}},
    {"verify", {}, {}},
    {"renew", {}, {}},
    {"reload", {}, {}},
    {"setup", {"--apply", "--undo"}, {"--help"}, false},
    {"doctor", {}, {"--root", "/nonexistent", "--config", "/nonexistent"}},
    {"token", {}, {"contoso.azurecr.io"}},
    {"config", {}, {}},
    {"completion", {}, {"bash"}, false},
    {"version", {}, {}, false},
};

const CommandDescription* find(const CliDescription& cli, std::string_view name) {
  const auto found = std::ranges::find(cli.commands, name, &CommandDescription::name);
  return found == cli.commands.end() ? nullptr : &*found;
}

bool takes(const CommandDescription& command, std::string_view flag) {
  return std::ranges::any_of(command.arguments, [&](const ArgumentDescription& argument) {
    return std::ranges::find(argument.flags, flag) != argument.flags.end();
  });
}

TEST(CliContract, EveryCommandIsThereWithItsOptions) {
  const CliDescription cli = describe_cli();
  for (const Contract& one : contract) {
    const CommandDescription* command = find(cli, one.command);
    ASSERT_TRUE(command) << one.command;
    EXPECT_TRUE(takes(*command, "--json")) << one.command;
    for (const std::string& flag : one.flags)
      EXPECT_TRUE(takes(*command, flag)) << one.command << " " << flag;
  }
}

TEST(CliContract, EveryCommandSaysByExamplesHowItIsUsed) {
  for (const CommandDescription& command : describe_cli().commands) {
    EXPECT_THAT(command.footer, StartsWith("Example")) << command.name;
    EXPECT_THAT(command.footer, HasSubstr("\n  ")) << command.name;
    EXPECT_THAT(command.footer, HasSubstr("staithe " + command.name)) << command.name;
    const Outcome help = run({command.name, "--help"});
    EXPECT_EQ(help.status, kExitOk) << command.name;
    EXPECT_THAT(help.out, HasSubstr("Example")) << command.name;
    std::istringstream lines(help.out);
    for (std::string line; std::getline(lines, line);)
      EXPECT_LE(line.size(), 120u) << command.name << ": " << line;
  }
}

TEST(CliContract, WrongUsageIsTwo) {
  for (const CommandDescription& command : describe_cli().commands) {
    if (command.name == "login") continue;  // it takes all, to refuse it without showing it
    EXPECT_EQ(run({command.name, "--there-is-no-such-option"}).status, kExitBadUsage)
        << command.name;
  }
  EXPECT_EQ(run({"there-is-no-such-command"}).status, kExitBadUsage);
  EXPECT_EQ(run({}).status, kExitBadUsage);
}

TEST(CliContract, ADaemonThatIsNotThereIsThree) {
  for (const Contract& one : contract) {
    std::vector<std::string> line{"--socket", "/nonexistent/control.sock", one.command};
    line.insert(line.end(), one.arguments.begin(), one.arguments.end());
    const Outcome outcome = run(line);
    EXPECT_EQ(outcome.status, one.needs_daemon ? kExitUnreachable : kExitOk)
        << one.command << outcome.err;
  }
}

class CliContractWithDaemon : public testing::Test, protected fake::ControlDaemon {};

TEST_F(CliContractWithDaemon, WhatTheDaemonRefusesIsOne) {
  serve(fake::refusal("403 Forbidden", "DENIED", "not for you"));
  for (const Contract& one : contract) {
    if (!one.needs_daemon) continue;
    std::vector<std::string> line{"--socket", socket_, one.command};
    line.insert(line.end(), one.arguments.begin(), one.arguments.end());
    const Outcome outcome = run(line);
    EXPECT_EQ(outcome.status, kExitFailed) << one.command << outcome.err;
    EXPECT_THAT(outcome.out + outcome.err, HasSubstr("not for you")) << one.command;
  }
}

TEST(CliContract, TheShellsAreFixedWordsAndNamesAreAsked) {
  const CliDescription cli = describe_cli();
  const auto& completion = find(cli, "completion")->arguments;
  EXPECT_THAT(completion.back().words, testing::ElementsAre("bash", "zsh", "fish"));
  EXPECT_EQ(completion.back().value, "bash|zsh|fish");
  const auto& pin = find(cli, "pin")->arguments;
  EXPECT_EQ(pin.back().kind, ArgumentKind::image);
  EXPECT_TRUE(pin.back().required);
  EXPECT_EQ(find(cli, "renew")->arguments.back().kind, ArgumentKind::registry);
  EXPECT_TRUE(std::ranges::any_of(find(cli, "warm")->arguments,
                                  [](const auto& one) { return one.repeats; }));
  EXPECT_EQ(run({"completion", "tcsh"}).status, kExitBadUsage);
}

TEST(CliContract, CompletionsComeAsJsonToo) {
  for (const std::string shell : {"bash", "zsh", "fish"}) {
    const std::string script = run({"completion", shell}).out;
    const auto answer = boost::json::parse(run({"completion", shell, "--json"}).out);
    EXPECT_EQ(answer.at("shell").as_string(), shell);
    EXPECT_EQ(answer.at("script").as_string(), script);
    for (const Contract& one : contract) EXPECT_THAT(script, HasSubstr(one.command));
  }
}

}  // namespace
}  // namespace staithe::daemon
