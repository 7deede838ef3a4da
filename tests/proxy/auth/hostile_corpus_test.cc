// Every line of hostile_corpus.txt against every kind of credential: wherever a hostile registry,
// token server or storage points, no byte of a credential goes to anything but its owner.
#include <gtest/gtest.h>

#include <array>
#include <fstream>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "proxy/auth/base64.h"
#include "proxy/auth/identities.h"
#include "proxy/redirect.h"
#include "proxy/upstream.h"
#include "tests/fake/effort.h"
#include "tests/proxy/auth/fake_azure.h"
#include "tests/proxy/auth/world.h"

namespace staithe::proxy::auth {
namespace {

using fake::Asked;
using fake::Reply;
using namespace std::chrono_literals;

constexpr std::size_t least_lines = 300;
constexpr std::string_view password = "correct-horse:battery";
constexpr std::string_view identity_token = "an-identity-token-of-some-length";

struct Line {
  std::size_t number;
  std::string kind;
  std::string text;
};

int digit(char c) { return c <= '9' ? c - '0' : c - 'a' + 10; }

std::vector<Line> read_corpus() {
  std::ifstream file(STAITHE_SOURCE_DIR "/tests/proxy/auth/hostile_corpus.txt");
  std::vector<Line> lines;
  std::size_t number = 0;
  for (std::string line; std::getline(file, line);) {
    ++number;
    if (line.starts_with('#')) continue;
    const std::size_t space = line.find(' ');
    std::string text;
    for (std::size_t at = space + 1; at < line.size(); ++at) {
      if (line.compare(at, 2, "\\x") == 0 && at + 3 < line.size()) {
        text += static_cast<char>(digit(line[at + 2]) * 16 + digit(line[at + 3]));
        at += 3;
      } else {
        text += line[at];
      }
    }
    lines.push_back({number, line.substr(0, space), text});
  }
  return lines;
}

// One who holds a credential, and the registry that it is for.
struct Victim {
  std::string what;
  std::string host;
  IdentitySettings identity;
};

std::vector<Victim> victims() {
  std::vector<Victim> all;
  Victim victim{"a managed identity", "contoso.azurecr.io", {}};
  victim.identity.kind = IdentityKind::managed_identity;
  all.push_back(victim);
  victim = {"an application", "contoso.azurecr.io", {}};
  victim.identity.kind = IdentityKind::service_principal;
  victim.identity.tenant_id = "tenant";
  victim.identity.client_id = std::string(FakeAzure::client_id);
  victim.identity.client_secret_file = "/secret";
  all.push_back(victim);
  for (const std::string host : {"contoso.azurecr.io", "registry.example"}) {
    victim = {"a password at " + host, host, {}};
    victim.identity.kind = IdentityKind::basic;
    victim.identity.username = "puller";
    victim.identity.password_file = "/password";
    all.push_back(victim);
  }
  victim = {"an identity token", "registry.example", {}};
  victim.identity.kind = IdentityKind::docker_config;
  victim.identity.file = "/config.json";
  all.push_back(victim);
  return all;
}

std::string replaced(std::string text, std::string_view from, std::string_view to) {
  for (std::size_t at = text.find(from); at != std::string::npos;
       at = text.find(from, at + to.size()))
    text.replace(at, from.size(), to);
  return text;
}

asio::awaitable<bool> renewed(Authorizer& authorizer) {
  co_await authorizer.renew();
  co_return true;
}

class Play {
 public:
  Play(const Victim& victim, const Line& line)
      : victim_(victim), line_(line), azure(world.http, world.clock) {
    text_ = replaced(line.text, "contoso.azurecr.io", victim.host);
    world.files.write("/secret", std::string(FakeAzure::client_secret));
    world.files.write("/password", std::string(password));
    world.files.write("/config.json", R"({"auths":{"registry.example":{"identitytoken":")" +
                                          std::string(identity_token) + R"("}}})");
    // Whoever else is asked is as helpful as a thief can be.
    world.http.on("http", [](const Asked& asked) {
      if (asked.headers.find("Authorization") || asked.method == "POST")
        return Reply::json(R"({"access_token":"e30.e30.e30","refresh_token":"e30.e30.e30"})");
      return Reply{.status = 401,
                   .headers = {{"WWW-Authenticate", "Basic realm=\"x\", Bearer realm=\"" +
                                                        asked.origin.to_string() +
                                                        "/oauth2/token\",service=\"x\""}}};
    });
    azure.add_registry("contoso.azurecr.io");
    world.http.on("https://registry.example", [this](const Asked& asked) { return plain(asked); });
    azure.fault = [this](const Asked& asked) { return hostile(asked); };
  }

  // Everything that makes requests, some of it twice, and hours of renewals in the background.
  void run() {
    Identities identities(AzureSettings{}, {}, world.environment());
    const Origin origin{"https", victim_.host, 443};
    auto authorizer = identities.make_authorizer(at(origin), victim_.identity);
    Authorizer& asked = *authorizer;
    Upstream upstream(
        world.io.get_executor(),
        Upstream::Settings{
            .base = Url::parse(origin.to_string()).value(),
            .prefix = {},
            .ca_file = {},
            .redirects = {.registry = origin, .data_hosts = {}, .acr_suffixes = {"azurecr.io"}},
            .max_connections = 2,
            .limits = {}},
        std::move(authorizer), world.http, world.clock);
    const std::array<std::string, 3> wanted = {"manifests/latest", "tags/list",
                                               "blobs/sha256:" + std::string(64, 'a')};
    std::vector<std::shared_ptr<CallerBase>> callers;
    for (int round = 0; round < 2; ++round) {
      for (const std::string& what : wanted)
        callers.push_back(world.call(upstream.send({.repository = "app", .what = what})));
      Headers response;
      response.add("WWW-Authenticate", challenge());
      const auto pull = world.call(asked.for_pull("app"));
      if (pull->outcome && *pull->outcome) {
        (void)asked.refused("app", pull->value(), response);
        (void)asked.forbidden(pull->value());
      }
      callers.push_back(world.call(asked.login()));
      callers.push_back(world.call(renewed(asked)));
      world.clock.advance(2h);
    }
    check();
  }

 private:
  std::string challenge() const {
    if (line_.kind == "challenge") return text_;
    if (line_.kind == "realm") return "Bearer realm=\"" + text_ + "\",service=\"s\"";
    return "Bearer realm=\"https://" + victim_.host + "/oauth2/token\",service=\"" + victim_.host +
           "\"";
  }

  Reply unauthorized() const {
    return {.status = 401, .headers = {{"WWW-Authenticate", challenge()}}};
  }

  // What contoso.azurecr.io does instead of its duty. Its own token calls work every
  // other time, so that there are tokens to steal.
  std::optional<Reply> hostile(const Asked& asked) {
    if (!asked.url.starts_with("https://contoso.azurecr.io")) return std::nullopt;
    return plain_or_nothing(asked);
  }

  std::optional<Reply> plain_or_nothing(const Asked& asked) {
    const bool token_call = asked.target.starts_with("/oauth2/");
    if (line_.kind == "redirect" && (!token_call || ++turns_[asked.target] % 2 == 0)) {
      if (asked.target == "/v2/") return unauthorized();
      if (!token_call && !asked.headers.find("Authorization")) return unauthorized();
      constexpr std::array<int, 5> statuses = {301, 302, 303, 307, 308};
      return Reply{.status = statuses[++status_ % statuses.size()],
                   .headers = {{"Location", text_}}};
    }
    if (!token_call) {
      // The first answers of all are honest: then a credential is at hand when the lie comes.
      const bool honest = ++data_ % 4 == 1;
      if (honest && asked.target == "/v2/") return std::nullopt;
      return unauthorized();
    }
    return std::nullopt;
  }

  Reply plain(const Asked& asked) {
    if (auto lie = plain_or_nothing(asked)) return *lie;
    if (asked.target == "/v2/")
      return {.status = 401,
              .headers = {{"WWW-Authenticate",
                           R"(Bearer realm="https://registry.example/oauth2/token",service="s")"}}};
    issued_.insert("registry-token-" + std::to_string(++serial_) + "-of-some-length");
    return Reply::json("{\"token\":\"registry-token-" + std::to_string(serial_) +
                       "-of-some-length\",\"expires_in\":300}");
  }

  void check() {
    const std::string owner = "https://" + victim_.host;
    const std::string where =
        victim_.what + ", line " + std::to_string(line_.number) + ": " + line_.text;
    for (const auto& [token, what] : azure.tokens())
      EXPECT_TRUE(world.http.leaks(token, owner).empty()) << what << " leaks: " << where;
    for (const std::string& token : issued_)
      EXPECT_TRUE(world.http.leaks(token, owner).empty()) << "a token leaks: " << where;
    const std::string both = "puller:" + std::string(password);
    for (const std::string& secret :
         {std::string(password), both, encode_base64(both), std::string(identity_token)})
      EXPECT_TRUE(world.http.leaks(secret, owner).empty()) << "a password leaks: " << where;
    EXPECT_TRUE(world.http.leaks(FakeAzure::client_secret, std::string(FakeAzure::entra)).empty())
        << "the application's secret leaks: " << where;
    for (const Asked& asked : world.http.asked()) {
      if (asked.headers.find("Authorization")) EXPECT_EQ(asked.origin.to_string(), owner) << where;
    }
  }

  const Victim& victim_;
  const Line& line_;
  std::string text_;
  std::map<std::string, int> turns_;  // by target of a token call
  int data_ = 0;
  std::size_t status_ = 0;
  int serial_ = 0;
  std::set<std::string> issued_;

 public:
  World world;
  FakeAzure azure;
};

TEST(HostileCorpus, SendsNoByteOfACredentialToAnythingButItsOwner) {
  const std::vector<Line> lines = read_corpus();
  ASSERT_GE(lines.size(), least_lines);
  std::size_t credentials = 0;
  const std::size_t step = lines.size() / static_cast<std::size_t>(fake::effort(std::ssize(lines)));
  for (std::size_t i = 0; i < lines.size(); i += step) {
    const Line& line = lines[i];
    if (line.kind == "host") continue;
    for (const Victim& victim : victims()) {
      Play play(victim, line);
      play.run();
      credentials += play.world.http.count("https://" + victim.host + "/oauth2/");
    }
  }
  // There was something to steal.
  EXPECT_GT(credentials, lines.size() / step);
}

TEST(HostileCorpus, LooksLikeAzureButIsNot) {
  for (const Line& line : read_corpus()) {
    if (line.kind != "host") continue;
    World world;
    FakeAzure azure(world.http, world.clock);
    Identities identities(AzureSettings{}, {}, world.environment());
    for (const IdentityKind kind :
         {IdentityKind::managed_identity, IdentityKind::service_principal, IdentityKind::token}) {
      IdentitySettings identity;
      identity.kind = kind;
      EXPECT_THROW((void)identities.make_authorizer(at({"https", line.text, 443}), identity),
                   Failure)
          << line.text;
    }
    EXPECT_FALSE(identities.sign_in(at({"https", line.text, 443}), Secret("x"))) << line.text;
    EXPECT_TRUE(world.http.asked().empty());
  }
}

}  // namespace
}  // namespace staithe::proxy::auth
