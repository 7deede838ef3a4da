#include "daemon/edit_json.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <boost/json/parse.hpp>
#include <boost/json/value.hpp>
#include <string>

namespace staithe::daemon {
namespace {

using testing::HasSubstr;

constexpr const char* kUrl = "http://127.0.0.1:5050";

std::string put(std::string_view text) {
  const auto result = put_first_in_list(text, "registry-mirrors", kUrl);
  return result ? *result : "refused: " + result.error().detail;
}

TEST(EditJson, PutsAListIntoAnObject) {
  EXPECT_EQ(put("{}"), "{\n  \"registry-mirrors\": [\"http://127.0.0.1:5050\"]\n}");
  EXPECT_EQ(put("{\n    \"debug\": true\n}\n"),
            "{\n    \"registry-mirrors\": [\"http://127.0.0.1:5050\"],\n    \"debug\": true\n}\n");
  EXPECT_EQ(put("{\"a\":1}"), "{\"registry-mirrors\": [\"http://127.0.0.1:5050\"], \"a\":1}");
}

TEST(EditJson, PutsAnItemBeforeTheOthers) {
  EXPECT_EQ(put("{\"a\": {\"registry-mirrors\": [1, \"]\"]}, \"registry-mirrors\": [\n"
                "    \"https://m\"\n  ]}"),
            "{\"a\": {\"registry-mirrors\": [1, \"]\"]}, \"registry-mirrors\": [\n"
            "    \"http://127.0.0.1:5050\",\n    \"https://m\"\n  ]}");
  EXPECT_EQ(put("{\"registry-mirrors\":[]}"), "{\"registry-mirrors\":[\"http://127.0.0.1:5050\"]}");
  EXPECT_EQ(
      put("{\"x\": \"a\\\"b\", \"registry-mirrors\":[\"https://m\"] }"),
      "{\"x\": \"a\\\"b\", \"registry-mirrors\":[\"http://127.0.0.1:5050\", \"https://m\"] }");
}

TEST(EditJson, ChangesNothingThatIsThereAlready) {
  for (const char* text : {"{\"registry-mirrors\": [\"https://m\", \"http://127.0.0.1:5050\"]}",
                           "{\"registry-mirrors\": [\"http://127.0.0.1:5050/\"]}"})
    EXPECT_EQ(put(text), text);
}

TEST(EditJson, RefusesWhatItDoesNotUnderstand) {
  EXPECT_THAT(put("{\"a\": 1,}"), HasSubstr("refused: it is not JSON"));
  EXPECT_THAT(put("[]"), HasSubstr("refused: it is not one JSON object"));
  EXPECT_THAT(put("{\"registry-mirrors\": \"https://m\"}"), HasSubstr("is not a list"));
  EXPECT_THAT(put(""), HasSubstr("refused"));
}

}  // namespace
}  // namespace staithe::daemon
