#include "daemon/unified_diff.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "cache/random.h"

namespace staithe::daemon {
namespace {

using testing::HasSubstr;
using testing::Not;

TEST(UnifiedDiff, IsEmptyForEqualTexts) { EXPECT_EQ(unified_diff("f", "a\n", "a\n"), ""); }

TEST(UnifiedDiff, ShowsANewFile) {
  EXPECT_EQ(unified_diff("/f", std::nullopt, "a\nb\n"),
            "--- /dev/null\n+++ /f\n@@ -0,0 +1,2 @@\n+a\n+b\n");
}

TEST(UnifiedDiff, ShowsThreeLinesAround) {
  EXPECT_EQ(unified_diff("f", "1\n2\n3\n4\n5\n6\n7\n8\n9\n", "1\n2\n3\n4\nx\n6\n7\n8\n9\n"),
            "--- f\n+++ f\n@@ -2,7 +2,7 @@\n 2\n 3\n 4\n-5\n+x\n 6\n 7\n 8\n");
}

TEST(UnifiedDiff, SaysThatTheLastLineHasNoEnd) {
  EXPECT_EQ(unified_diff("f", "a", "a\n"),
            "--- f\n+++ f\n@@ -1 +1 @@\n-a\n\\ No newline at end of file\n+a\n");
}

std::string random_text(Random& random, int lines) {
  std::string text;
  for (int i = 0; i < lines; ++i)
    text += std::string(1, static_cast<char>('a' + random.next() % 5)) + "\n";
  if (!text.empty() && random.next() % 4 == 0) text.pop_back();
  return text;
}

// What `patch -p0` would do with it, after the format.
std::string patched(const std::string& before, const std::string& diff) {
  const auto lines_of = [](const std::string& text) {
    std::vector<std::string> lines;
    std::string line;
    for (const char c : text) {
      line += c;
      if (c == '\n') lines.push_back(std::exchange(line, {}));
    }
    if (!line.empty()) lines.push_back(line);
    return lines;
  };
  const auto old_lines = lines_of(before);
  const auto lines = lines_of(diff);
  std::string result;
  std::size_t at = 0;
  for (std::size_t i = 0; i < lines.size(); ++i) {
    const std::string& line = lines[i];
    if (line.starts_with("---") || line.starts_with("+++")) continue;
    const bool open = i + 1 < lines.size() && lines[i + 1].starts_with("\\");
    std::string content = line.substr(1);
    if (open) content.pop_back();
    if (line[0] == '@') {
      const std::size_t comma = line.find_first_of(", ", 4);
      std::size_t begin = std::stoul(line.substr(4));
      const bool none = line.substr(comma, 3) == ",0 ";
      if (!none) --begin;
      while (at < begin) result += old_lines[at++];
    } else if (line[0] == ' ' || line[0] == '-') {
      EXPECT_EQ(old_lines.at(at), content);
      ++at;
      if (line[0] == ' ') result += content;
    } else if (line[0] == '+') {
      result += content;
    }
  }
  while (at < old_lines.size()) result += old_lines[at++];
  return result;
}

TEST(UnifiedDiff, AppliedToTheOldTextGivesTheNew) {
  SeededRandom random(7);
  for (int i = 0; i < 500; ++i) {
    const std::string before = random_text(random, static_cast<int>(random.next() % 30));
    const std::string after = random_text(random, static_cast<int>(random.next() % 30));
    EXPECT_EQ(patched(before, unified_diff("f", before, after)), after) << before << "--\n"
                                                                        << after;
  }
}

TEST(UnifiedDiff, ShowsNoSecrets) {
  EXPECT_EQ(without_secrets(" [x.auth]\n"), " [x.auth]\n");
  const std::string diff = without_secrets(unified_diff(
      "f", "[x.auth]\n  password = \"p1\"\n  identityToken: p2\n\"auth\": \"p3\",\nkey = 1\n",
      "[x.auth]\n  password = \"p1\"\n  identityToken: p2\n\"auth\": \"p3\",\nkey = 2\n"));
  EXPECT_THAT(diff, HasSubstr("   password = (not shown)\n"));
  EXPECT_THAT(diff, HasSubstr("+key = 2\n"));
  for (const char* secret : {"p1", "p2", "p3"}) EXPECT_THAT(diff, Not(HasSubstr(secret)));
  EXPECT_EQ(without_secrets("+{\"a\": 1, \"auth\": \"x\"}\n"),
            "+{\"a\": 1, \"auth\": (not shown)\n");
}

TEST(WithoutChange, TakesOursOutAndLeavesTheirs) {
  EXPECT_EQ(without_change("a\nb\nc\n", "a\nours\nb\nc\n", "a\nours\nb\nc\ntheirs\n"),
            "a\nb\nc\ntheirs\n");
  EXPECT_EQ(without_change("a\nb\nc\nd\n", "a\nb\nc\nOURS\n", "x\na\nb\nc\nOURS\n"),
            "x\na\nb\nc\nd\n");
}

TEST(WithoutChange, GivesUpWhereBothTouch) {
  EXPECT_EQ(without_change("a\nb\n", "a\nours\nb\n", "a\nours!\nb\n"), std::nullopt);
  EXPECT_EQ(without_change("a\nb\n", "a\nours\nb\n", "a\nours\ntheirs\nb\n"), std::nullopt);
  EXPECT_EQ(without_change("a\n", "a\nours\n", "a\n"), std::nullopt);
}

TEST(WithoutChange, IsTheOldTextIfNothingElseHasChanged) {
  SeededRandom random(11);
  for (int i = 0; i < 500; ++i) {
    const std::string before = random_text(random, static_cast<int>(random.next() % 20));
    const std::string after = random_text(random, static_cast<int>(random.next() % 20));
    EXPECT_EQ(without_change(before, after, after), before);
  }
}

}  // namespace
}  // namespace staithe::daemon
