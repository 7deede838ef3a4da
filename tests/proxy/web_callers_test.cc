// Hosts, browsers' marks, methods and endpoints, each with each, against the registry's door.
#include "tests/fake/web_callers.h"

#include <gtest/gtest.h>

#include <array>
#include <string>
#include <vector>

namespace staithe::proxy {
namespace {

using fake::Answer;
using fake::House;
using fake::Reply;
using fake::WebCaller;

constexpr std::string_view content = R"({"schemaVersion":2,"planted":"content"})";
const std::vector<std::string> methods = {"GET", "HEAD", "OPTIONS", "POST"};

TEST(WebCallers, GetWhatThePolicySaysAndNeverPermissionToRead) {
  House house;
  const auto digest = cache::digest_of(cache::Algorithm::sha256, std::string(content));
  house.upstream.on("https://r.example/v2/app/manifests/", [&](const fake::Asked& asked) {
    return Reply{.status = 200,
                 .headers = {{"Content-Type", "application/vnd.oci.image.manifest.v1+json"},
                             {"Docker-Content-Digest", digest.to_string()}},
                 .body = asked.method == "HEAD" ? "" : std::string(content)};
  });
  const auto blob = house.play_blob("app", "planted content of a blob");
  const std::array targets = {"/v2/r.example/app/manifests/" + digest.to_string(),
                              "/v2/r.example/app/blobs/" + blob.to_string(), std::string("/v2/"),
                              std::string("/healthz")};
  // Twice, so that the front has what it may answer from.
  for (int i = 0; i < 2; ++i)
    for (const std::string& target : targets) ASSERT_EQ(house.get(target).status, 200);
  const auto upstream_before = house.upstream.asked().size();

  // All methods and endpoints of one caller follow each other on one connection.
  std::vector<std::string> asked;
  for (std::size_t i = 0; i < targets.size(); ++i)
    asked.insert(asked.end(), methods.begin(), methods.end());
  std::size_t tried = 0;
  std::size_t served = 0;
  for (const WebCaller& caller : fake::web_callers()) {
    std::string text;
    for (std::size_t i = 0; i < asked.size(); ++i) {
      text += asked[i] + " " + targets[i / methods.size()] + " HTTP/1.1\r\n" + caller.fields;
      text += i + 1 == asked.size() ? "Connection: close\r\n\r\n" : "\r\n";
    }
    const Answer all = house.run(house.ask(text));
    const auto answers = fake::answers_in(all.head + "\r\n" + all.body, asked);
    // What is no request ends the connection.
    ASSERT_EQ(answers.size(), caller.is_well_formed ? asked.size() : 1) << caller.fields;
    for (std::size_t i = 0; i < answers.size(); ++i) {
      const Answer& answer = answers[i];
      const bool reads = asked[i] == "GET" || asked[i] == "HEAD";
      const bool welcome = caller.is_loopback && !caller.is_cross_site;
      const int expected = !caller.is_well_formed ? 400 : !welcome ? 403 : reads ? 200 : 405;
      ASSERT_EQ(answer.status, expected) << asked[i] << '\n' << caller.fields;
      ASSERT_EQ(answer.head.find("Access-Control"), std::string::npos) << answer.head;
      ++tried;
      if (expected == 200) {
        ++served;
        continue;
      }
      ASSERT_EQ(answer.body.find("planted"), std::string::npos) << answer.body;
      ASSERT_TRUE(answer.field("Docker-Content-Digest").empty()) << answer.head;
    }
  }
  EXPECT_EQ(house.upstream.asked().size(), upstream_before);
  // Eight names, and three of the browser's own words beside none.
  EXPECT_EQ(served, 8U * 3 * targets.size() * 2);
  EXPECT_GT(tried, 15'000U);
}

}  // namespace
}  // namespace staithe::proxy
