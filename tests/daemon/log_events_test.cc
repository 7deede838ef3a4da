// The lines that operators see are a promise: each stands in docs/logs.md with its level.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <regex>
#include <set>
#include <sstream>
#include <string>

namespace staithe::daemon {
namespace {

const std::filesystem::path root = STAITHE_SOURCE_DIR;

std::string contents(const std::filesystem::path& path) {
  std::ifstream file(path);
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

TEST(LogEvents, StandInTheDocumentation) {
  // Event -> the levels that are written out where it is logged; none where the level is computed.
  std::map<std::string, std::set<std::string>> logged;
  const std::regex call(R"re(\blog::(info|warn|error|write)\(([^"{]*)"([^"]+)")re");
  for (const char* folder : {"cache", "proxy", "daemon"}) {
    for (const auto& entry : std::filesystem::recursive_directory_iterator(root / folder)) {
      if (entry.path().extension() != ".cc") continue;
      const std::string text = contents(entry.path());
      for (std::sregex_iterator it(text.begin(), text.end(), call), end; it != end; ++it) {
        auto& levels = logged[(*it)[3].str()];
        if ((*it)[1] != "write") levels.insert((*it)[1].str());
      }
    }
  }
  EXPECT_GT(logged.size(), 40U);
  std::map<std::string, std::string> documented;
  const std::string page = contents(root / "docs/logs.md");
  const std::regex row(
      R"re(\n\| `([^`]+)` \| ((?:error|warn|info|debug)(?:, (?:error|warn|info|debug))*) \|)re");
  for (std::sregex_iterator it(page.begin(), page.end(), row), end; it != end; ++it)
    documented.emplace((*it)[1].str(), (*it)[2].str());
  for (const auto& [event, levels] : logged) {
    ASSERT_TRUE(documented.contains(event)) << event;
    for (const std::string& level : levels)
      EXPECT_NE(documented.at(event).find(level), std::string::npos) << event;
  }
  for (const auto& [event, levels] : documented)
    EXPECT_TRUE(logged.contains(event)) << "no line says any more: " << event;
}

}  // namespace
}  // namespace staithe::daemon
