#include "daemon/control.h"

#include <unistd.h>

#include <algorithm>
#include <boost/json.hpp>
#include <climits>

#include "cache/escape.h"
#include "cache/log.h"
#include "daemon/metric_text.h"
#include "daemon/owner_request.h"
#include "daemon/status_page.h"
#include "proxy/auth/secret_memory.h"
#include "proxy/host_policy.h"

namespace staithe::daemon {

namespace json = boost::json;

namespace {

// Enough to see what goes and why; `staithe ls` has them all.
constexpr std::size_t shown_victims = 5;

std::string host_name() {
  char name[HOST_NAME_MAX + 1] = {};
  return ::gethostname(name, sizeof name - 1) == 0 ? name : "";
}

const char* to_string(Control::State state) {
  switch (state) {
    case Control::State::starting:
      return "starting";
    case Control::State::ready:
      return "ready";
    case Control::State::draining:
      return "draining";
  }
  return "starting";
}

std::string identity_kind(const Config& config, const std::string& identity) {
  if (Credentials::is_sign_in(identity)) return "sign-in";
  const auto it = config.proxy.identities.find(identity);
  return to_string(it == config.proxy.identities.end() ? proxy::IdentityKind::anonymous
                                                       : it->second.kind);
}

json::value optional_text(const std::string& text) {
  return text.empty() ? json::value(nullptr) : json::value(text);
}

// The pulls that a registry still grants, as it told with its last answer.
json::value describe(const std::optional<proxy::PullQuota>& quota) {
  if (!quota) return nullptr;
  return json::object{{"limit", quota->limit},
                      {"remaining", quota->remaining},
                      {"window_seconds", quota->window.count()},
                      {"source", quota->source}};
}

json::array describe_states(const proxy::UpstreamList& upstream) {
  json::array all;
  for (const auto& state : upstream.states()) {
    all.push_back(
        json::object{{"url", state.url},
                     {"state", to_string(state.health)},
                     {"paused_seconds", state.paused.count()},
                     {"last_error", state.last_error ? json::value(state.last_error->detail)
                                                     : json::value(nullptr)}});
  }
  return all;
}

json::object describe(const Config& config, const std::string& name, const std::string& identity,
                      const proxy::UpstreamList& upstream) {
  json::array urls;
  for (const auto& state : upstream.states()) urls.emplace_back(state.url);
  json::array tokens;
  json::array credentials;
  for (const proxy::auth::Authorizer* authorizer : upstream.authorizers()) {
    for (const auto& token : authorizer->tokens()) {
      tokens.push_back(
          json::object{{"kind", token.kind},
                       {"age_seconds", token.age.count()},
                       {"expires_in_seconds", token.expires_in.count()},
                       {"renews_in_seconds", token.renews_in ? json::value(token.renews_in->count())
                                                             : json::value(nullptr)}});
    }
    for (const auto& ending : authorizer->endings()) {
      credentials.push_back(json::object{{"what", ending.what},
                                         {"expires_in_seconds", ending.expires_in.count()},
                                         {"near", ending.is_near()}});
    }
  }
  const auto retry_in = upstream.retry_in();
  const proxy::UpstreamStats stats = upstream.stats();
  const std::optional<Error> error = upstream.last_error();
  return {{"name", name},
          {"upstream", std::move(urls)},
          {"upstreams", describe_states(upstream)},
          {"identity", optional_text(identity)},
          {"identity_kind", identity_kind(config, identity)},
          {"state", to_string(upstream.health())},
          {"paused_seconds", upstream.paused().count()},
          {"retry_in_seconds", retry_in ? json::value(retry_in->count()) : json::value(nullptr)},
          {"requests", stats.requests},
          {"retries", stats.retries},
          {"hedges", stats.hedges},
          {"throttled", stats.throttled},
          {"refused", stats.refused},
          {"rate_limit", describe(upstream.quota())},
          {"last_error", error ? json::value(error->detail) : json::value(nullptr)},
          {"last_error_class", error ? json::value(to_string(error->code)) : json::value(nullptr)},
          {"tokens", std::move(tokens)},
          {"credentials", std::move(credentials)}};
}

json::object describe(const Access& access, Instant now) {
  json::array refused;
  for (const Access::Refused& one : access.refused_lately()) {
    const auto ago = std::chrono::floor<std::chrono::seconds>(now - one.last);
    refused.push_back(
        json::object{{"uid", one.user ? json::value(*one.user) : json::value(nullptr)},
                     {"times", one.times},
                     {"last_seconds_ago", ago.count()},
                     {"right", to_string(one.right)},
                     {"registry", optional_text(one.registry)},
                     {"cgroup", optional_text(printable(one.cgroup))}});
  }
  return {{"restricted", access.restricted()}, {"refused", std::move(refused)}};
}

json::array describe(const Config& config, const proxy::Registries& registries) {
  json::array all;
  for (const auto& [name, registry] : registries.used()) {
    for (const auto& [identities, upstream] : registry->upstreams())
      all.push_back(describe(config, name, identities.back(), *upstream));
  }
  for (const auto& entry : registries.configured()) {
    if (const auto used = registries.used().find(entry.name);
        used != registries.used().end() && !used->second->upstreams().empty())
      continue;
    json::array upstream;
    for (const std::string& url : entry.upstream) upstream.emplace_back(url);
    if (upstream.empty()) upstream.emplace_back("https://" + entry.name);
    json::array upstreams;
    for (const json::value& url : upstream)
      upstreams.push_back(json::object{
          {"url", url}, {"state", "idle"}, {"paused_seconds", 0}, {"last_error", nullptr}});
    all.push_back(json::object{{"name", entry.name},
                               {"upstream", std::move(upstream)},
                               {"upstreams", std::move(upstreams)},
                               {"identity", optional_text(entry.identity)},
                               {"identity_kind", identity_kind(config, entry.identity)},
                               {"state", "idle"},
                               {"paused_seconds", 0},
                               {"last_error", nullptr},
                               {"last_error_class", nullptr},
                               {"tokens", json::array()},
                               {"credentials", json::array()}});
  }
  return all;
}

json::array describe(const proxy::Fills& fills) {
  json::array all;
  for (const auto& fill : fills.progress()) {
    json::object one = describe_fill(fill);
    one["digest"] = fill.digest.to_string();
    one["registry"] = fill.registry;
    one["repository"] = fill.repository;
    all.push_back(std::move(one));
  }
  return all;
}

// Instants become seconds from now, since nobody else has this clock.
json::object describe(const cache::Scrub& scrub, Instant now) {
  const auto figures = scrub.figures();
  const auto seconds_ahead = [&](const std::optional<Instant>& then, int sign) {
    if (!then) return json::value(nullptr);
    const auto ahead = std::chrono::duration_cast<std::chrono::seconds>(*then - now);
    return json::value(std::max<std::int64_t>(sign * ahead.count(), 0));
  };
  return {{"state", to_string(figures.state)},
          {"objects", figures.pass.objects},
          {"total_objects", figures.pass.total_objects},
          {"bytes", figures.pass.bytes},
          {"total_bytes", figures.pass.total_bytes},
          {"damaged", figures.pass.damaged},
          {"unreadable", figures.pass.unreadable},
          {"began_seconds_ago", seconds_ahead(figures.began, -1)},
          {"ended_seconds_ago", seconds_ahead(figures.ended, -1)},
          {"next_in_seconds", seconds_ahead(figures.next, 1)}};
}

std::uint64_t fetched_bytes(const proxy::Registries& registries) {
  std::uint64_t bytes = 0;
  for (const auto& [name, registry] : registries.used()) {
    for (const auto& [identities, upstream] : registry->upstreams())
      bytes += upstream->stats().bytes;
  }
  return bytes;
}

// Null if that is not known.
json::value seconds_since(const Clock& clock, std::int64_t unix_seconds) {
  if (unix_seconds <= 0) return nullptr;
  const auto now =
      std::chrono::duration_cast<std::chrono::seconds>(clock.wall().time_since_epoch());
  return std::max<std::int64_t>(0, now.count() - unix_seconds);
}

json::object describe(const proxy::Server::Figures& connections) {
  return {{"open", connections.open},
          {"users", connections.users},
          {"accepted", connections.accepted},
          {"refused", json::object{{"user", connections.refused_user},
                                   {"full", connections.refused_full},
                                   {"descriptors", connections.refused_descriptors},
                                   {"address", connections.refused_address}}},
          {"shed", connections.shed},
          {"ended", json::object{{"idle", connections.ended_idle},
                                 {"head", connections.ended_head},
                                 {"slow", connections.ended_slow}}}};
}

json::array describe(const std::vector<cache::Store::NextVictim>& victims, const Clock& clock) {
  json::array all;
  for (const auto& victim : victims) {
    all.push_back(
        json::object{{"digest", victim.digest.to_string()},
                     {"kind", victim.kind == cache::ObjectKind::blob ? "blob" : "manifest"},
                     {"bytes", victim.bytes},
                     {"last_used_seconds_ago", seconds_since(clock, victim.last_used_unix_seconds)},
                     {"why", victim.is_protected ? "protected" : "probation"}});
  }
  return all;
}

// False for what a page of another site may have had a browser send, here by way of a port that was
// forwarded to this socket: the browser says so, or the name is one that a site can have. Programs
// that speak to the socket itself call it anything without a dot.
bool comes_from_this_machine(const proxy::Request& request, const std::vector<std::string>& hosts) {
  if (!opens_status_page(request) &&
      proxy::is_cross_site(request.field("Sec-Fetch-Site"), request.field("Origin")))
    return false;
  const std::string_view host = request.host;
  return host.find_first_of(".[") == std::string_view::npos ||
         proxy::HostPolicy({}, hosts).accepts(host);
}

}  // namespace

Control::Control(Sources sources)
    : sources_(std::move(sources)),
      cache_(
          {.store = sources_.store, .registries = sources_.registries, .access = sources_.access}),
      explainer_({.config = sources_.config,
                  .clock = sources_.clock,
                  .store = sources_.store,
                  .registries = sources_.registries,
                  .fills = sources_.fills,
                  .access = sources_.access,
                  .upstreams = [this] { return describe(sources_.config, sources_.registries); }}),
      started_(sources_.clock.now()) {}

json::object Control::status() const {
  const auto stats = sources_.store.stats();
  const auto traffic = sources_.proxy.traffic();
  const auto uptime =
      std::chrono::duration_cast<std::chrono::seconds>(sources_.clock.now() - started_);
  json::array next_victims = describe(sources_.store.next_victims(shown_victims), sources_.clock);
  const auto hit_ratio = traffic.hit_ratio();
  json::array listen;
  for (const std::string& address : addresses_) listen.emplace_back(address);
  return {
      {"version", STAITHE_VERSION},
      {"host", host_name()},
      {"pid", ::getpid()},
      {"uptime_seconds", uptime.count()},
      {"state", to_string(state_)},
      {"listen", std::move(listen)},
      {"cache", json::object{{"directory", sources_.store.directory().string()},
                             {"bytes", stats.bytes},
                             {"max_bytes", stats.max_bytes},
                             {"free_bytes", stats.free_bytes},
                             {"blobs", stats.blobs},
                             {"manifests", stats.manifests},
                             {"evicted", stats.evicted},
                             {"quarantined", stats.quarantined},
                             {"pins", stats.pins},
                             {"pinned_bytes", stats.pinned_bytes},
                             {"mode", cache::to_string(stats.mode)},
                             {"mode_reason", stats.mode_reason},
                             {"next_victims", std::move(next_victims)},
                             {"reconciled", sources_.store.reconciled()},
                             {"scrub", describe(sources_.store.scrub(), sources_.clock.now())}}},
      {"traffic", json::object{{"requests", traffic.requests},
                               {"hits", traffic.hits},
                               {"misses", traffic.misses},
                               {"collapsed", traffic.collapsed},
                               {"stale", traffic.stale},
                               {"errors", traffic.errors},
                               {"denied", sources_.access.denied()},
                               {"hit_ratio", json::value_from(hit_ratio)},
                               {"bytes_served", traffic.bytes_served},
                               {"bytes_saved", traffic.bytes_saved},
                               {"bytes_fetched", fetched_bytes(sources_.registries)}}},
      {"access", describe(sources_.access, sources_.clock.now())},
      {"connections",
       describe(sources_.connections ? sources_.connections() : proxy::Server::Figures())},
      {"tls", sources_.tls ? tls_status(sources_.tls()) : json::value(nullptr)},
      {"log", json::object{{"dropped", log::dropped()}}},
      {"secret_memory", proxy::auth::SecretMemory::of_process().describe()},
      {"registries", describe(sources_.config, sources_.registries)},
      {"fills", describe(sources_.fills)},
      {"warm", sources_.warm_status()}};
}

asio::awaitable<void> Control::handle(proxy::Exchange& exchange) {
  const auto& request = exchange.request();
  const std::string_view path = request.target.substr(0, request.target.find('?'));
  if (!comes_from_this_machine(request, sources_.config.proxy.hosts)) {
    co_await exchange.reply_error(403, "DENIED",
                                  "this socket serves programs and its own page, under the name "
                                  "localhost or 127.0.0.1; add further names to access.hosts");
    co_return;
  }
  if (Credentials::answers(path)) {
    co_await sources_.credentials.handle(exchange);
    co_return;
  }
  if (CacheControl::answers(path)) {
    co_await cache_.handle(exchange);
    co_return;
  }
  if (Verifier::answers(path)) {
    co_await sources_.verifier.handle(exchange);
    co_return;
  }
  if (sources_.doctor && Doctor::answers(path)) {
    co_await sources_.doctor->handle(exchange);
    co_return;
  }
  if (WarmControl::answers(path)) {
    co_await sources_.warm.handle(exchange);
    co_return;
  }
  if (Explainer::answers(path)) {
    co_await explainer_.handle(exchange);
    co_return;
  }
  if (!co_await sources_.access.allows(Right::look, exchange.peer())) {
    co_await exchange.reply_error(403, "DENIED",
                                  "this user may not ask this daemon; ask as root, or as a user "
                                  "that access.users or access.groups of staithe.toml names");
    co_return;
  }
  if (path == "/v1/reload" && request.method == "POST") {
    co_await reload(exchange);
    co_return;
  }
  if (request.method != "GET" && request.method != "HEAD") {
    exchange.add("Allow", "GET, HEAD");
    co_await exchange.reply_error(405, "UNSUPPORTED",
                                  "this path is asked with GET, and the others that the control "
                                  "socket of this version has are POST /v1/credential, /v1/renew, "
                                  "/v1/login, /v1/logout, /v1/pin, /v1/unpin, /v1/purge, "
                                  "/v1/verify, /v1/warm, /v1/doctor and /v1/reload");
    co_return;
  }
  if (path == "/") {
    co_await reply_with_status_page(exchange, status(), sources_.clock.wall());
    co_return;
  }
  if (path == "/metrics" && sources_.metrics) {
    co_await exchange.reply(200, metrics_content_type, sources_.metrics());
    co_return;
  }
  json::object answer;
  if (path == "/v1/status") {
    answer = status();
  } else if (path == "/v1/registries") {
    answer["registries"] = describe(sources_.config, sources_.registries);
  } else if (path == "/v1/fills") {
    answer["fills"] = describe(sources_.fills);
  } else if (path == "/v1/config") {
    answer["toml"] = to_toml(sources_.config);
    answer["json"] = to_json(sources_.config);
  } else if (path == "/healthz") {
    answer["status"] = "live";
  } else if (path == "/readyz") {
    answer["status"] = to_string(state_);
  } else {
    co_await exchange.reply_error(404, "UNSUPPORTED",
                                  "there is nothing at this path; this version answers "
                                  "/ (a page), /v1/status, /v1/registries, /v1/fills, /v1/blobs, "
                                  "/v1/images, /v1/explain, /v1/config, /v1/credentials and "
                                  "/metrics");
    co_return;
  }
  const bool unready = path == "/readyz" && state_ != State::ready;
  co_await exchange.reply(unready ? 503 : 200, "application/json", json::serialize(answer) + "\n");
}

// As SIGHUP, for root and our own user, with the faults in the answer.
asio::awaitable<void> Control::reload(proxy::Exchange& exchange) {
  if (!co_await admit_owner(exchange, sources_.access, "reload its configuration")) co_return;
  const Faults faults = sources_.reload();
  json::array lines;
  for (const Fault& fault : faults) lines.emplace_back(fault.to_string());
  const json::object answer{{"reloaded", faults.empty()}, {"faults", std::move(lines)}};
  co_await exchange.reply(200, "application/json", json::serialize(answer) + "\n");
}

void Control::handled(const proxy::Exchange& exchange, std::chrono::microseconds took,
                      const Error* failure) {
  // Neither body nor query: what a caller sends may hold a secret, wherever he puts it.
  const std::string_view target = exchange.request().target;
  log::debug("control request", {{"method", exchange.request().method},
                                 {"path", target.substr(0, target.find('?'))},
                                 {"status", exchange.status()},
                                 {"microseconds", took.count()},
                                 {"error", failure ? failure->detail : std::string()}});
}

}  // namespace staithe::daemon
