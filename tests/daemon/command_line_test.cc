#include "daemon/command_line.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

namespace staithe::daemon {
namespace {

using testing::HasSubstr;

std::variant<Run, Exit> parse(std::vector<const char*> arguments) {
  arguments.insert(arguments.begin(), "staithed");
  return parse_command_line(static_cast<int>(arguments.size()), arguments.data());
}

TEST(CommandLine, WithoutArgumentsRunsWithTheDefaultFile) {
  const auto result = parse({});
  const daemon::Run& run = std::get<daemon::Run>(result);
  EXPECT_FALSE(run.config_file);
  EXPECT_FALSE(run.check);
}

TEST(CommandLine, TakesTheFileInEitherForm) {
  EXPECT_EQ(std::get<daemon::Run>(parse({"--config", "a.toml"})).config_file, "a.toml");
  const auto both = parse({"--config=b.toml", "--check"});
  EXPECT_EQ(std::get<daemon::Run>(both).config_file, "b.toml");
  EXPECT_TRUE(std::get<daemon::Run>(both).check);
}

TEST(CommandLine, SaysWhatIsWrongInOneLineWithStatus2) {
  const std::vector<std::pair<std::vector<const char*>, const char*>> cases{
      {{"--config"}, "needs the name of a file"},
      {{"--config="}, "needs the name of a file"},
      {{"--config", "a", "--config", "b"}, "given twice"},
      {{"--cofnig", "a"}, "unknown argument"},
      {{"a.toml"}, "unknown argument"},
      {{""}, "unknown argument"},
      {{"--check=yes"}, "unknown argument"},
      {{"\x1b[31m"}, "\\x1b[31m"}};
  for (const auto& [arguments, what] : cases) {
    const auto result = parse(arguments);
    const Exit& exit = std::get<Exit>(result);
    EXPECT_EQ(exit.code, 2);
    EXPECT_THAT(exit.text, HasSubstr(what));
    EXPECT_EQ(exit.text.find('\n'), exit.text.size() - 1) << exit.text;
  }
}

TEST(CommandLine, HelpNamesEveryKeyAndDefault) {
  const auto result = parse({"--help"});
  const Exit& exit = std::get<Exit>(result);
  EXPECT_EQ(exit.code, 0);
  for (const char* text : {"--config FILE", "--check", "[limits]", "idle_timeout = \"150s\"",
                           "[[registry]]", "[identity.NAME]", "1 to 1000000"}) {
    EXPECT_THAT(exit.text, HasSubstr(text));
  }
}

TEST(CommandLine, VersionIsOneLine) {
  const auto result = parse({"--check", "--version"});
  EXPECT_EQ(std::get<Exit>(result).code, 0);
  EXPECT_EQ(std::get<Exit>(result).text, "staithed " STAITHE_VERSION "\n");
}

}  // namespace
}  // namespace staithe::daemon
