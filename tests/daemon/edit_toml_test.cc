#include "daemon/edit_toml.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <toml++/toml.h>

#include <string>

namespace staithe::daemon {
namespace {

using testing::HasSubstr;

const TomlPath kRegistry{"plugins", "io.containerd.grpc.v1.cri", "registry"};

std::string set(std::string_view text, const TomlPath& table, std::string_view key,
                std::string_view value) {
  const auto result = set_toml_key(text, table, key, value);
  return result ? *result : "refused: " + result.error().detail;
}

TEST(EditToml, PutsAKeyBelowItsHeader) {
  EXPECT_EQ(set("# mine\nversion = 2\n\n"
                "[plugins.\"io.containerd.grpc.v1.cri\".registry] # here\n"
                "  # and this\n"
                "  other = 1\n",
                kRegistry, "config_path", "\"/x\""),
            "# mine\nversion = 2\n\n"
            "[plugins.\"io.containerd.grpc.v1.cri\".registry] # here\n"
            "  config_path = \"/x\"\n"
            "  # and this\n"
            "  other = 1\n");
}

TEST(EditToml, ReplacesOnlyTheValue) {
  EXPECT_EQ(set("[a.b] # é\n  key   =   \"\"   # comment\n", {"a", "b"}, "key", "\"/x\""),
            "[a.b] # é\n  key   =   \"/x\"   # comment\n");
  EXPECT_EQ(set("[a]\nkey = [\n  \"x\", # why\n]\nnext = 1\n", {"a"}, "key", "[1]"),
            "[a]\nkey = [1]\nnext = 1\n");
  EXPECT_EQ(set("x = { \"ä\" = \"öü\" }\n[a]\n\"ä\".key = \"\" # é\n", {"a", "ä"}, "key", "\"x\""),
            "x = { \"ä\" = \"öü\" }\n[a]\n\"ä\".key = \"x\" # é\n");
}

TEST(EditToml, AddsATableAtTheEnd) {
  EXPECT_EQ(set("version = 2", kRegistry, "config_path", "\"/x\""),
            "version = 2\n\n[plugins.\"io.containerd.grpc.v1.cri\".registry]\n"
            "  config_path = \"/x\"\n");
  // A table that is there only by its children gets a header of its own.
  EXPECT_EQ(set("[a.b.c]\nx = 1\n", {"a", "b"}, "key", "2"),
            "[a.b.c]\nx = 1\n\n[a.b]\n  key = 2\n");
}

TEST(EditToml, ChangesNothingThatIsSoAlready) {
  const std::string text = "[a]\nkey = 'x' # literal\n";
  EXPECT_EQ(set(text, {"a"}, "key", "\"x\""), text);
}

TEST(EditToml, KeepsTheLineEndsOfTheFile) {
  EXPECT_EQ(set("[a]\r\nb = 1\r\n", {"a"}, "key", "2"), "[a]\r\n  key = 2\r\nb = 1\r\n");
  EXPECT_EQ(set("x = 1\r\n", {"a"}, "key", "2"), "x = 1\r\n\r\n[a]\r\n  key = 2\r\n");
}

TEST(EditToml, RefusesFormsThatItCannotProve) {
  EXPECT_THAT(set("a = { b = 1 }\n", {"a"}, "key", "2"), HasSubstr("refused"));
  EXPECT_THAT(set("a = 1\n", {"a"}, "key", "2"), HasSubstr("refused"));
  EXPECT_THAT(set("a = \n", {"a"}, "key", "2"), HasSubstr("line 1 is not TOML"));
  // A header within a string is none.
  const std::string text = "x = \"\"\"\n[a]\n\"\"\"\n";
  EXPECT_EQ(set(text, {"a"}, "key", "2"), text + "\n[a]\n  key = 2\n");
}

TEST(EditToml, PutsAHostBeforeTheOthers) {
  const auto result = insert_first_table(
      "server = \"https://r\"\n\n# a mirror of ours\n[host.\"https://m\"]\n  ca = \"x\"\n",
      {"host"}, "http://127.0.0.1:5050", "capabilities = [\"pull\"]\n");
  ASSERT_TRUE(result);
  EXPECT_EQ(*result,
            "server = \"https://r\"\n\n[host.\"http://127.0.0.1:5050\"]\n"
            "  capabilities = [\"pull\"]\n\n# a mirror of ours\n[host.\"https://m\"]\n"
            "  ca = \"x\"\n");
  const auto alone = insert_first_table("server = \"https://r\"\n", {"host"}, "h", "a = 1\n");
  ASSERT_TRUE(alone);
  EXPECT_EQ(*alone, "server = \"https://r\"\n\n[host.h]\n  a = 1\n");
  EXPECT_FALSE(insert_first_table("host = { x = { a = 1 } }\n", {"host"}, "h", "a = 1\n"));
}

TEST(EditToml, AppendsTablesOfAnArray) {
  const auto result = append_toml("[[r]]\nx = 1", "[[r]]\nx = 2\n");
  ASSERT_TRUE(result);
  EXPECT_EQ(*result, "[[r]]\nx = 1\n\n[[r]]\nx = 2\n");
  EXPECT_FALSE(append_toml("r = 1\n", "[[r]]\nx = 2\n"));
}

TEST(EditToml, QuotesKeysThatAreNotBare) {
  EXPECT_EQ(toml_header({"a-b", "c.d", "e\"f"}), "[a-b.\"c.d\".\"e\\\"f\"]");
}

}  // namespace
}  // namespace staithe::daemon
