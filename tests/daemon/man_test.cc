// The man pages say what the program does: what can be made of the command line and of the table of
// options is made of them, and stands between two marks; the rest is written by hand.
//
// STAITHE_UPDATE_MAN=1 daemon_test --gtest_filter='Man.*' writes those parts anew.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <regex>
#include <set>
#include <sstream>
#include <string>
#include <string_view>

#include "daemon/cli_description.h"
#include "daemon/command_line.h"
#include "daemon/option_table.h"

namespace staithe::daemon {
namespace {

using testing::HasSubstr;

const std::filesystem::path pages = std::filesystem::path(STAITHE_SOURCE_DIR) / "docs/man";

std::string contents(const std::filesystem::path& path) {
  std::ifstream file(path);
  EXPECT_TRUE(file) << path;
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

// Text as roff takes it. A line must not begin with a control character.
std::string roff(std::string_view text) {
  std::string result;
  for (const char c : text) {
    const bool begins = result.empty() || result.back() == '\n';
    if (begins && (c == '.' || c == '\'')) result += "\\&";
    if (c == '\\') {
      result += "\\e";
    } else if (c == '-') {
      result += "\\-";
    } else if (c == '"') {
      result += "\\(dq";
    } else {
      result += c;
    }
  }
  return result;
}

std::string argument_heading(const ArgumentDescription& argument) {
  std::string text;
  for (const std::string& flag : argument.flags)
    text += (text.empty() ? "" : ", ") + ("\\fB" + roff(flag) + "\\fR");
  if (argument.kind == ArgumentKind::none) return text;
  return text + (text.empty() ? "" : " ") + "\\fI" + roff(argument.value) + "\\fR";
}

std::string sentence(std::string text) {
  if (!text.ends_with('.')) text += '.';
  return roff(text);
}

std::string arguments_text(const std::vector<ArgumentDescription>& arguments) {
  std::string text;
  for (const ArgumentDescription& argument : arguments) {
    if (!argument.flags.empty() && argument.flags.back() == "--help") continue;
    text += ".TP\n" + argument_heading(argument) + "\n" + sentence(argument.help) + "\n";
  }
  return text;
}

std::string synopsis(const CommandDescription& command) {
  std::string text = "\\fBstaithe " + roff(command.name) + "\\fR";
  for (const ArgumentDescription& argument : command.arguments) {
    if (!argument.flags.empty() && argument.flags.back() == "--help") continue;
    std::string one = argument_heading(argument);
    if (!argument.flags.empty() && argument.flags.size() > 1)
      one = "\\fB" + roff(argument.flags.back()) + "\\fR" + one.substr(one.find("\\fR ") + 3);
    if (argument.repeats) one += "\\|.\\|.\\|.";
    text += argument.required ? " " + one : " [" + one + "]";
  }
  return text;
}

// Examples and other lines that keep their shape, then sentences that are filled.
std::string footer_text(const std::string& footer) {
  std::string text;
  bool in_examples = false;
  std::istringstream lines(footer);
  for (std::string line; std::getline(lines, line);) {
    const bool example = line.starts_with("  ");
    if (line.starts_with("Example")) continue;
    if (example && !in_examples) text += ".PP\n.nf\n.RS\n";
    if (!example && in_examples) text += ".RE\n.fi\n.PP\n";
    if (!example && !in_examples && text.empty()) text += ".PP\n";
    in_examples = example;
    text += roff(example ? line.substr(2) : line) + "\n";
  }
  if (in_examples) text += ".RE\n.fi\n";
  return text;
}

std::string commands_text(const CliDescription& cli) {
  std::string text;
  for (const CommandDescription& command : cli.commands)
    text += ".SS " + roff(command.name) + "\n" + synopsis(command) + "\n.PP\n" +
            sentence(command.help) + "\n" + arguments_text(command.arguments) +
            footer_text(command.footer);
  return text;
}

std::string header_of(const Table& table) {
  const std::string name(table.name);
  if (table.shape == Shape::repeated) return "[[" + name + "]]";
  return table.shape == Shape::named ? "[" + name + ".NAME]" : "[" + name + "]";
}

std::string keys_text() {
  std::string text;
  for (const Table& table : tables()) {
    std::string keys;
    for (const Option& option : options()) {
      if (option.table != table.name) continue;
      const std::string value(option.standard.empty() ? option.example : option.standard);
      keys += ".TP\n\\fB" + roff(option.key) + "\\fR";
      if (!value.empty()) keys += " = " + roff(value);
      keys += "\n" + sentence(std::string(option.help)) + "\n";
      if (option.grammar == Grammar::count || option.grammar == Grammar::duration ||
          option.grammar == Grammar::size || option.grammar == Grammar::word)
        keys += "Accepted: " + roff(accepted(option)) + ".\n";
      if (!option.kinds.empty()) keys += "Of kind " + roff(option.kinds) + ".\n";
    }
    if (keys.empty()) continue;
    text +=
        ".SS " + roff(header_of(table)) + "\n" + sentence(std::string(table.help)) + "\n" + keys;
  }
  return text;
}

// The page with its part `name` replaced.
std::string with_part(const std::string& page, const std::string& name, const std::string& text) {
  const std::string begin = ".\\\" BEGIN generated: " + name + "\n";
  const std::size_t from = page.find(begin);
  const std::size_t to = page.find(".\\\" END generated\n", from);
  EXPECT_NE(from, std::string::npos) << name;
  EXPECT_NE(to, std::string::npos) << name;
  if (from == std::string::npos || to == std::string::npos) return page;
  return page.substr(0, from + begin.size()) + text + page.substr(to);
}

void expect_page(const std::string& name, const std::string& wanted) {
  const std::filesystem::path path = pages / name;
  if (std::getenv("STAITHE_UPDATE_MAN")) std::ofstream(path) << wanted;
  EXPECT_EQ(contents(path), wanted)
      << "write it anew: STAITHE_UPDATE_MAN=1 daemon_test --gtest_filter='Man.*'";
}

TEST(Man, OfTheCommandHasEveryCommandAndOption) {
  const CliDescription cli = describe_cli();
  std::string page = contents(pages / "staithe.1");
  page = with_part(page, "options", arguments_text(cli.options));
  page = with_part(page, "commands", commands_text(cli));
  expect_page("staithe.1", page);
  for (const CommandDescription& command : cli.commands)
    EXPECT_THAT(page, HasSubstr(".SS " + roff(command.name) + "\n"));
}

TEST(Man, OfTheConfigurationHasEveryKey) {
  const std::string page = with_part(contents(pages / "staithe.toml.5"), "keys", keys_text());
  expect_page("staithe.toml.5", page);
  for (const Option& option : options())
    EXPECT_THAT(page, HasSubstr("\\fB" + roff(option.key) + "\\fR"));
}

TEST(Man, OfTheDaemonNamesEveryArgumentAndExitStatus) {
  const std::string page = contents(pages / "staithed.8");
  const char* argv[] = {"staithed", "--help"};
  const std::string help = std::get<Exit>(parse_command_line(2, argv)).text;
  const std::regex flag("--[a-z]+");
  std::set<std::string> flags;
  for (std::sregex_iterator it(help.begin(), help.end(), flag), end; it != end; ++it)
    flags.insert(it->str());
  EXPECT_GE(flags.size(), 4u);
  for (const std::string& one : flags) EXPECT_THAT(page, HasSubstr(roff(one)));
  for (const char* status : {"0", "1", "2", "3"})
    EXPECT_THAT(page, HasSubstr(".TP\n.B " + std::string(status) + "\n"));
}

}  // namespace
}  // namespace staithe::daemon
