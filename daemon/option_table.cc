#include "daemon/option_table.h"

#include <algorithm>
#include <array>
#include <cassert>
#include <utility>

#include "daemon/values.h"

namespace staithe::daemon {
namespace {

using std::chrono::milliseconds;

constexpr std::int64_t kSecond = 1'000;
constexpr std::int64_t kMinute = 60 * kSecond;
constexpr std::int64_t kHour = 60 * kMinute;
constexpr std::int64_t kDay = 24 * kHour;
constexpr std::int64_t kMiB = 1 << 20;
constexpr std::int64_t kMaxSize = INT64_MAX;

constexpr std::array<Word, 3> kClouds{{{"public"}, {"china"}, {"usgovernment"}}};
constexpr std::array<Word, 5> kLevels{{{"trace"}, {"debug"}, {"info"}, {"warn"}, {"error"}}};
constexpr std::array<Word, 4> kFormats{{{"auto"}, {"text"}, {"json"}, {"journal"}}};
constexpr std::array<Word, 8> kKinds{{{"anonymous"},
                                      {"managed-identity"},
                                      {"service-principal"},
                                      {"workload-identity"},
                                      {"basic"},
                                      {"token"},
                                      {"helper"},
                                      {"docker-config"}}};
constexpr std::array<Word, 4> kSources{{{"auto"}, {"imds"}, {"arc"}, {"app-service"}}};

constexpr std::array<Table, 12> kTables{{
    {"listen", Shape::single, "Where clients and operators find the daemon."},
    {"access", Shape::single, "Who may use this machine's identity through the listeners."},
    {"cache", Shape::single,
     "The cache. A size is a number of bytes, or has KiB, MiB, GiB or TiB, or is a share of the "
     "filesystem, \"80%\"."},
    {"freshness", Shape::single,
     "How long a tag is trusted; a [[registry]] may override both keys."},
    {"limits", Shape::single, "Bounds on clients and on waiting for upstream."},
    {"azure", Shape::single, "The cloud that this machine's identity belongs to."},
    {"log", Shape::single, "What is logged, and how."},
    {"registry", Shape::repeated,
     "What clients may ask for, one [[registry]] each; anything else is refused. Exact names are "
     "tried before wildcards, then the first match wins. These are used while the file has no "
     "[[registry]] of its own."},
    {"registry.freshness", Shape::single, "Overrides [freshness] for the [[registry]] above it."},
    {"registry.access", Shape::single, "Overrides [access] for the [[registry]] above it."},
    {"registry.identity_for", Shape::repeated,
     "Another identity below a repository prefix of the [[registry]] above it; the longest prefix "
     "wins."},
    {"identity", Shape::named,
     "Identities, by the names that registries use. A secret never stands in this file: it has a "
     "file of its own, or is a systemd credential under ${CREDENTIALS_DIRECTORY}."},
}};

constexpr Option kOptions[] = {
    {.table = "listen",
     .key = "registry",
     .grammar = Grammar::listen_address,
     .list = true,
     .standard = R"(["127.0.0.1:5050"])",
     .help = "Addresses for registry clients: loopback with a port, or \"unix:/path\"",
     .slot = [](Target t) -> std::vector<std::string>& { return t.config->proxy.listen; }},
    {.table = "listen",
     .key = "control",
     .grammar = Grammar::path,
     .standard = R"("/run/staithe/control.sock")",
     .help = "The operator's socket; when not root: $XDG_RUNTIME_DIR/staithe/control.sock",
     .slot = [](Target t) -> std::filesystem::path& { return t.config->control_socket; }},
    {.table = "listen",
     .key = "metrics",
     .grammar = Grammar::listen_address,
     .standard = R"("")",
     .help = "An address that serves GET /metrics too; empty: none",
     .availability = Availability::later,
     .off = R"("")"},
    {.table = "listen",
     .key = "drain_timeout",
     .grammar = Grammar::duration,
     .standard = R"("30s")",
     .help = "How long running transfers may take to end after SIGTERM",
     .slot = [](Target t) -> milliseconds& { return t.config->drain_timeout; },
     .least = 0,
     .most = kHour},

    {.table = "access",
     .key = "users",
     .grammar = Grammar::account,
     .list = true,
     .standard = "[]",
     .help = "Names or uids besides root and the daemon's own user; both lists empty: every local "
             "user",
     .slot = [](Target t) -> std::vector<std::string>& { return t.config->proxy.access.users; }},
    {.table = "access",
     .key = "groups",
     .grammar = Grammar::account,
     .list = true,
     .standard = "[]",
     .help = "Names or gids of groups, whose members are named so too",
     .slot = [](Target t) -> std::vector<std::string>& { return t.config->proxy.access.groups; }},
    {.table = "access",
     .key = "hosts",
     .grammar = Grammar::host,
     .list = true,
     .standard = "[]",
     .help = "Host values accepted besides the listen addresses and localhost",
     .slot = [](Target t) -> std::vector<std::string>& { return t.config->proxy.hosts; }},

    {.table = "cache",
     .key = "directory",
     .grammar = Grammar::path,
     .standard = R"("/var/cache/staithe")",
     .help = "Where blobs are kept; when not root: $XDG_CACHE_HOME/staithe",
     .slot = [](Target t) -> std::filesystem::path& { return t.config->cache.directory; }},
    {.table = "cache",
     .key = "max_size",
     .grammar = Grammar::size,
     .standard = R"("80%")",
     .help = "The most that the cache takes; the least recently used goes first",
     .slot = [](Target t) -> cache::Size& { return t.config->cache.max_size; },
     .least = kMiB,
     .most = kMaxSize,
     .least_percent = 1},
    {.table = "cache",
     .key = "min_free",
     .grammar = Grammar::size,
     .standard = R"("5%")",
     .help = "What the cache leaves free on its filesystem",
     .slot = [](Target t) -> cache::Size& { return t.config->cache.min_free; },
     .least = 0,
     .most = kMaxSize,
     .most_percent = 99},
    {.table = "cache",
     .key = "scrub_interval",
     .grammar = Grammar::duration,
     .standard = R"("7d")",
     .help = "How often every blob is read and verified in the background; 0s: never",
     .slot = [](Target t) -> milliseconds& { return t.config->cache.scrub_interval; },
     .least = 0,
     .most = 365 * kDay},

    {.table = "freshness",
     .key = "tag_ttl",
     .grammar = Grammar::duration,
     .standard = R"("0s")",
     .help =
         "How long a tag is trusted without asking upstream; 0s: one HEAD for every pull by tag",
     .slot = [](Target t) -> milliseconds& { return t.config->freshness.tag_ttl; },
     .least = 0,
     .most = 365 * kDay},
    {.table = "freshness",
     .key = "serve_stale",
     .grammar = Grammar::duration,
     .standard = R"("7d")",
     .help = "How long after its last good check a tag is served while upstream fails; 0s: never",
     .slot = [](Target t) -> milliseconds& { return t.config->freshness.serve_stale; },
     .least = 0,
     .most = 365 * kDay},
    {.table = "freshness",
     .key = "serve_gone",
     .grammar = Grammar::duration,
     .standard = R"("0s")",
     .help = "As serve_stale, for a tag that upstream says it has not (404); 0s: never",
     .slot = [](Target t) -> milliseconds& { return t.config->freshness.serve_gone; },
     .least = 0,
     .most = 365 * kDay},

    {.table = "limits",
     .key = "connections",
     .grammar = Grammar::count,
     .standard = "10000",
     .help = "Clients at one time, all listeners together",
     .slot = [](Target t) -> std::size_t& { return t.config->proxy.limits.connections; },
     .least = 1,
     .most = 1'000'000},
    {.table = "limits",
     .key = "connections_per_user",
     .grammar = Grammar::count,
     .standard = "2000",
     .help = "Clients of one local user at one time",
     .slot = [](Target t) -> auto& { return t.config->proxy.limits.connections_per_user; },
     .least = 1,
     .most = 1'000'000},
    {.table = "limits",
     .key = "header_timeout",
     .grammar = Grammar::duration,
     .standard = R"("10s")",
     .help = "A request's head must be whole by then",
     .slot = [](Target t) -> milliseconds& { return t.config->proxy.limits.header_timeout; },
     .least = 100,
     .most = 10 * kMinute},
    {.table = "limits",
     .key = "idle_timeout",
     .grammar = Grammar::duration,
     .standard = R"("150s")",
     .help = "For a client's next request (clients expect 130s), or to take some of its answer",
     .slot = [](Target t) -> milliseconds& { return t.config->proxy.limits.idle_timeout; },
     .least = kSecond,
     .most = kDay},
    {.table = "limits",
     .key = "upstream_connect",
     .grammar = Grammar::duration,
     .standard = R"("5s")",
     .help = "For a connection to upstream, TLS included",
     .slot = [](Target t) -> milliseconds& { return t.config->proxy.limits.upstream_connect; },
     .least = 100,
     .most = 5 * kMinute},
    {.table = "limits",
     .key = "upstream_first_byte",
     .grammar = Grammar::duration,
     .standard = R"("20s")",
     .help = "For upstream's answer to begin; clients give up after 30s",
     .slot = [](Target t) -> milliseconds& { return t.config->proxy.limits.upstream_first_byte; },
     .least = 100,
     .most = 10 * kMinute},
    {.table = "limits",
     .key = "upstream_stall",
     .grammar = Grammar::duration,
     .standard = R"("15s")",
     .help = "Silence in the middle of a body",
     .slot = [](Target t) -> milliseconds& { return t.config->proxy.limits.upstream_stall; },
     .least = 100,
     .most = kHour},

    {.table = "azure",
     .key = "cloud",
     .grammar = Grammar::word,
     .standard = R"("public")",
     .help = "Which cloud's registries are Azure's own",
     .slot = Choice{[](Target t, std::size_t i) { t.config->cloud = static_cast<Cloud>(i); },
                    [](Target t) { return static_cast<std::size_t>(t.config->cloud); }},
     .words = kClouds},
    {.table = "azure",
     .key = "authority",
     .grammar = Grammar::authority,
     .standard = R"("")",
     .help = "The Entra authority; empty: the cloud's own, or of a workload identity "
             "$AZURE_AUTHORITY_HOST",
     .slot = [](Target t) -> std::string& { return t.config->proxy.azure.authority; }},
    {.table = "azure",
     .key = "audience",
     .grammar = Grammar::audience,
     .standard = R"("https://containerregistry.azure.net")",
     .help = "For whom the identity's token is made out",
     .slot = [](Target t) -> std::string& { return t.config->proxy.azure.audience; }},
    {.table = "azure",
     .key = "imds_endpoint",
     .grammar = Grammar::origin_url,
     .standard = R"("http://169.254.169.254")",
     .help = "The instance metadata service, which hands out managed identity tokens",
     .slot = [](Target t) -> std::string& { return t.config->proxy.azure.imds_endpoint; }},
    {.table = "azure",
     .key = "acr_suffixes",
     .grammar = Grammar::host_suffix,
     .list = true,
     .standard = "[]",
     .help = "Login-server suffixes besides the cloud's own; identity tokens go below these only",
     .slot = [](Target t) -> std::vector<std::string>& { return t.config->extra_acr_suffixes; }},

    {.table = "log",
     .key = "level",
     .grammar = Grammar::word,
     .standard = R"("info")",
     .help = "The least urgent lines that are written; debug has one line for each request",
     .slot =
         Choice{[](Target t, std::size_t i) { t.config->log.level = static_cast<log::Level>(i); },
                [](Target t) { return static_cast<std::size_t>(t.config->log.level); }},
     .words = kLevels},
    {.table = "log",
     .key = "format",
     .grammar = Grammar::word,
     .standard = R"("auto")",
     .help = "auto: journal under systemd, else text",
     .slot =
         Choice{[](Target t, std::size_t i) { t.config->log.format = static_cast<log::Format>(i); },
                [](Target t) { return static_cast<std::size_t>(t.config->log.format); }},
     .words = kFormats},

    {.table = "registry",
     .key = "name",
     .grammar = Grammar::registry_name,
     .help = "A registry host as written in image names, or \"*.suffix\"",
     .slot = [](Target t) -> std::string& { return t.registry->name; }},
    {.table = "registry",
     .key = "identity",
     .grammar = Grammar::identity_name,
     .standard = R"("")",
     .help = "The NAME of an [identity.NAME]; empty: anonymous",
     .slot = [](Target t) -> std::string& { return t.registry->identity; }},
    {.table = "registry",
     .key = "upstream",
     .grammar = Grammar::upstream_url,
     .list = true,
     .help = "Where content comes from, tried in order: mirrors, and last the registry itself, to "
             "whose origin alone its identity goes; a path stands for prefix there; absent: "
             "https:// and the name",
     .slot = [](Target t) -> std::vector<std::string>& { return t.registry->upstream; }},
    {.table = "registry",
     .key = "prefix",
     .grammar = Grammar::repository_prefix,
     .standard = R"("")",
     .help = "Put before the repository upstream, e.g. \"docker-hub/\" for an ACR cache rule",
     .slot = [](Target t) -> std::string& { return t.registry->prefix; }},
    {.table = "registry",
     .key = "ca_file",
     .grammar = Grammar::path,
     .standard = R"("")",
     .help = "Certificates (PEM) that are trusted for this upstream besides the system's",
     .slot = [](Target t) -> std::string& { return t.registry->ca_file; }},
    {.table = "registry",
     .key = "data_hosts",
     .grammar = Grammar::host_pattern,
     .list = true,
     .standard = "[]",
     .help = "Hosts that blob redirects may name, besides those of ACR and Azure storage",
     .slot = [](Target t) -> std::vector<std::string>& { return t.registry->data_hosts; }},
    {.table = "registry",
     .key = "token_hosts",
     .grammar = Grammar::host,
     .list = true,
     .standard = "[]",
     .help = "Hosts besides the registry's own that may be sent its user name and password for a "
             "token",
     .slot = [](Target t) -> std::vector<std::string>& { return t.registry->token_hosts; }},
    {.table = "registry",
     .key = "default",
     .grammar = Grammar::flag,
     .standard = "false",
     .help = "Answers requests that name no registry (dockerd's registry-mirrors)",
     .slot = [](Target t) -> bool& { return t.registry->is_default; }},
    {.table = "registry",
     .key = "max_connections",
     .grammar = Grammar::count,
     .standard = "16",
     .help = "To this upstream at one time",
     .slot = [](Target t) -> std::size_t& { return t.registry->max_connections; },
     .least = 1,
     .most = 1024},
    {.table = "registry",
     .key = "segments",
     .grammar = Grammar::count,
     .standard = "4",
     .help = "Parallel ranges for one large blob; 1 = one connection",
     .slot = [](Target t) -> std::size_t& { return t.registry->segments; },
     .least = 1,
     .most = 64},
    {.table = "registry",
     .key = "verify_callers",
     .grammar = Grammar::flag,
     .standard = "false",
     .help = "A caller proves its own right to private content before a cached answer",
     .availability = Availability::later,
     .off = "false"},

    {.table = "registry.freshness",
     .key = "tag_ttl",
     .grammar = Grammar::duration,
     .help = "As in [freshness]",
     .slot = [](Target t) -> milliseconds& { return t.registry->freshness.tag_ttl; },
     .least = 0,
     .most = 365 * kDay},
    {.table = "registry.freshness",
     .key = "serve_stale",
     .grammar = Grammar::duration,
     .help = "As in [freshness]",
     .slot = [](Target t) -> milliseconds& { return t.registry->freshness.serve_stale; },
     .least = 0,
     .most = 365 * kDay},
    {.table = "registry.freshness",
     .key = "serve_gone",
     .grammar = Grammar::duration,
     .help = "As in [freshness]",
     .slot = [](Target t) -> milliseconds& { return t.registry->freshness.serve_gone; },
     .least = 0,
     .most = 365 * kDay},

    {.table = "registry.access",
     .key = "users",
     .grammar = Grammar::account,
     .list = true,
     .help = "As in [access]",
     .availability = Availability::later,
     .off = "[]"},
    {.table = "registry.access",
     .key = "groups",
     .grammar = Grammar::account,
     .list = true,
     .help = "As in [access]",
     .availability = Availability::later,
     .off = "[]"},

    {.table = "registry.identity_for",
     .key = "prefix",
     .grammar = Grammar::repository_prefix,
     .help = "The beginning of repository names, with its slash",
     .slot = [](Target t) -> std::string& { return t.below->prefix; }},
    {.table = "registry.identity_for",
     .key = "identity",
     .grammar = Grammar::identity_name,
     .help = "The NAME of an [identity.NAME]",
     .slot = [](Target t) -> std::string& { return t.below->identity; }},

    {.table = "identity",
     .key = "kind",
     .grammar = Grammar::word,
     .help = "What proves who we are",
     .slot = Choice{
         [](Target t, std::size_t i) { t.identity->kind = static_cast<proxy::IdentityKind>(i); },
         [](Target t) { return static_cast<std::size_t>(t.identity->kind); }},
     .words = kKinds},
    {.table = "identity",
     .key = "source",
     .grammar = Grammar::word,
     .standard = R"("auto")",
     .help = "Which service hands out the managed identity's token; auto: the one that is there",
     .slot = Choice{[](Target t, std::size_t i) {
                      t.identity->source = static_cast<proxy::ManagedIdentitySource>(i);
                    },
                    [](Target t) { return static_cast<std::size_t>(t.identity->source); }},
     .words = kSources,
     .kinds = "managed-identity"},
    {.table = "identity",
     .key = "tenant_id",
     .grammar = Grammar::guid,
     .help = "The Entra tenant; of a workload identity: absent, $AZURE_TENANT_ID",
     .slot = [](Target t) -> std::string& { return t.identity->tenant_id; },
     .kinds = "service-principal workload-identity",
     .example = R"("72f988bf-0000-4000-8000-0123456789ab")"},
    {.table = "identity",
     .key = "client_id",
     .grammar = Grammar::guid,
     .standard = R"("")",
     .help = "Which of several managed identities, or the application, by its client id; of a "
             "workload identity: empty, $AZURE_CLIENT_ID",
     .slot = [](Target t) -> std::string& { return t.identity->client_id; },
     .kinds = "managed-identity service-principal workload-identity",
     .example = R"("8d3f4b1e-0000-4000-8000-0123456789ab")"},
    {.table = "identity",
     .key = "object_id",
     .grammar = Grammar::guid,
     .standard = R"("")",
     .help = "The same by its object id",
     .slot = [](Target t) -> std::string& { return t.identity->object_id; },
     .kinds = "managed-identity"},
    {.table = "identity",
     .key = "resource_id",
     .grammar = Grammar::azure_resource_id,
     .standard = R"("")",
     .help = "The same by its resource id, \"/subscriptions/...\"; at most one of the three",
     .slot = [](Target t) -> std::string& { return t.identity->resource_id; },
     .kinds = "managed-identity"},
    {.table = "identity",
     .key = "client_secret_file",
     .grammar = Grammar::path,
     .help = "A file that holds the client secret",
     .slot = [](Target t) -> std::filesystem::path& { return t.identity->client_secret_file; },
     .kinds = "service-principal",
     .example = R"("/etc/staithe/app.secret")"},
    {.table = "identity",
     .key = "certificate_file",
     .grammar = Grammar::path,
     .help = "In place of client_secret_file: a PEM file that holds the key and its certificate",
     .slot = [](Target t) -> std::filesystem::path& { return t.identity->certificate_file; },
     .kinds = "service-principal",
     .example = R"("/etc/staithe/app.pem")"},
    {.table = "identity",
     .key = "username",
     .grammar = Grammar::plain_text,
     .help = "The user's name, or that of a repository-scoped token",
     .slot = [](Target t) -> std::string& { return t.identity->username; },
     .kinds = "basic",
     .example = R"("puller")"},
    {.table = "identity",
     .key = "password_file",
     .grammar = Grammar::path,
     .help = "A file that holds the password",
     .slot = [](Target t) -> std::filesystem::path& { return t.identity->password_file; },
     .kinds = "basic",
     .example = R"("/etc/staithe/puller.password")"},
    {.table = "identity",
     .key = "password2_file",
     .grammar = Grammar::path,
     .help = "A file that holds a second password, tried when the first is refused",
     .slot = [](Target t) -> std::filesystem::path& { return t.identity->password2_file; },
     .kinds = "basic",
     .example = R"("/etc/staithe/puller.password2")"},
    {.table = "identity",
     .key = "secret_expires",
     .grammar = Grammar::date,
     .help = "The day on which the secret ends, which only its issuer knows; status warns ahead",
     .slot = [](Target t) -> std::optional<std::chrono::sys_days>& {
       return t.identity->secret_expires;
     },
     .kinds = "service-principal basic",
     .example = "2027-01-31"},
    {.table = "identity",
     .key = "token_file",
     .grammar = Grammar::path,
     .help = "A file that holds the token; of a workload identity: absent, "
             "$AZURE_FEDERATED_TOKEN_FILE",
     .slot = [](Target t) -> std::filesystem::path& { return t.identity->token_file; },
     .kinds = "workload-identity token",
     .example = R"("/run/secrets/registry-token")"},
    {.table = "identity",
     .key = "federated_identity",
     .grammar = Grammar::identity_name,
     .help = "In place of token_file: the NAME of a managed identity that the application trusts",
     .slot = [](Target t) -> std::string& { return t.identity->federated_identity; },
     .kinds = "workload-identity",
     .example = R"("vm")"},
    {.table = "identity",
     .key = "helper",
     .grammar = Grammar::helper_name,
     .help = "Runs docker-credential-<helper> get",
     .slot = [](Target t) -> std::string& { return t.identity->helper; },
     .kinds = "helper",
     .example = R"("ecr-login")"},
    {.table = "identity",
     .key = "file",
     .grammar = Grammar::path,
     .help = "A docker config.json, or a mounted kubernetes.io/dockerconfigjson secret",
     .slot = [](Target t) -> std::filesystem::path& { return t.identity->file; },
     .kinds = "docker-config",
     .example = R"("/etc/staithe/config.json")"},
};

// The words stand in the order of their enumerations.
static_assert(static_cast<std::size_t>(Cloud::us_government) == 2);
static_assert(kClouds[2].text == "usgovernment" && kClouds[1].text == "china");
static_assert(static_cast<std::size_t>(log::Level::error) == 4 && kLevels[4].text == "error");
static_assert(static_cast<std::size_t>(log::Format::journal) == 3 && kFormats[3].text == "journal");
static_assert(static_cast<std::size_t>(proxy::IdentityKind::docker_config) == 7);
static_assert(kKinds[7].text == "docker-config" && kKinds[1].text == "managed-identity");
static_assert(static_cast<std::size_t>(proxy::ManagedIdentitySource::app_service) == 3);
static_assert(kSources[3].text == "app-service" && kSources[1].text == "imds");

std::string toml_string(std::string_view text) {
  constexpr std::string_view kHex = "0123456789ABCDEF";
  std::string result = "\"";
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      result += {'\\', c};
    } else if (byte < ' ' || byte == 0x7f) {
      result += "\\u00";
      result += {kHex[byte >> 4], kHex[byte & 15]};
    } else {
      result += c;
    }
  }
  return result + "\"";
}

template <class... Ts>
struct Overloaded : Ts... {
  using Ts::operator()...;
};

}  // namespace

std::span<const Option> options() { return kOptions; }

std::span<const Table> tables() { return kTables; }

const Option* find_option(std::string_view table, std::string_view key) {
  const auto* found = std::ranges::find_if(
      kOptions, [&](const Option& option) { return option.table == table && option.key == key; });
  return found == std::ranges::end(kOptions) ? nullptr : found;
}

bool belongs_to(const Option& option, std::string_view kind) {
  std::string_view kinds = option.kinds;
  if (kinds.empty()) return true;
  while (!kinds.empty()) {
    const std::size_t end = std::min(kinds.find(' '), kinds.size());
    if (kinds.substr(0, end) == kind) return true;
    kinds.remove_prefix(std::min(end + 1, kinds.size()));
  }
  return false;
}

std::string accepted(const Option& option) {
  const auto duration = [](std::int64_t ms) { return format_duration(milliseconds(ms)); };
  switch (option.grammar) {
    case Grammar::flag:
      return "true or false";
    case Grammar::count:
      return std::to_string(option.least) + " to " + std::to_string(option.most);
    case Grammar::duration:
      return duration(option.least) + " to " + duration(option.most);
    case Grammar::size: {
      const std::string least =
          format_size({.bytes = static_cast<std::uint64_t>(option.least), .share = 0});
      return least + " or more, or " + std::to_string(option.least_percent) + "% to " +
             std::to_string(option.most_percent) + "%";
    }
    case Grammar::word: {
      std::string text;
      for (const Word& word : option.words) {
        if (word.available) text += (text.empty() ? "" : ", ") + toml_string(word.text);
      }
      return text;
    }
    case Grammar::path:
      return "an absolute path";
    case Grammar::listen_address:
      return "\"127.0.0.1:5050\", \"[::1]:5050\" or \"unix:/path\"";
    case Grammar::host:
      return "host[:port]";
    case Grammar::host_pattern:
      return "a host or \"*.suffix\"";
    case Grammar::host_suffix:
      return "a suffix such as \"azurecr.io\"";
    case Grammar::registry_name:
      return "a registry host as written in image names, or \"*.suffix\"";
    case Grammar::origin_url:
      return "\"https://host[:port]\", or http:// written out";
    case Grammar::upstream_url:
      return "\"https://host[:port][/prefix]\", or http:// written out";
    case Grammar::authority:
      return "\"https://host[:port]\", or http:// with a loopback name";
    case Grammar::audience:
      return "a URI such as \"https://containerregistry.azure.net\"";
    case Grammar::repository_prefix:
      return "repository components such as \"team-a/\"";
    case Grammar::identity_name:
      return "the NAME of an [identity.NAME]";
    case Grammar::account:
      return "a name or a number";
    case Grammar::guid:
      return "a GUID";
    case Grammar::azure_resource_id:
      return "\"/subscriptions/...\"";
    case Grammar::helper_name:
      return "the suffix of a docker-credential program, such as \"ecr-login\"";
    case Grammar::plain_text:
      return "text of at most 255 bytes";
    case Grammar::date:
      return "a date without quotes, such as 2027-01-31";
  }
  std::unreachable();
}

void store(const Option& option, const Target& target, OptionValue value) {
  std::visit(
      Overloaded{
          [](std::monostate) {},
          [&](const Choice& choice) { choice.set(target, std::get<WordIndex>(value).index); },
          [&](Member<std::filesystem::path> member) {
            member(target) = std::get<std::string>(std::move(value));
          },
          [&]<class T>(Member<T> member) { member(target) = std::get<T>(std::move(value)); },
      },
      option.slot);
}

OptionValue fetch(const Option& option, const Target& target) {
  return std::visit(
      Overloaded{
          [](std::monostate) -> OptionValue { std::unreachable(); },
          [&](const Choice& choice) -> OptionValue { return WordIndex{choice.get(target)}; },
          [&](Member<std::filesystem::path> member) -> OptionValue {
            return member(target).string();
          },
          [&]<class T>(Member<T> member) -> OptionValue { return member(target); },
      },
      option.slot);
}

std::string toml_text(const Option& option, const OptionValue& value) {
  return std::visit(
      Overloaded{
          [](bool flag) -> std::string { return flag ? "true" : "false"; },
          [](std::size_t count) { return std::to_string(count); },
          [](milliseconds duration) { return "\"" + format_duration(duration) + "\""; },
          [](const cache::Size& size) {
            const std::string text = format_size(size);
            return text.find_first_not_of("0123456789") == text.npos ? text : "\"" + text + "\"";
          },
          [](const std::string& text) { return toml_string(text); },
          [](const std::vector<std::string>& texts) {
            std::string list;
            for (const std::string& text : texts) {
              list += (list.empty() ? "" : ", ") + toml_string(text);
            }
            return "[" + list + "]";
          },
          [](const std::optional<std::chrono::sys_days>& date) {
            return date ? format_date(*date) : std::string();
          },
          [&](WordIndex word) {
            assert(word.index < option.words.size());
            return toml_string(option.words[word.index].text);
          },
      },
      value);
}

}  // namespace staithe::daemon
