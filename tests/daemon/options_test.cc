#include "daemon/options.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <string>
#include <string_view>
#include <vector>

#include "daemon/option_table.h"
#include "tests/daemon/parse.h"

namespace staithe::daemon {
namespace {

using namespace std::chrono_literals;
using proxy::IdentityKind;
using proxy::RegistrySettings;
using std::chrono::milliseconds;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using testing::SizeIs;

const RegistrySettings* find(const Config& config, std::string_view name) {
  for (const RegistrySettings& registry : config.proxy.registries) {
    if (registry.name == name) return &registry;
  }
  return nullptr;
}

TEST(Defaults, AreThoseOfTheInterfaceContract) {
  const Config config = good("");
  EXPECT_THAT(config.proxy.listen, ElementsAre("127.0.0.1:5050"));
  EXPECT_EQ(config.control_socket, "/run/staithe/control.sock");
  EXPECT_EQ(config.drain_timeout, 30s);
  EXPECT_THAT(config.proxy.hosts, IsEmpty());
  EXPECT_EQ(config.cache.directory, "/var/cache/staithe");
  EXPECT_DOUBLE_EQ(config.cache.max_size.share, 0.80);
  EXPECT_DOUBLE_EQ(config.cache.min_free.share, 0.05);
  EXPECT_EQ(config.freshness.tag_ttl, 0s);
  EXPECT_EQ(config.freshness.serve_stale, milliseconds(7 * 24h));
  EXPECT_EQ(config.freshness.serve_gone, 0s);
  const proxy::Limits& limits = config.proxy.limits;
  EXPECT_EQ(limits.connections, 10'000u);
  EXPECT_EQ(limits.header_timeout, 10s);
  EXPECT_EQ(limits.idle_timeout, 150s);
  EXPECT_EQ(limits.upstream_connect, 5s);
  EXPECT_EQ(limits.upstream_first_byte, 20s);
  EXPECT_EQ(limits.upstream_stall, 15s);
  EXPECT_EQ(config.proxy.azure.audience, "https://containerregistry.azure.net");
  EXPECT_EQ(config.proxy.azure.imds_endpoint, "http://169.254.169.254");
  EXPECT_EQ(config.proxy.azure.authority, "https://login.microsoftonline.com");
  EXPECT_THAT(config.proxy.azure.acr_suffixes,
              ElementsAre("azurecr.io", "azurecr.cn", "azurecr.us", "azurecr.de",
                          "azurecr.sovcloud-azure.fr", "azurecr.sovcloud-azure.de"));
  EXPECT_TRUE(config.proxy.access.empty());
  EXPECT_EQ(config.log.level, log::Level::info);
  EXPECT_EQ(config.log.format, log::Format::automatic);
}

// The settings' own initial values serve tests of the lower folders; they must not drift away.
TEST(Defaults, AreThoseThatTheSettingsBeginWith) {
  const Config config = good("");
  const proxy::ProxySettings proxy;
  EXPECT_EQ(config.proxy.listen, proxy.listen);
  EXPECT_EQ(config.proxy.limits.connections, proxy.limits.connections);
  EXPECT_EQ(config.proxy.limits.header_timeout, proxy.limits.header_timeout);
  EXPECT_EQ(config.proxy.limits.idle_timeout, proxy.limits.idle_timeout);
  EXPECT_EQ(config.proxy.limits.upstream_connect, proxy.limits.upstream_connect);
  EXPECT_EQ(config.proxy.limits.upstream_first_byte, proxy.limits.upstream_first_byte);
  EXPECT_EQ(config.proxy.limits.upstream_stall, proxy.limits.upstream_stall);
  EXPECT_EQ(config.proxy.azure.authority, proxy.azure.authority);
  EXPECT_EQ(config.proxy.azure.audience, proxy.azure.audience);
  EXPECT_EQ(config.proxy.azure.imds_endpoint, proxy.azure.imds_endpoint);
  EXPECT_EQ(config.proxy.azure.acr_suffixes, proxy.azure.acr_suffixes);
  EXPECT_EQ(config.freshness.tag_ttl, proxy::Freshness().tag_ttl);
  EXPECT_EQ(config.freshness.serve_stale, proxy::Freshness().serve_stale);
  EXPECT_EQ(config.proxy.registries.front().max_connections, RegistrySettings().max_connections);
  EXPECT_DOUBLE_EQ(config.cache.max_size.share, cache::Settings().max_size.share);
  EXPECT_DOUBLE_EQ(config.cache.min_free.share, cache::Settings().min_free.share);
  EXPECT_EQ(config.drain_timeout, Config().drain_timeout);
}

TEST(Defaults, ServeAzureWithTheMachinesIdentityAndTheKnownPublicRegistries) {
  const Config config = good("");
  std::vector<std::string> names;
  for (const RegistrySettings& registry : config.proxy.registries) names.push_back(registry.name);
  EXPECT_THAT(names, ElementsAre("*.azurecr.io", "*.azurecr.cn", "*.azurecr.us", "docker.io",
                                 "ghcr.io", "quay.io", "mcr.microsoft.com", "registry.k8s.io"));
  for (const RegistrySettings& registry : config.proxy.registries) {
    const bool is_azure = registry.name.starts_with("*.");
    EXPECT_EQ(registry.identity, is_azure ? "vm" : "") << registry.name;
    EXPECT_EQ(registry.is_default, registry.name == "docker.io") << registry.name;
    EXPECT_EQ(registry.upstream.empty(), is_azure) << registry.name;
  }
  EXPECT_THAT(find(config, "docker.io")->upstream, ElementsAre("https://registry-1.docker.io"));
  EXPECT_THAT(find(config, "ghcr.io")->upstream, ElementsAre("https://ghcr.io"));
  ASSERT_THAT(config.proxy.identities, SizeIs(1));
  EXPECT_EQ(config.proxy.identities.at("vm").kind, IdentityKind::managed_identity);
  EXPECT_EQ(config.proxy.identities.at("vm").client_id, "");
}

TEST(Defaults, TakeTheConfiguredVmIdentityIfThereIsOne) {
  const Config config = good(
      "[identity.vm]\nkind = 'managed-identity'\n"
      "client_id = '8d3f4b1e-0000-4000-8000-0123456789ab'\n");
  EXPECT_EQ(config.proxy.identities.at("vm").client_id, "8d3f4b1e-0000-4000-8000-0123456789ab");
  EXPECT_THAT(config.proxy.registries, SizeIs(8));
}

TEST(Defaults, FollowTheCloudAndTheExtraSuffixes) {
  const Config china = good("[azure]\ncloud = 'china'");
  EXPECT_THAT(china.proxy.azure.acr_suffixes, ElementsAre("azurecr.cn"));
  EXPECT_TRUE(find(china, "*.azurecr.cn"));
  EXPECT_FALSE(find(china, "*.azurecr.io"));
  EXPECT_EQ(china.proxy.azure.authority, "https://login.partner.microsoftonline.cn");
  EXPECT_EQ(good("[azure]\ncloud = 'usgovernment'").proxy.azure.authority,
            "https://login.microsoftonline.us");
  const Config extra = good("[azure]\ncloud = 'usgovernment'\nacr_suffixes = ['acr.example']");
  EXPECT_THAT(extra.proxy.azure.acr_suffixes, ElementsAre("azurecr.us", "acr.example"));
  EXPECT_EQ(find(extra, "*.acr.example")->identity, "vm");
}

TEST(Defaults, OfDirectoriesFollowTheEnvironment) {
  struct Case {
    const char* what;
    Environment environment;
    std::string cache;
    std::string socket;
  };
  const std::vector<Case> cases{
      {"root", {{}, 0, {}}, "/var/cache/staithe", "/run/staithe/control.sock"},
      {"root ignores XDG",
       {{{"XDG_CACHE_HOME", "/x"}, {"XDG_RUNTIME_DIR", "/y"}, {"HOME", "/root"}}, 0, {}},
       "/var/cache/staithe",
       "/run/staithe/control.sock"},
      {"a user",
       {{{"HOME", "/home/u"}, {"XDG_RUNTIME_DIR", "/run/user/1000"}}, 1000, {}},
       "/home/u/.cache/staithe",
       "/run/user/1000/staithe/control.sock"},
      {"a user with a cache home",
       {{{"HOME", "/home/u"}, {"XDG_CACHE_HOME", "/fast"}}, 1000, {}},
       "/fast/staithe",
       "/tmp/staithe-1000/control.sock"},
      {"relative XDG directories are ignored",
       {{{"HOME", "/h"}, {"XDG_CACHE_HOME", "rel"}, {"XDG_RUNTIME_DIR", "rel"}}, 7, {}},
       "/h/.cache/staithe",
       "/tmp/staithe-7/control.sock"},
      {"systemd",
       {{{"CACHE_DIRECTORY", "/var/cache/private/staithe"},
         {"RUNTIME_DIRECTORY", "/run/staithe"},
         {"HOME", "/"}},
        61234,
        {}},
       "/var/cache/private/staithe",
       "/run/staithe/control.sock"},
      {"systemd with several directories",
       {{{"CACHE_DIRECTORY", "/var/cache/a:/var/cache/b"}, {"RUNTIME_DIRECTORY", "/run/a:/run/b"}},
        0,
        {}},
       "/var/cache/a",
       "/run/a/control.sock"},
  };
  for (const Case& c : cases) {
    const Config config = good("", c.environment);
    EXPECT_EQ(config.cache.directory, c.cache) << c.what;
    EXPECT_EQ(config.control_socket, c.socket) << c.what;
    EXPECT_EQ(default_control_socket(c.environment), c.socket) << c.what;
    const Config set = good("[listen]\ncontrol='/c'\n[cache]\ndirectory='/d'", c.environment);
    EXPECT_EQ(set.cache.directory, "/d") << c.what;
    EXPECT_EQ(set.control_socket, "/c") << c.what;
  }
}

TEST(Defaults, ForAUserWithoutAHomeAskForACacheDirectory) {
  const Environment homeless{{}, 1000, {}};
  EXPECT_THAT(only_fault("", homeless), HasSubstr("cache.directory: neither $CACHE_DIRECTORY"));
  EXPECT_EQ(good("[cache]\ndirectory = '/d'", homeless).cache.directory, "/d");
}

// Every key that has a place for its value: a good value is found there.
TEST(Options, TakeGoodValues) {
  const Config config = good(R"(
[listen]
registry = ["127.0.0.1:6000", "[::1]:6000", "unix:/run/r.sock"]
control = "/run/c.sock"
metrics = "127.0.0.1:9464"
status_page = true
drain_timeout = "2m"
[access]
users = ["alice", 1000]
groups = ["docker", "0"]
hosts = ["mirror.local:5050"]
[cache]
directory = "${CREDENTIALS_DIRECTORY}/cache"
max_size = "10GiB"
min_free = 1048576
scrub_interval = "0s"
[freshness]
tag_ttl = "30s"
serve_stale = "1d"
serve_gone = "2h"
[limits]
connections = 500
connections_per_user = 50
header_timeout = "1s"
idle_timeout = "2s"
upstream_connect = "3s"
upstream_first_byte = "4s"
upstream_stall = "500ms"
[azure]
cloud = "public"
authority = "https://login.example/"
audience = "https://management.azure.com/"
imds_endpoint = "http://127.0.0.1:9000"
acr_suffixes = ["acr.test"]
[log]
level = "debug"
format = "json"
[[registry]]
name = "contoso.acr.test"
identity = "vm"
upstream = ["https://contoso.acr.test:9001"]
prefix = "mirror/"
ca_file = "${CREDENTIALS_DIRECTORY}/ca.pem"
data_hosts = ["*.blob.test.example", "storage.test"]
token_hosts = ["login.test", "login.test:8443"]
default = true
max_connections = 3
segments = 1
verify_callers = false
[registry.freshness]
tag_ttl = "1m"
[registry.access]
users = []
[[registry.identity_for]]
prefix = "team-a/"
identity = "a"
[[registry.identity_for]]
prefix = "team-a/deep/"
identity = "none"
[[registry]]
name = "*.example.com"
[identity.vm]
kind = "managed-identity"
source = "imds"
object_id = "8D3F4B1E-0000-4000-8000-0123456789AB"
[identity.a]
kind = "managed-identity"
resource_id = "/subscriptions/8d3f4b1e-0000-4000-8000-0123456789ab/resourceGroups/g/providers/Microsoft.ManagedIdentity/userAssignedIdentities/a"
[identity.none]
kind = "anonymous"
)",
                             {{{"CREDENTIALS_DIRECTORY", "/creds"}}, 0, {}});
  EXPECT_THAT(config.proxy.listen, ElementsAre("127.0.0.1:6000", "[::1]:6000", "unix:/run/r.sock"));
  EXPECT_EQ(config.control_socket, "/run/c.sock");
  EXPECT_EQ(config.drain_timeout, 2min);
  EXPECT_THAT(config.proxy.hosts, ElementsAre("mirror.local:5050"));
  EXPECT_THAT(config.proxy.access.users, ElementsAre("alice", "1000"));
  EXPECT_THAT(config.proxy.access.groups, ElementsAre("docker", "0"));
  EXPECT_EQ(config.cache.directory, "/creds/cache");
  EXPECT_EQ(config.cache.max_size.bytes, 10ULL << 30);
  EXPECT_EQ(config.cache.max_size.share, 0);
  EXPECT_EQ(config.cache.min_free.bytes, 1u << 20);
  EXPECT_EQ(config.freshness.tag_ttl, 30s);
  EXPECT_EQ(config.freshness.serve_stale, 24h);
  EXPECT_EQ(config.freshness.serve_gone, 2h);
  EXPECT_EQ(config.proxy.limits.connections, 500u);
  EXPECT_EQ(config.proxy.limits.connections_per_user, 50u);
  EXPECT_EQ(config.proxy.limits.header_timeout, 1s);
  EXPECT_EQ(config.proxy.limits.idle_timeout, 2s);
  EXPECT_EQ(config.proxy.limits.upstream_connect, 3s);
  EXPECT_EQ(config.proxy.limits.upstream_first_byte, 4s);
  EXPECT_EQ(config.proxy.limits.upstream_stall, 500ms);
  EXPECT_EQ(config.proxy.azure.authority, "https://login.example");
  EXPECT_EQ(config.proxy.azure.audience, "https://management.azure.com/");
  EXPECT_EQ(config.proxy.azure.imds_endpoint, "http://127.0.0.1:9000");
  EXPECT_THAT(config.proxy.azure.acr_suffixes,
              ElementsAre("azurecr.io", "azurecr.cn", "azurecr.us", "azurecr.de",
                          "azurecr.sovcloud-azure.fr", "azurecr.sovcloud-azure.de", "acr.test"));
  EXPECT_EQ(config.log.level, log::Level::debug);
  EXPECT_EQ(config.log.format, log::Format::json);

  ASSERT_THAT(config.proxy.registries, SizeIs(2));
  const RegistrySettings& registry = config.proxy.registries[0];
  EXPECT_EQ(registry.name, "contoso.acr.test");
  EXPECT_EQ(registry.identity, "vm");
  EXPECT_THAT(registry.upstream, ElementsAre("https://contoso.acr.test:9001"));
  EXPECT_EQ(registry.prefix, "mirror/");
  EXPECT_EQ(registry.ca_file, "/creds/ca.pem");
  EXPECT_THAT(registry.data_hosts, ElementsAre("*.blob.test.example", "storage.test"));
  EXPECT_THAT(registry.token_hosts, ElementsAre("login.test", "login.test:8443"));
  EXPECT_TRUE(registry.is_default);
  EXPECT_EQ(registry.max_connections, 3u);
  EXPECT_EQ(registry.freshness.tag_ttl, 1min) << "its own";
  EXPECT_EQ(registry.freshness.serve_stale, 24h) << "inherited";
  EXPECT_EQ(registry.freshness.serve_gone, 2h) << "inherited";
  ASSERT_THAT(registry.identity_for, SizeIs(2));
  EXPECT_EQ(registry.identity_for[1].prefix, "team-a/deep/");
  EXPECT_EQ(registry.identity_for[1].identity, "none");
  EXPECT_EQ(config.proxy.registries[1].freshness.tag_ttl, 30s);
  EXPECT_THAT(config.proxy.registries[1].upstream, IsEmpty());

  ASSERT_THAT(config.proxy.identities, SizeIs(3));
  const proxy::IdentitySettings& vm = config.proxy.identities.at("vm");
  EXPECT_EQ(vm.kind, IdentityKind::managed_identity);
  EXPECT_EQ(vm.source, proxy::ManagedIdentitySource::imds);
  EXPECT_EQ(vm.object_id, "8d3f4b1e-0000-4000-8000-0123456789ab");
  EXPECT_EQ(config.proxy.identities.at("none").kind, IdentityKind::anonymous);
}

TEST(Options, TakeEveryWordOfTheirChoices) {
  for (const auto& [word, level] :
       std::vector<std::pair<std::string, log::Level>>{{"trace", log::Level::trace},
                                                       {"debug", log::Level::debug},
                                                       {"info", log::Level::info},
                                                       {"warn", log::Level::warn},
                                                       {"error", log::Level::error}}) {
    EXPECT_EQ(good("[log]\nlevel = '" + word + "'").log.level, level);
  }
  for (const auto& [word, format] :
       std::vector<std::pair<std::string, log::Format>>{{"auto", log::Format::automatic},
                                                        {"text", log::Format::text},
                                                        {"json", log::Format::json},
                                                        {"journal", log::Format::journal}}) {
    EXPECT_EQ(good("[log]\nformat = '" + word + "'").log.format, format);
  }
}

// Every key of the single tables: values it refuses, and what it then says.
TEST(Options, RefuseBadValuesAndNameKeyLineAndRemedy) {
  const std::vector<std::pair<std::string_view, std::vector<Bad>>> tables{
      {"listen",
       {{"registry = '127.0.0.1:5050'", "registry", "a list in brackets"},
        {"registry = []", "registry", "no client could connect"},
        {"registry = [5050]", "registry", "a string"},
        {"registry = ['0.0.0.0:5050']", "registry", "not a loopback address"},
        {"registry = ['127.0.0.1:1', '127.0.0.1:1']", "registry", "twice"},
        {"registry = ['[::1]:1', '[0:0::1]:1']", "registry", "twice"},
        {"control = 'control.sock'", "control", "not absolute"},
        {"control = ''", "control", "not absolute"},
        {"control = 1", "control", "this is a whole number"},
        {"metrics = '0.0.0.0:9464'", "metrics", "not a loopback address"},
        {"metrics = 9464", "metrics", "accepted"},
        {"drain_timeout = 30", "drain_timeout", "a string with a unit"},
        {"drain_timeout = '2h'", "drain_timeout", "0s to 1h"},
        {"drain_timeout = '-1s'", "drain_timeout", "not a duration"}}},
      {"access",
       {{"users = 'root'", "users", "a list in brackets"},
        {"users = [-1]", "users", "not an account"},
        {"groups = [1.5]", "groups", "a string"},
        {"hosts = ['Mirror']", "hosts", "lower case"},
        {"hosts = ['http://mirror']", "hosts", "not a host"}}},
      {"cache",
       {{"directory = 'cache'", "directory", "not absolute"},
        {"directory = ''", "directory", "not absolute"},
        {"max_size = 0", "max_size", "1MiB or more, or 1% to 100%"},
        {"max_size = '0%'", "max_size", "1% to 100%"},
        {"max_size = '101%'", "max_size", "0% to 100%"},
        {"max_size = 1048575", "max_size", "out of range"},
        {"max_size = -1", "max_size", "not a size"},
        {"max_size = 0.8", "max_size", "a number with a fraction"},
        {"max_size = '10GB'", "max_size", "KiB, MiB, GiB or TiB"},
        {"min_free = '100%'", "min_free", "0% to 99%"},
        {"min_free = true", "min_free", "accepted"},
        {"scrub_interval = '366d'", "scrub_interval", "out of range"},
        {"scrub_interval = 7", "scrub_interval", "a string with a unit"}}},
      {"freshness",
       {{"tag_ttl = 0", "tag_ttl", "a string with a unit"},
        {"tag_ttl = '366d'", "tag_ttl", "0s to 365d"},
        {"serve_stale = 'forever'", "serve_stale", "not a duration"},
        {"serve_stale = false", "serve_stale", "accepted"},
        {"serve_gone = '-1s'", "serve_gone", "accepted"}}},
      {"limits",
       {{"connections = 0", "connections", "1 to 1000000"},
        {"connections = -5", "connections", "1 to 1000000"},
        {"connections = 1000001", "connections", "1 to 1000000"},
        {"connections = '10'", "connections", "without quotes"},
        {"connections = 1e3", "connections", "a number with a fraction"},
        {"connections_per_user = 0", "connections_per_user", "out of range"},
        {"header_timeout = '99ms'", "header_timeout", "100ms to 10m"},
        {"header_timeout = '0s'", "header_timeout", "100ms to 10m"},
        {"idle_timeout = '999ms'", "idle_timeout", "1s to 1d"},
        {"upstream_connect = '6m'", "upstream_connect", "100ms to 5m"},
        {"upstream_first_byte = '0s'", "upstream_first_byte", "100ms to 10m"},
        {"upstream_stall = '61m'", "upstream_stall", "100ms to 1h"}}},
      {"azure",
       {{"cloud = 'germany'", "cloud", "\"public\", \"china\", \"usgovernment\""},
        {"cloud = 'usgoverment'", "cloud", "did you mean \"usgovernment\"?"},
        {"cloud = 1", "cloud", "accepted"},
        {"authority = 'http://login.microsoftonline.com'", "authority", "not encrypted"},
        {"authority = 'http://localhost.evil.example'", "authority", "not encrypted"},
        {"authority = 'https://login.microsoftonline.com/tenant'", "authority", "has a path"},
        {"authority = 'https://u:hunter2@login.example'", "authority", "no user name"},
        {"audience = ''", "audience", "a URI"},
        {"audience = 'containerregistry'", "audience", "a URI"},
        {"imds_endpoint = '169.254.169.254'", "imds_endpoint", "does not begin with https://"},
        {"imds_endpoint = 'http://169.254.169.254/metadata'", "imds_endpoint", "has a path"},
        {"acr_suffixes = ['.azurecr.io']", "acr_suffixes", "without the dot"},
        {"acr_suffixes = ['io']", "acr_suffixes", "one label"},
        {"acr_suffixes = 'azurecr.io'", "acr_suffixes", "a list"}}},
      {"log",
       {{"level = 'warning'", "level", "\"warn\""},
        {"level = 3", "level", "\"info\""},
        {"format = 'xml'", "format", "\"auto\", \"text\", \"json\", \"journal\""}}}};
  for (const auto& [table, bads] : tables) {
    for (const Bad& bad : bads) {
      const std::string toml =
          "# comment\n\n[" + std::string(table) + "]\n" + std::string(bad.line);
      const std::string fault = only_fault(toml);
      EXPECT_TRUE(
          fault.starts_with("t.toml:4: " + std::string(table) + "." + std::string(bad.key) + ": "))
          << fault;
      EXPECT_THAT(fault, HasSubstr(std::string(bad.what))) << bad.line;
      EXPECT_EQ(fault.find('\n'), fault.npos);
    }
  }
}

TEST(UnknownKey, IsRefusedWithTheOneThatWasMeant) {
  const std::vector<std::pair<std::string_view, std::string_view>> cases{
      {"[limts]\nconnections = 5",
       "t.toml:1: limts: unknown table or key; did you mean \"limits\"?"},
      {"[limits]\nconections = 5",
       "t.toml:2: limits.conections: unknown key; did you mean \"connections\"?"},
      {"[freshness]\ntag_tll = '1s'",
       "t.toml:2: freshness.tag_tll: unknown key; did you mean \"tag_ttl\"?"},
      {"[cache]\nidle_timeout = '1s'",
       "t.toml:2: cache.idle_timeout: unknown key here; it belongs to [limits]"},
      {"idle_timeout = '1s'",
       "t.toml:1: idle_timeout: unknown table or key here; it belongs to [limits]"},
      {"[log]\ncolour = true", "t.toml:2: log.colour: unknown key; accepted: level, format"},
      {"[[registry]]\nname='a.b'\nca = '/x'", "registry[\"a.b\"].ca: unknown key"},
      {"[[registry]]\nname='a.b'\n[registry.freshnes]\ntag_ttl='1s'",
       "registry[\"a.b\"].freshnes: unknown key; did you mean \"freshness\"?"},
      {"[[registry]]\nname='a.b'\n[registry.freshness]\ntagttl='1s'",
       "t.toml:4: registry[\"a.b\"].freshness.tagttl: unknown key; did you mean \"tag_ttl\"?"},
      {"[[registry]]\nname='a.b'\n[[registry.identity_for]]\nprefix='x/"
       "'\nidentity='v'\nuser='y'\n[identity.v]\nkind='anonymous'",
       "t.toml:6: registry[\"a.b\"].identity_for[1].user: unknown key; accepted: prefix, identity"},
      {"[identity.x]\nkind='anonymous'\nclientid='y'", "did you mean \"client_id\"?"},
      {"[[registries]]\nname='a.b'", "did you mean \"registry\"?"},
      {"'bad\\u001b[31m' = 1", "bad"},
      {"\"\\u001b[31m\" = 1", "t.toml:1: \\x1b[31m: unknown"}};
  for (const auto& [toml, expected] : cases) {
    EXPECT_THAT(only_fault(toml), HasSubstr(std::string(expected)));
  }
}

TEST(Secret, InTheFileItselfIsRefusedAndNotRepeated) {
  for (const std::string key :
       {"password", "password2", "passwd", "client_secret", "secret", "token", "access_token",
        "refresh_token", "identity_token", "private_key", "certificate", "auth"}) {
    for (const std::string head :
         {"", "[azure]\n", "[identity.x]\nkind = 'anonymous'\n", "[[registry]]\nname = 'a.b'\n"}) {
      const std::string toml = head + key + " = 'hunter2'";
      const std::string fault = only_fault(toml);
      EXPECT_THAT(fault, HasSubstr(key + ": a secret does not belong into this file")) << toml;
      EXPECT_THAT(fault, HasSubstr("file of its own")) << toml;
      EXPECT_THAT(fault, Not(HasSubstr("hunter2"))) << toml;
    }
  }
  EXPECT_THAT(only_fault("[identity.x]\nkind='anonymous'\nclient_secret = 'hunter2'"),
              HasSubstr("client_secret_file"));
  for (const std::string upstream : {"https://user:hunter2@a.b", "https://a.b/?sig=hunter2"}) {
    EXPECT_THAT(only_fault("[[registry]]\nname='a.b'\nupstream=['" + upstream + "']"),
                Not(HasSubstr("hunter2")));
  }
}

TEST(Faults, AreAllReportedAtOnceInTheOrderOfTheFile) {
  EXPECT_THAT(
      faults_of(R"([listen]
registry = ["0.0.0.0:5050", "127.0.0.1:5050", "localhost:1"]
contrl = "/x"

[cache]
max_size = "80"
directory = "here"

[limits]
connections = 0
idle_timeout = 5

[[registry]]
name = "A.io"
identity = "vm"

[[registry]]
name = "b.io"
upstream = ["ftp://b.io"]
default = true
password = "p"

[[registry]]
name = "b.io"
default = true

[identity.vmm]
kind = "basics"
)"),
      ElementsAre(
          HasSubstr("t.toml:2: listen.registry: \"0.0.0.0:5050\""),
          HasSubstr("t.toml:2: listen.registry: \"localhost:1\""),
          HasSubstr("t.toml:3: listen.contrl: "), HasSubstr("t.toml:6: cache.max_size: "),
          HasSubstr("t.toml:7: cache.directory: "), HasSubstr("t.toml:10: limits.connections: "),
          HasSubstr("t.toml:11: limits.idle_timeout: "), HasSubstr("t.toml:14: registry[1].name: "),
          HasSubstr("t.toml:15: registry[1].identity: there is no [identity.vm]; "
                    "did you mean \"vmm\"?"),
          HasSubstr("t.toml:19: registry[\"b.io\"].upstream: "),
          HasSubstr("t.toml:21: registry[\"b.io\"].password: "),
          HasSubstr("t.toml:24: registry[\"b.io\"].name: \"b.io\" is already "
                    "configured in line 18"),
          HasSubstr("t.toml:25: registry[\"b.io\"].default: "),
          HasSubstr("t.toml:28: identity.vmm.kind: ")));
}

TEST(Faults, OfTomlItselfHaveTheSameForm) {
  for (const std::string_view toml :
       {"\n[cache\n", "\na = ", "\nx = 'a\n'", "\n[a]\n[a]\n", "\na = 1\na = 2", "\na = 1 b = 2",
        "\n\"\\q\" = 1", "\na = \x01", "\na = 99999999999999999999999"}) {
    const std::string fault = only_fault(toml);
    EXPECT_THAT(fault, testing::MatchesRegex("t\\.toml:[2-4]: not TOML: .*")) << toml;
    EXPECT_EQ(fault.find('\n'), fault.npos) << toml;
  }
  EXPECT_FALSE(faults_of(std::string("a = '\xff\xfe'")).empty());
  EXPECT_FALSE(faults_of(std::string("a = ") + std::string(5000, '[')).empty());
}

TEST(Faults, NameTheTablesThatHaveTheWrongShape) {
  EXPECT_THAT(only_fault("cache = 5"), HasSubstr("t.toml:1: cache: this is a whole number; "
                                                 "accepted: a table, [cache]"));
  EXPECT_THAT(only_fault("[[cache]]\nmax_size='1%'"), HasSubstr("single brackets"));
  EXPECT_THAT(only_fault("[registry]\nname='a.b'"), HasSubstr("double brackets"));
  EXPECT_THAT(only_fault("registry = []"), HasSubstr("one [[registry]] each"));
  EXPECT_THAT(only_fault("registry = ['docker.io']"), HasSubstr("one [[registry]] each"));
  EXPECT_THAT(only_fault("registry = 'docker.io'"), HasSubstr("one [[registry]] each"));
}

TEST(Variables, ArePutIntoPathsOnly) {
  const Environment environment{{{"CREDENTIALS_DIRECTORY", "/creds"}}, 0, {}};
  EXPECT_EQ(good("[[registry]]\nname='a.b'\nca_file='${CREDENTIALS_DIRECTORY}/ca'", environment)
                .proxy.registries[0]
                .ca_file,
            "/creds/ca");
  EXPECT_THAT(only_fault("[[registry]]\nname='a.b'\nca_file='${CREDENTIALS_DIRECTORY}/ca'"),
              HasSubstr("LoadCredential="));
  EXPECT_THAT(only_fault("[azure]\naudience='${CREDENTIALS_DIRECTORY}/x'", environment),
              HasSubstr("for paths only"));
  EXPECT_THAT(only_fault("[[registry]]\nname='${HOST}'", environment), HasSubstr("for paths only"));
}

TEST(ControlSocket, IsShortEnoughForAUnixSocket) {
  const std::string longest(106, 'a');
  good("[listen]\ncontrol = '/" + longest + "'");
  EXPECT_THAT(only_fault("[listen]\ncontrol = '/" + longest + "b'"),
              HasSubstr("t.toml:2: listen.control: "));
}

TEST(Limits, OfTheFileItselfHaveNames) {
  std::string many;
  for (int i = 0; i < 1001; ++i) many += "[[registry]]\nname = 'r" + std::to_string(i) + ".io'\n";
  EXPECT_THAT(only_fault(many), HasSubstr("at most 1000"));
  std::string hosts = "[access]\nhosts = [";
  for (int i = 0; i < 1001; ++i) hosts += "'h" + std::to_string(i) + "',";
  EXPECT_THAT(only_fault(hosts + "]"), HasSubstr("at most 1000 entries"));
}

class File : public testing::Test {
 protected:
  File() {
    std::string pattern = testing::TempDir() + "/options_testXXXXXX";
    directory_ = mkdtemp(pattern.data());
  }
  ~File() override { std::filesystem::remove_all(directory_); }

  std::filesystem::path write(std::string_view text) {
    const std::filesystem::path path = directory_ / "c.toml";
    std::ofstream(path) << text;
    return path;
  }

  std::filesystem::path directory_;
};

TEST_F(File, IsReadAndNamedInFaults) {
  const auto path = write("[log]\nlevel = 'debug'\n");
  const auto config = load_config(path, plain_environment());
  ASSERT_TRUE(config);
  EXPECT_EQ(config->log.level, log::Level::debug);
  const auto bad = load_config(write("[log]\nlevel = 'x'\n"), plain_environment());
  ASSERT_FALSE(bad);
  EXPECT_TRUE(bad.error().front().to_string().starts_with(path.string() + ":2: log.level: "));
}

TEST_F(File, ThatIsNamedAndAbsentIsAFault) {
  const auto config = load_config(directory_ / "absent.toml", plain_environment());
  ASSERT_FALSE(config);
  ASSERT_THAT(config.error(), SizeIs(1));
  EXPECT_THAT(config.error().front().to_string(), HasSubstr("No such file or directory"));
}

TEST_F(File, ThatIsNoFileOrTooLargeIsAFault) {
  EXPECT_FALSE(load_config(directory_, plain_environment()));
  EXPECT_FALSE(load_config("/dev/zero", plain_environment()));
  const auto large = load_config(write(std::string(kMaxConfigBytes + 1, '#')), plain_environment());
  ASSERT_FALSE(large);
  EXPECT_THAT(large.error().front().what, HasSubstr("1 MiB"));
  EXPECT_TRUE(load_config(write(std::string(kMaxConfigBytes, '#')), plain_environment()));
}

TEST_F(File, EmptyGivesTheDefaults) {
  const auto config = load_config(write(""), plain_environment());
  ASSERT_TRUE(config);
  EXPECT_EQ(to_toml(*config), to_toml(good("")));
}

TEST_F(File, OfCertificatesIsLookedForInTheRealEnvironment) {
  const Environment environment = Environment::of_process();
  ASSERT_TRUE(environment.why_unreadable);
  EXPECT_EQ(environment.why_unreadable(write("x")), "");
  EXPECT_EQ(environment.why_unreadable(directory_), "not a regular file");
  EXPECT_EQ(environment.why_unreadable(directory_ / "absent"), "No such file or directory");
}

}  // namespace
}  // namespace staithe::daemon
