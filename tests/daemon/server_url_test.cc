#include "daemon/server_url.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <string>
#include <vector>

#include "daemon/image_name.h"
#include "proxy/reference.h"

namespace staithe::daemon {
namespace {

using testing::HasSubstr;
using testing::Not;
using namespace std::string_literals;

TEST(ServerUrl, IsReadInEveryFormThatClientsWrite) {
  const std::vector<std::pair<std::string, ServerUrl>> cases{
      {"contoso.azurecr.io", {"contoso.azurecr.io", "", ""}},
      {"Contoso.AzureCR.io", {"contoso.azurecr.io", "", ""}},
      {"contoso.azurecr.io:443", {"contoso.azurecr.io", "", ""}},
      {"contoso.azurecr.io:8443", {"contoso.azurecr.io:8443", "", ""}},
      {"https://contoso.azurecr.io", {"contoso.azurecr.io", "", ""}},
      {"https://contoso.azurecr.io/", {"contoso.azurecr.io", "", ""}},
      {"HTTPS://contoso.azurecr.io/", {"contoso.azurecr.io", "", ""}},
      {"http://localhost:5000", {"localhost:5000", "", ""}},
      {"https://contoso.azurecr.io/v1/", {"contoso.azurecr.io", "", ""}},
      {"https://contoso.azurecr.io/v2", {"contoso.azurecr.io", "", ""}},
      {"https://contoso.azurecr.io/v2/app", {"contoso.azurecr.io", "v2/app", ""}},
      {"https://contoso.azurecr.io/team-a/web", {"contoso.azurecr.io", "team-a/web", ""}},
      {"contoso.azurecr.io/team-a/web/", {"contoso.azurecr.io", "team-a/web", ""}},
      {"docker.io", {"docker.io", "", ""}},
      {"index.docker.io", {"docker.io", "", ""}},
      {"registry-1.docker.io", {"docker.io", "", ""}},
      {"https://index.docker.io/v1/", {"docker.io", "", ""}},
      {"https://index.docker.io/v1", {"docker.io", "", ""}},
      {"https://registry-1.docker.io/v2/", {"docker.io", "", ""}},
      {"https://docker.io/library/redis", {"docker.io", "library/redis", ""}},
      {"https://index.docker.io/v1/access-token", {"docker.io", "", "access-token"}},
      {"https://index.docker.io/v1/refresh-token", {"docker.io", "", "refresh-token"}},
      {"[fd00::1]:5000", {"[fd00::1]:5000", "", ""}},
      {"10.0.0.1:5000", {"10.0.0.1:5000", "", ""}}};
  for (const auto& [text, expected] : cases) {
    const auto url = parse_server_url(text);
    ASSERT_TRUE(url) << text << ": " << url.error().detail;
    EXPECT_EQ(url->registry, expected.registry) << text;
    EXPECT_EQ(url->repository, expected.repository) << text;
    EXPECT_EQ(url->note, expected.note) << text;
  }
}

// CVE-2020-5260 and its kin: what a helper's line protocol, a URL parser or a terminal would read
// as another host, or as two.
TEST(ServerUrl, IsRefusedIfItIsNotOneWellFormedHost) {
  const std::vector<std::string> hostile{"",
                                         "/",
                                         "//",
                                         "https://",
                                         "https:///",
                                         "https:///contoso.azurecr.io",
                                         ":443",
                                         "https://:443",
                                         "a\nb",
                                         "contoso.azurecr.io\n",
                                         "contoso.azurecr.io\r\nhost=evil.example",
                                         "contoso.azurecr.io\0.evil.example"s,
                                         "\0"s,
                                         "contoso.azurecr.io\x7f",
                                         "contoso.azurecr.io\x1b[2J",
                                         "contoso .azurecr.io",
                                         "contoso.azurecr.io\t",
                                         "contoso\u2024azurecr.io",
                                         "c\xc3\xb6ntoso.azurecr.io",
                                         "\xff\xfe",
                                         "user@contoso.azurecr.io",
                                         "https://user:secret@contoso.azurecr.io/",
                                         "https://contoso.azurecr.io@evil.example",
                                         "https://contoso.azurecr.io\\@evil.example",
                                         "https://contoso.azurecr.io?x=y",
                                         "https://contoso.azurecr.io#evil.example",
                                         "https://contoso.azurecr.io/%2e%2e/",
                                         "https://contoso.azurecr.io%2fevil.example",
                                         "https://contoso.azurecr.io/..",
                                         "https://contoso.azurecr.io/../evil",
                                         "https://contoso.azurecr.io//evil",
                                         "https://contoso.azurecr.io/Upper",
                                         "https://contoso.azurecr.io/app:tag",
                                         "ftp://contoso.azurecr.io",
                                         "file:///etc/passwd",
                                         "https://https://contoso.azurecr.io",
                                         "javascript:alert(1)",
                                         "contoso.azurecr.io:",
                                         "contoso.azurecr.io:port",
                                         "contoso.azurecr.io:123456",
                                         "contoso.azurecr.io:80:80",
                                         ".contoso.azurecr.io",
                                         "-contoso.azurecr.io",
                                         "contoso..azurecr.io",
                                         "contoso.azurecr.io.",
                                         "[fd00::1",
                                         "[]",
                                         "[not-an-address]",
                                         "*.azurecr.io",
                                         "$(id).azurecr.io",
                                         "a;b",
                                         "--help",
                                         std::string(300, 'a'),
                                         "https://contoso.azurecr.io/" + std::string(300, 'a'),
                                         std::string(kMaxServerUrlBytes + 1, 'a')};
  for (const std::string& text : hostile) {
    const auto url = parse_server_url(text);
    ASSERT_FALSE(url) << testing::PrintToString(text) << " was taken for " << url->registry;
    EXPECT_EQ(url.error().code, Errc::name_invalid);
    EXPECT_THAT(url.error().detail, HasSubstr("a server is written host"));
    EXPECT_THAT(url.error().detail, Not(HasSubstr("secret")));
    EXPECT_TRUE(
        std::ranges::all_of(url.error().detail, [](char c) { return c >= ' ' && c <= '~'; }));
  }
}

// Whatever comes in: what is accepted is a registry of the grammar, and says the same when it is
// written and read again.
TEST(ServerUrl, ThatIsAcceptedIsStableAndClean) {
  const std::vector<std::string> pieces{
      "https://",    "http://", "contoso", "azurecr.io", "docker.io", "index.docker.io",
      ".",           ":",       "/",       "443",        "5000",      "v1",
      "v2",          "library", "@",       "?",          "\n",        "\r",
      "\0"s,         "%",       "\\",      "[",          "]",         "::1",
      "-",           "_",       "A",       "\x80",       " ",         "app",
      "access-token"};
  std::mt19937 random(20'261);
  int accepted = 0;
  for (int turn = 0; turn < 20'000; ++turn) {
    std::string text;
    for (auto left = random() % 7; left > 0; --left) text += pieces[random() % pieces.size()];
    const auto url = parse_server_url(text);
    if (!url) continue;
    ++accepted;
    ASSERT_EQ(proxy::parse_registry(url->registry).value(), url->registry) << text;
    ASSERT_TRUE(url->repository.empty() || proxy::is_repository(url->repository)) << text;
    ASSERT_TRUE(url->repository.empty() || url->note.empty()) << text;
    ASSERT_EQ(text.find_first_of("@?\n\r%\\ "), std::string::npos) << text;
    const auto again = parse_server_url(to_server_url(url->registry));
    ASSERT_TRUE(again) << text;
    ASSERT_EQ(*again, (ServerUrl{url->registry, "", ""})) << text;
  }
  EXPECT_GT(accepted, 300);
}

TEST(ServerUrl, IsWrittenAsDockerAsksForIt) {
  EXPECT_EQ(to_server_url("contoso.azurecr.io"), "https://contoso.azurecr.io");
  EXPECT_EQ(to_server_url("localhost:5000"), "https://localhost:5000");
  EXPECT_EQ(to_server_url("docker.io"), "https://index.docker.io/v1/");
}

TEST(ServerUrl, IsAzuresOnlyBelowAWholeSuffix) {
  for (const char* host : {"contoso.azurecr.io", "contoso.azurecr.io:8443", "contoso.azurecr.cn",
                           "contoso.azurecr.us", "contoso.westeurope.geo.azurecr.io"}) {
    EXPECT_TRUE(is_acr_host(host)) << host;
  }
  for (const char* host :
       {"azurecr.io", ".azurecr.io", "notazurecr.io", "contoso.azurecr.io.evil.example",
        "contoso-azurecr.io", "contoso.azurecr.com", "", "azurecr.io:443"}) {
    EXPECT_FALSE(is_acr_host(host)) << host;
  }
}

TEST(ImageName, IsReadAsClientsReadIt) {
  const std::string digest = "sha256:" + std::string(64, 'a');
  const std::vector<std::pair<std::string, ImageName>> cases{
      {"redis", {"docker.io", "docker.io", "library/redis", ""}},
      {"redis:7", {"docker.io", "docker.io", "library/redis", "7"}},
      {"team/app:1", {"docker.io", "docker.io", "team/app", "1"}},
      {"docker.io/redis", {"docker.io", "docker.io", "library/redis", ""}},
      {"index.docker.io/library/redis", {"index.docker.io", "docker.io", "library/redis", ""}},
      {"contoso.azurecr.io/app/web:1",
       {"contoso.azurecr.io", "contoso.azurecr.io", "app/web", "1"}},
      {"contoso.azurecr.io/app@" + digest,
       {"contoso.azurecr.io", "contoso.azurecr.io", "app", digest}},
      {"contoso.azurecr.io/app:1@" + digest,
       {"contoso.azurecr.io", "contoso.azurecr.io", "app", digest}},
      {"contoso.azurecr.io:443/app", {"contoso.azurecr.io:443", "contoso.azurecr.io", "app", ""}},
      {"localhost/app", {"localhost", "localhost", "app", ""}},
      {"localhost:5000/app:v1", {"localhost:5000", "localhost:5000", "app", "v1"}}};
  for (const auto& [text, expected] : cases) {
    const auto image = parse_image_name(text);
    ASSERT_TRUE(image) << text << ": " << image.error().detail;
    EXPECT_EQ(image->host, expected.host) << text;
    EXPECT_EQ(image->registry, expected.registry) << text;
    EXPECT_EQ(image->repository, expected.repository) << text;
    EXPECT_EQ(image->reference, expected.reference) << text;
  }
}

TEST(ImageName, IsRefusedIfNobodyCouldPullIt) {
  for (const std::string& text :
       {""s, "/"s, "App"s, "contoso.azurecr.io/"s, "contoso.azurecr.io/app:"s,
        "contoso.azurecr.io/app:a b"s, "contoso.azurecr.io/app@sha256:12"s,
        "contoso.azurecr.io/app@latest"s, "contoso..azurecr.io/app"s,
        "https://contoso.azurecr.io/app"s, "contoso.azurecr.io/app\n"s,
        "contoso.azurecr.io/a/../b"s, "app\0"s, "contoso.azurecr.io/" + std::string(2000, 'a')}) {
    EXPECT_FALSE(parse_image_name(text)) << text;
  }
}

}  // namespace
}  // namespace staithe::daemon
