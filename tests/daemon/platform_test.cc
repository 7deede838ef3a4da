#include "daemon/platform.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace staithe::daemon {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

std::string parsed(std::string_view text) {
  const auto platform = parse_platform(text);
  return platform ? platform->to_string() : "refused";
}

TEST(Platform, HasOneSpelling) {
  EXPECT_EQ(parsed("linux/amd64"), "linux/amd64");
  EXPECT_EQ(parsed("Linux/X86_64"), "linux/amd64");
  EXPECT_EQ(parsed("linux/amd64/v1"), "linux/amd64");
  EXPECT_EQ(parsed("linux/amd64/v3"), "linux/amd64/v3");
  EXPECT_EQ(parsed("linux/aarch64"), "linux/arm64");
  EXPECT_EQ(parsed("linux/arm64/v8"), "linux/arm64");
  EXPECT_EQ(parsed("linux/arm64/8"), "linux/arm64");
  EXPECT_EQ(parsed("linux/arm"), "linux/arm/v7");
  EXPECT_EQ(parsed("linux/arm/6"), "linux/arm/v6");
  EXPECT_EQ(parsed("linux/armhf"), "linux/arm/v7");
  EXPECT_EQ(parsed("linux/i386"), "linux/386");
  EXPECT_EQ(parsed("macos/arm64"), "darwin/arm64");
}

TEST(Platform, IsItselfWhenReadAgain) {
  for (const char* text : {"linux/amd64/v2", "linux/arm/v5", "windows/amd64", "linux/riscv64"})
    EXPECT_EQ(parsed(parsed(text)), parsed(text));
}

TEST(Platform, ThatNobodyHasIsRefusedWithWhatWasMeant) {
  for (const char* text :
       {"", "linux", "linux/", "/amd64", "linux/amd64/", "linux/amd64/v1/x", "linux/amd46",
        "lixun/amd64", "linux/amd64/\x1b", "amd64", "ALL", "linux/arm64/aaaaaaaaaaaaaaaaaaaa"})
    EXPECT_EQ(parsed(text), "refused") << text;
  EXPECT_THAT(parse_platform("linux/amd46").error().detail, HasSubstr("did you mean \"amd64\"?"));
  EXPECT_THAT(parse_platform("linux/amd46").error().detail, HasSubstr("\"linux/arm64/v8\""));
}

TEST(PlatformChoice, IsAllOrOneOrThisMachines) {
  EXPECT_FALSE(parse_platform_choice("all")->platform);
  EXPECT_EQ(parse_platform_choice("linux/arm")->to_string(), "linux/arm/v7");
  EXPECT_EQ(*parse_platform_choice("")->platform, own_platform());
  EXPECT_EQ(parsed(own_platform().to_string()), own_platform().to_string());
  EXPECT_FALSE(parse_platform_choice("some"));
}

std::vector<std::string> runs(std::string_view text) {
  std::vector<std::string> names;
  for (const Platform& platform : runnable_on(*parse_platform(text)))
    names.push_back(platform.to_string());
  return names;
}

TEST(Platform, RunsWhatIsOlderThanItself) {
  EXPECT_THAT(runs("linux/amd64"), ElementsAre("linux/amd64", "linux/386"));
  EXPECT_THAT(runs("linux/amd64/v3"),
              ElementsAre("linux/amd64/v3", "linux/amd64/v2", "linux/amd64", "linux/386"));
  EXPECT_THAT(runs("linux/arm/v7"), ElementsAre("linux/arm/v7", "linux/arm/v6", "linux/arm/v5"));
  EXPECT_THAT(runs("linux/arm64"), ElementsAre("linux/arm64", "linux/arm/v8", "linux/arm/v7",
                                               "linux/arm/v6", "linux/arm/v5"));
  EXPECT_THAT(runs("linux/s390x"), ElementsAre("linux/s390x"));
}

std::string digest(char c) { return "sha256:" + std::string(64, c); }

std::string entry(char c, const std::string& platform) {
  return R"({"digest":")" + digest(c) + R"(","size":1,"platform":)" + platform + "}";
}

std::string index() {
  return R"({"manifests":[)" + entry('a', R"({"os":"linux","architecture":"amd64"})") + "," +
         entry('b', R"({"os":"linux","architecture":"arm64","variant":"v8"})") + "," +
         entry('c', R"({"os":"linux","architecture":"arm","variant":"v6"})") + "," +
         entry('d', R"({"os":"unknown","architecture":"unknown"})") + "," +
         entry('e', R"({"os":"windows","architecture":"amd64","os.version":"10.0.1"})") + "," +
         entry('f', R"({"os":"windows","architecture":"amd64","os.version":"10.0.2"})") + "]}";
}

std::string taken(const std::string& document, std::string_view choice) {
  std::string marks;
  for (const IndexEntry& one : chosen(index_entries(document), *parse_platform_choice(choice)))
    marks += one.digest.to_string()[7];
  return marks;
}

TEST(Index, GivesAClientWhatItRuns) {
  EXPECT_EQ(taken(index(), "linux/amd64"), "a");
  EXPECT_EQ(taken(index(), "linux/amd64/v3"), "a");
  EXPECT_EQ(taken(index(), "linux/arm64"), "b");
  EXPECT_EQ(taken(index(), "linux/arm/v7"), "c");
  EXPECT_EQ(taken(index(), "linux/arm/v5"), "");
  EXPECT_EQ(taken(index(), "linux/s390x"), "");
  // Which of them depends on the version of the host.
  EXPECT_EQ(taken(index(), "windows/amd64"), "ef");
  EXPECT_EQ(taken(index(), "all"), "abcdef");
}

TEST(Index, NamesThePlatformsThatItHas) {
  EXPECT_EQ(platforms_of(index_entries(index())),
            "linux/amd64, linux/arm64, linux/arm/v6, windows/amd64");
}

TEST(Index, OfAnotherSizeThanRealOnesIsCut) {
  std::string list;
  for (int i = 0; i < 10'100; ++i) {
    char digits[65];
    std::snprintf(digits, sizeof digits, "%064x", i);
    list += (i > 0 ? "," : "") + (R"({"digest":"sha256:)" + std::string(digits)) +
            R"(","platform":{"os":"linux","architecture":"a)" + std::to_string(i) + "\"}}";
  }
  const auto entries = index_entries(R"({"manifests":[)" + list + "]}");
  EXPECT_EQ(entries.size(), 10'000u);
  const std::string names = platforms_of(entries);
  EXPECT_THAT(names, HasSubstr("linux/a29 and 9970 more"));
  EXPECT_LT(names.size(), 1000u);
}

TEST(Index, WithoutPlatformsIsTakenWhole) {
  const std::string document =
      R"({"manifests":[{"digest":")" + digest('a') + R"("},{"digest":")" + digest('b') + R"("}]})";
  EXPECT_EQ(taken(document, "linux/amd64"), "ab");
}

TEST(Index, SurvivesADocumentThatIsNone) {
  for (const char* text : {"", "[]", "{}", R"({"manifests":{}})", R"({"manifests":[1,{}]})",
                           R"({"manifests":[{"digest":1,"platform":[]}]})", "\xff"})
    EXPECT_THAT(index_entries(text), IsEmpty()) << text;
}

}  // namespace
}  // namespace staithe::daemon
