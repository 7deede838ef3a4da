#include "daemon/edit_yaml.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace staithe::daemon {
namespace {

using testing::HasSubstr;

constexpr const char* kUrl = "http://127.0.0.1:5050";

std::string add(std::string_view text, const std::vector<std::string>& hosts = {"docker.io"}) {
  const auto result = add_mirrors(text, hosts, kUrl);
  return result ? *result : "refused: " + result.error().detail;
}

const std::string kEntry = "  \"docker.io\":\n    endpoint:\n      - \"http://127.0.0.1:5050\"\n";

TEST(EditYaml, WritesANewFile) {
  EXPECT_EQ(add(""), "mirrors:\n" + kEntry);
  EXPECT_EQ(add("", {"*"}),
            "mirrors:\n  \"*\":\n    endpoint:\n      - \"http://127.0.0.1:5050\"\n");
}

TEST(EditYaml, AddsMirrorsToAFileWithoutThem) {
  EXPECT_EQ(add("# mine\nconfigs:\n  r:\n    auth:\n      username: u"),
            "# mine\nconfigs:\n  r:\n    auth:\n      username: u\nmirrors:\n" + kEntry);
}

TEST(EditYaml, AddsAnEntryInTheIndentOfTheOthers) {
  const std::string rest =
      "    # theirs\n    quay.io: # q\n        endpoint: [\"https://m\"]\n    host:5000:\n"
      "        endpoint:\n        - x\nconfigs: {}\n";
  EXPECT_EQ(add("---\nmirrors: # m\n" + rest),
            "---\nmirrors: # m\n    \"docker.io\":\n      endpoint:\n"
            "        - \"http://127.0.0.1:5050\"\n" +
                rest);
  EXPECT_EQ(add("mirrors:"), "mirrors:\n" + kEntry);
}

TEST(EditYaml, ChangesNothingThatIsThereAlready) {
  for (const std::string& text :
       {"mirrors:\n" + kEntry, std::string("mirrors:\n  'docker.io':\n    endpoint: ['https://x', "
                                           "'http://127.0.0.1:5050']\n")})
    EXPECT_EQ(add(text), text);
}

TEST(EditYaml, LeavesItToTheOwnerWhichEndpointIsFirst) {
  EXPECT_THAT(add("mirrors:\n  docker.io:\n    endpoint: [\"https://m\"]\n"),
              HasSubstr("refused: line 2: docker.io has endpoints of its own"));
  // Another port is another endpoint.
  EXPECT_THAT(add("mirrors:\n  docker.io:\n    endpoint: [\"http://127.0.0.1:50501\"]\n"),
              HasSubstr("refused"));
}

TEST(EditYaml, RefusesFormsThatItDoesNotKnow) {
  for (const char* text :
       {"mirrors: {}\n", "mirrors: {docker.io: {endpoint: [x]}}\n", "mirrors: &a\n  x:\n",
        "{mirrors: 1}\n", "mirrors:\n\tx:\n", "mirrors:\n  <<: *a\n", "mirrors:\nmirrors:\n",
        "mirrors:\n  x: {}\n", "- mirrors\n", "mirrors:\n    x:\n  y:\n", "---\na: 1\n---\nb: 1\n",
        "mirrors:\n  x:\n  x:\n", "mirrors:\n  - x\n", "mirrors:\n  \"a\\tb\":\n", "? x\n: y\n"})
    EXPECT_THAT(add(text), HasSubstr("refused: line ")) << text;
}

// Found by fuzzing: such a file would have got its mirrors twice, or, with a carriage return at its
// end, could not have been edited again.
TEST(EditYaml, RefusesControlCharacters) {
  for (const char* text :
       {"# a\rmirrors:\n", "a: 1\r\r\n", "a: \x01\n", "a: 1\n \x1a", "a: 1\r\n \r"})
    EXPECT_THAT(add(text), HasSubstr("a control character")) << text;
}

TEST(EditYaml, KeepsTheLineEndsOfTheFile) {
  EXPECT_EQ(add("mirrors:\r\n"),
            "mirrors:\r\n  \"docker.io\":\r\n    endpoint:\r\n"
            "      - \"http://127.0.0.1:5050\"\r\n");
}

}  // namespace
}  // namespace staithe::daemon
