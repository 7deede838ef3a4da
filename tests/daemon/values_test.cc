#include "daemon/values.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "proxy/server.h"

namespace staithe::daemon {
namespace {

using std::chrono::milliseconds;
using testing::HasSubstr;
using testing::Not;

TEST(Duration, HasAWholeNumberAndOneUnit) {
  const std::vector<std::pair<std::string_view, std::int64_t>> cases{
      {"0s", 0},           {"0ms", 0},
      {"1ms", 1},          {"500ms", 500},
      {"10s", 10'000},     {"5m", 300'000},
      {"12h", 43'200'000}, {"7d", 604'800'000},
      {"007s", 7'000},     {"36500d", 36'500LL * 86'400'000}};
  for (const auto& [text, expected] : cases) {
    const auto duration = parse_duration(text);
    ASSERT_TRUE(duration) << text << ": " << duration.error();
    EXPECT_EQ(duration->count(), expected) << text;
  }
}

TEST(Duration, OfAnyOtherFormIsRefusedAndSaysWhatIsAccepted) {
  for (const std::string_view text :
       {"", "10", "s", "10 s", " 10s", "10s ", "-1s", "+1s", "1.5h", "1h30m", "10S", "10sec",
        "10us", "1w", "0x10s", "ten", "10s\n", "\xff"}) {
    const auto duration = parse_duration(text);
    ASSERT_FALSE(duration) << text;
    EXPECT_THAT(duration.error(), HasSubstr("ms, s, m, h or d")) << text;
  }
}

TEST(Duration, ThatWouldOverflowIsRefused) {
  for (const std::string_view text : {"36501d", "99999999999999999999s", "9223372036854775807ms",
                                      "9223372036854775807d", "18446744073709551616ms"}) {
    EXPECT_FALSE(parse_duration(text)) << text;
  }
}

TEST(Duration, SurvivesBeingWrittenAndRead) {
  std::mt19937_64 random(1);
  for (int i = 0; i < 20'000; ++i) {
    // All magnitudes alike.
    const auto ms =
        static_cast<std::int64_t>(random() >> (random() % 64)) % (36'500LL * 86'400'000);
    const milliseconds duration(std::abs(ms));
    const std::string text = format_duration(duration);
    const auto again = parse_duration(text);
    ASSERT_TRUE(again) << text;
    EXPECT_EQ(*again, duration) << text;
  }
  EXPECT_EQ(format_duration(milliseconds(0)), "0s");
  EXPECT_EQ(format_duration(milliseconds(90'000)), "90s");
  EXPECT_EQ(format_duration(milliseconds(86'400'000)), "1d");
}

TEST(Size, IsBytesOrHasABinaryUnitOrIsAShare) {
  struct Case {
    std::string_view text;
    std::uint64_t bytes;
    double share;
  };
  for (const Case& c : std::vector<Case>{{"0", 0, 0},
                                         {"1", 1, 0},
                                         {"1048576", 1 << 20, 0},
                                         {"1KiB", 1024, 0},
                                         {"512MiB", 512ULL << 20, 0},
                                         {"80GiB", 80ULL << 30, 0},
                                         {"2TiB", 2ULL << 40, 0},
                                         {"0%", 0, 0},
                                         {"80%", 0, 0.80},
                                         {"100%", 0, 1.0}}) {
    const auto size = parse_size(c.text);
    ASSERT_TRUE(size) << c.text << ": " << size.error();
    EXPECT_EQ(size->bytes, c.bytes) << c.text;
    EXPECT_DOUBLE_EQ(size->share, c.share) << c.text;
  }
}

TEST(Size, OfAnyOtherFormIsRefused) {
  for (const std::string_view text :
       {"", "GiB", "1 GiB", "1GB", "1G", "1gib", "1.5GiB", "-1", "-1GiB", "101%", "1000%", "12.5%",
        "%", "80 %", "0x10", "9223372036854775808", "8388608TiB", "99999999999999999999999GiB",
        "99999999999999999999%"}) {
    EXPECT_FALSE(parse_size(text)) << text;
  }
  EXPECT_THAT(parse_size("1GB").error(), HasSubstr("KiB, MiB, GiB or TiB"));
  EXPECT_THAT(parse_size("101%").error(), HasSubstr("0% to 100%"));
}

TEST(Size, SurvivesBeingWrittenAndRead) {
  std::mt19937_64 random(2);
  for (int i = 0; i < 20'000; ++i) {
    const cache::Size size{.bytes = random() >> (1 + random() % 63), .share = 0};
    const auto again = parse_size(format_size(size));
    ASSERT_TRUE(again) << format_size(size);
    EXPECT_EQ(again->bytes, size.bytes);
  }
  for (int percent = 1; percent <= 100; ++percent) {
    const auto size = parse_size(std::to_string(percent) + "%");
    ASSERT_TRUE(size);
    EXPECT_EQ(format_size(*size), std::to_string(percent) + "%");
  }
}

TEST(ListenAddress, IsLoopbackWithAPortOrAUnixSocket) {
  const std::vector<std::pair<std::string_view, std::string_view>> cases{
      {"127.0.0.1:5050", "127.0.0.1:5050"},
      {"127.1.2.3:1", "127.1.2.3:1"},
      {"127.0.0.1:0", "127.0.0.1:0"},
      {"127.0.0.1:65535", "127.0.0.1:65535"},
      {"[::1]:5050", "[::1]:5050"},
      {"[0:0:0:0:0:0:0:1]:80", "[::1]:80"},
      {"unix:/run/s.sock", "unix:/run/s.sock"}};
  for (const auto& [text, canonical] : cases) {
    const auto address = parse_listen_address(text);
    ASSERT_TRUE(address) << text << ": " << address.error();
    EXPECT_EQ(*address, canonical);
    // What the proxy makes of it is the same.
    const auto listened = proxy::ListenAddress::parse(*address);
    ASSERT_TRUE(listened) << canonical;
    EXPECT_EQ(listened->to_string(), canonical);
  }
}

TEST(ListenAddress, ThatOthersCanReachIsRefusedWithReasonAndRemedy) {
  for (const std::string_view text :
       {"0.0.0.0:5050", "10.0.0.4:5050", "128.0.0.1:5050", "169.254.169.254:80", "[::]:5050",
        "[fe80::1]:5050", "[::ffff:127.0.0.1]:5050", "[2001:db8::1]:5050"}) {
    const auto address = parse_listen_address(text);
    ASSERT_FALSE(address) << text;
    EXPECT_THAT(address.error(), HasSubstr("not a loopback address")) << text;
    EXPECT_THAT(address.error(), HasSubstr("this machine's identity")) << text;
    EXPECT_THAT(address.error(), HasSubstr("127.0.0.1")) << text;
  }
}

TEST(ListenAddress, OfAnyOtherFormIsRefused) {
  for (const std::string_view text : {"",
                                      ":5050",
                                      "5050",
                                      "127.0.0.1",
                                      "127.0.0.1:",
                                      "127.0.0.1:65536",
                                      "127.0.0.1:05",
                                      "127.1:5",
                                      "0127.0.0.1:5",
                                      "127.0.0.1:5050 ",
                                      "localhost:5050",
                                      "::1:5050",
                                      "[::1]",
                                      "[::1]5050",
                                      "[::1:5050",
                                      "[127.0.0.1]:5050",
                                      "[::1%lo]:5050",
                                      "http://127.0.0.1:5050",
                                      "unix:",
                                      "unix:relative",
                                      "unix:/a/../b",
                                      "127.0.0.1:-1",
                                      "127.0.0.1:5050\n"}) {
    EXPECT_FALSE(parse_listen_address(text)) << text;
  }
  // Found by fuzzing: for the C library it ends at the NUL.
  EXPECT_FALSE(parse_listen_address(std::string_view("[::1\0.example]:5050", 19)));
  EXPECT_FALSE(parse_listen_address(std::string_view("127.0.0.1\0.example:5050", 23)));
  EXPECT_THAT(parse_listen_address("localhost:5050").error(), HasSubstr("write 127.0.0.1"));
  EXPECT_FALSE(parse_listen_address("unix:/" + std::string(kMaxSocketPath, 'a')));
  EXPECT_TRUE(parse_listen_address("unix:/" + std::string(kMaxSocketPath - 1, 'a')));
}

TEST(RegistryName, IsAHostOfImageNamesOrAWildcard) {
  for (const std::string_view name :
       {"docker.io", "contoso.azurecr.io", "localhost", "localhost:5000", "registry:5000",
        "10.1.2.3:5000", "[::1]:5000", "a-b.c1.example", "contoso.azurecr.io:443", "*.azurecr.io",
        "*.eastus.geo.azurecr.io"}) {
    const auto parsed = parse_registry_name(name);
    ASSERT_TRUE(parsed) << name << ": " << parsed.error();
    EXPECT_EQ(*parsed, name);
  }
}

TEST(RegistryName, OfAnyOtherFormIsRefused) {
  for (const std::string_view name : {"",
                                      "*",
                                      "*.",
                                      "*.io",
                                      "*azurecr.io",
                                      "a.*.io",
                                      "**.azurecr.io",
                                      "*.azurecr.io:443",
                                      "Docker.io",
                                      "docker",
                                      "docker.io/",
                                      "docker.io/library",
                                      "https://docker.io",
                                      "docker.io:",
                                      "docker.io:0",
                                      "docker.io:99999",
                                      "-a.io",
                                      "a-.io",
                                      "a..io",
                                      ".io",
                                      "a.io.",
                                      "a_b.io",
                                      "a b.io",
                                      "user@a.io",
                                      "a.io?x",
                                      "\xc3\xa9.io",
                                      "a.io\n",
                                      "[::1",
                                      "[::1]x",
                                      "[zz]:5"}) {
    EXPECT_FALSE(parse_registry_name(name)) << name;
  }
  EXPECT_FALSE(parse_registry_name(std::string(64, 'a') + ".io"));
  std::string long_name;
  for (int i = 0; i < 60; ++i) long_name += "abcd.";
  EXPECT_FALSE(parse_registry_name(long_name + "io"));
  EXPECT_THAT(parse_registry_name("Docker.io").error(), HasSubstr("lower case"));
  EXPECT_THAT(parse_registry_name("https://a.io").error(), HasSubstr("upstream"));
  EXPECT_THAT(parse_registry_name("a.io/x").error(), HasSubstr("prefix"));
  EXPECT_THAT(parse_registry_name("docker").error(), HasSubstr("a dot or a port"));
}

TEST(HostPattern, IsAHostWithoutPortOrAWildcard) {
  for (const std::string_view text :
       {"storage.example", "localhost", "10.0.0.4", "[::1]", "*.blob.core.windows.net"}) {
    EXPECT_EQ(parse_host_pattern(text), text);
  }
  for (const std::string_view text :
       {"", "storage.example:443", "*.net", "*", "https://a.b", "A.b"}) {
    EXPECT_FALSE(parse_host_pattern(text)) << text;
  }
}

TEST(HostSuffix, HasTwoLabelsAndNoDotBeforeIt) {
  EXPECT_EQ(parse_host_suffix("azurecr.io"), "azurecr.io");
  EXPECT_EQ(parse_host_suffix("azurecr.sovcloud-azure.fr"), "azurecr.sovcloud-azure.fr");
  for (const std::string_view text : {"", "io", ".azurecr.io", "*.azurecr.io", "azurecr.io.",
                                      "azurecr.io:443", "Azurecr.io", "https://azurecr.io"}) {
    EXPECT_FALSE(parse_host_suffix(text)) << text;
  }
}

TEST(OriginUrl, IsHttpsOrHttpWrittenOutAndIsKeptInOneForm) {
  const std::vector<std::pair<std::string_view, std::string_view>> cases{
      {"https://contoso.azurecr.io", "https://contoso.azurecr.io"},
      {"https://contoso.azurecr.io/", "https://contoso.azurecr.io"},
      {"HTTPS://Contoso.AzureCR.io", "https://contoso.azurecr.io"},
      {"https://contoso.azurecr.io:8443", "https://contoso.azurecr.io:8443"},
      {"http://localhost:5000", "http://localhost:5000"},
      {"http://[::1]:5000/", "http://[::1]:5000"},
      {"http://169.254.169.254", "http://169.254.169.254"}};
  for (const auto& [text, expected] : cases) {
    const auto url = parse_origin_url(text);
    ASSERT_TRUE(url) << text << ": " << url.error();
    EXPECT_EQ(*url, expected);
  }
  EXPECT_FALSE(parse_authority("http://login.microsoftonline.com"));
  EXPECT_FALSE(parse_authority("http://10.0.0.1:8080"));
  EXPECT_EQ(parse_authority("http://localhost:8080"), "http://localhost:8080");
  EXPECT_EQ(parse_authority("http://[::1]"), "http://[::1]");
  EXPECT_EQ(parse_authority("https://login.microsoftonline.com/"),
            "https://login.microsoftonline.com");
}

TEST(OriginUrl, OfAnyOtherFormIsRefused) {
  for (const std::string_view text : {"",
                                      "contoso.azurecr.io",
                                      "ftp://a.io",
                                      "https:/a.io",
                                      "https://",
                                      "https:///",
                                      "https://a.io/v2",
                                      "https://a.io//",
                                      "https://a.io?x=1",
                                      "https://a.io#f",
                                      "https://u@a.io",
                                      "https://u:p@a.io",
                                      "https://a.io:",
                                      "https://a.io:0",
                                      "https://a.io:x",
                                      "https://a b.io",
                                      "https://a.io\r\n",
                                      "https://[::1",
                                      "https://a..io",
                                      "http s://a.io",
                                      "https://a.io\\@b.io",
                                      "https://\xe2\x98\x83.io"}) {
    EXPECT_FALSE(parse_origin_url(text)) << text;
  }
}

TEST(OriginUrl, WithASecretInItIsNotShown) {
  for (const std::string_view text :
       {"https://user:hunter2@a.io", "https://a.io/?sig=hunter2", "https://a.io#hunter2",
        "hunter2@a.io", "https://a.io:443/x?token=hunter2"}) {
    const auto url = parse_origin_url(text);
    ASSERT_FALSE(url) << text;
    EXPECT_THAT(url.error(), Not(HasSubstr("hunter2"))) << text;
  }
}

TEST(Audience, IsAUriKeptAsWritten) {
  for (const std::string_view text :
       {"https://containerregistry.azure.net", "https://management.azure.com/",
        "api://AzureADTokenExchange", "https://acr.example/a/b"}) {
    EXPECT_EQ(parse_audience(text), text);
  }
  for (const std::string_view text :
       {"", "https://", "://x", "containerregistry.azure.net", "https://a?x=hunter2", "https://u@a",
        "https://a b", "a\n://b"}) {
    const auto audience = parse_audience(text);
    ASSERT_FALSE(audience) << text;
    EXPECT_THAT(audience.error(), Not(HasSubstr("hunter2")));
  }
  EXPECT_FALSE(parse_audience("https://" + std::string(300, 'a')));
}

TEST(RepositoryPrefix, IsMadeOfRepositoryComponents) {
  for (const std::string_view text : {"team-a/", "docker-hub/", "a/b/c/", "a.b/", "a_b/", "a__b/",
                                      "a---b/", "0/", "a1.b2_c3--d4/"}) {
    EXPECT_EQ(parse_repository_prefix(text), text);
  }
  for (const std::string_view text :
       {"",       "/",     "team-a", "/team-a/", "Team/",     "a//b/", "a..b/",
        "a___b/", "a._b/", "-a/",    "a-/",      "_a/",       "a./",   "../",
        "./",     "a b/",  "a:b/",   "a@b/",     "\xc3\xa9/", "a/\n/"}) {
    EXPECT_FALSE(parse_repository_prefix(text)) << text;
  }
  EXPECT_THAT(parse_repository_prefix("team-a").error(), HasSubstr("does not end in \"/\""));
  EXPECT_FALSE(parse_repository_prefix(std::string(255, 'a') + "/"));
}

TEST(Guid, IsHexadecimalInFiveGroupsAndIsKeptInLowerCase) {
  EXPECT_EQ(parse_guid("8D3F4B1E-0000-4000-8000-0123456789AB"),
            "8d3f4b1e-0000-4000-8000-0123456789ab");
  for (const std::string_view text :
       {"", "8d3f4b1e", "8d3f4b1e-0000-4000-8000-0123456789a",
        "8d3f4b1e-0000-4000-8000-0123456789abc", "8d3f4b1e00004000-8000-0123456789ab00",
        "{8d3f4b1e-0000-4000-8000-0123456789ab}", "8d3f4b1g-0000-4000-8000-0123456789ab",
        "8d3f4b1e-0000-4000-8000-0123456789a\n"}) {
    EXPECT_FALSE(parse_guid(text)) << text;
  }
}

TEST(AzureResourceId, NamesSubscriptionGroupAndIdentity) {
  const std::string good =
      "/subscriptions/8d3f4b1e-0000-4000-8000-0123456789ab/resourceGroups/my-group(1)/providers/"
      "Microsoft.ManagedIdentity/userAssignedIdentities/puller";
  EXPECT_EQ(parse_azure_resource_id(good), good);
  EXPECT_TRUE(
      parse_azure_resource_id("/SUBSCRIPTIONS/8d3f4b1e-0000-4000-8000-0123456789ab/"
                              "resourcegroups/g/providers/microsoft.managedidentity/"
                              "userassignedidentities/x"));
  for (const std::string& text :
       {std::string(), std::string("puller"), std::string("/subscriptions/x"), good + "/",
        good + "/x", "/" + good, good.substr(1), good + "?x=1", good + "\n", good + " x",
        std::string("/subscriptions/not-a-guid/resourceGroups/g/providers/a/b/c")}) {
    EXPECT_FALSE(parse_azure_resource_id(text)) << text;
  }
}

TEST(Account, IsANameOrANumber) {
  for (const std::string_view text :
       {"root", "docker", "build_user-1", "a.b", "user@domain", "0", "1000", "4294967294"}) {
    EXPECT_EQ(parse_account(text), text);
  }
  for (const std::string_view text : {"", "-x", "a b", "a:b", "4294967295", "99999999999", "a\n",
                                      "a/b", "abcdefghijklmnopqrstuvwxyzabcdefg"}) {
    EXPECT_FALSE(parse_account(text)) << text;
  }
}

TEST(Path, IsAbsoluteAndMayBeginWithTheCredentialsDirectory) {
  EXPECT_EQ(parse_path("/etc/ca.pem", ""), "/etc/ca.pem");
  EXPECT_EQ(parse_path("/", ""), "/");
  EXPECT_EQ(parse_path("/a//b/", ""), "/a//b/");
  EXPECT_EQ(parse_path("/a/..b/c..", ""), "/a/..b/c..");
  EXPECT_EQ(parse_path("${CREDENTIALS_DIRECTORY}/ca", "/run/credentials/x"),
            "/run/credentials/x/ca");
  const std::vector<std::pair<std::string_view, std::string_view>> wrong{
      {"", "not absolute"},
      {"ca.pem", "not absolute"},
      {"~/ca.pem", "not absolute"},
      {"/a/../b", "written out"},
      {"/a/.", "written out"},
      {"/a\nb", "control characters"},
      {"${HOME}/ca", "only ${CREDENTIALS_DIRECTORY}"},
      {"/x/${CREDENTIALS_DIRECTORY}", "only ${CREDENTIALS_DIRECTORY}"},
      {"${CREDENTIALS_DIRECTORY}${CREDENTIALS_DIRECTORY}", "only ${CREDENTIALS_DIRECTORY}"},
      {"${CREDENTIALS_DIRECTORY}/../x", "written out"}};
  for (const auto& [text, what] : wrong) {
    const auto path = parse_path(text, "/run/credentials/x");
    ASSERT_FALSE(path) << text;
    if (what != "written out") EXPECT_THAT(path.error(), HasSubstr(std::string(what))) << text;
  }
  EXPECT_THAT(parse_path("${CREDENTIALS_DIRECTORY}/ca", "").error(), HasSubstr("LoadCredential="));
}

TEST(Values, AreEscapedAndCutInMessages) {
  EXPECT_THAT(parse_duration("\x1b[31mred").error(), Not(HasSubstr("\x1b")));
  EXPECT_LT(parse_duration(std::string(100'000, 'x')).error().size(), 300u);
}

TEST(EditDistance, CountsInsertionsDeletionsReplacementsAndSwaps) {
  EXPECT_EQ(edit_distance("", ""), 0u);
  EXPECT_EQ(edit_distance("abc", ""), 3u);
  EXPECT_EQ(edit_distance("tag_ttl", "tag_tll"), 1u);
  EXPECT_EQ(edit_distance("ttl", "tlt"), 1u);
  EXPECT_EQ(edit_distance("kitten", "sitting"), 3u);
}

TEST(Nearest, FindsTheCandidateThatWasMeantOrNone) {
  const std::array<std::string_view, 3> candidates{"users", "groups", "hosts"};
  EXPECT_EQ(nearest("user", candidates), "users");
  EXPECT_EQ(nearest("gruops", candidates), "groups");
  EXPECT_EQ(nearest("password", candidates), "");
  EXPECT_EQ(nearest("", candidates), "");
}

}  // namespace
}  // namespace staithe::daemon
