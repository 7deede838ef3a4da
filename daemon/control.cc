#include "daemon/control.h"

#include <unistd.h>

#include <boost/json.hpp>

#include "cache/log.h"

namespace staithe::daemon {

namespace json = boost::json;

namespace {

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
  const auto it = config.proxy.identities.find(identity);
  return to_string(it == config.proxy.identities.end() ? proxy::IdentityKind::anonymous
                                                       : it->second.kind);
}

json::value optional_text(const std::string& text) {
  return text.empty() ? json::value(nullptr) : json::value(text);
}

json::object describe(const Config& config, const std::string& name, const std::string& identity,
                      const proxy::Upstream& upstream) {
  json::array tokens;
  for (const auto& token : upstream.authorizer().tokens()) {
    tokens.push_back(
        json::object{{"kind", token.kind},
                     {"expires_in_seconds", token.expires_in.count()},
                     {"renews_in_seconds", token.renews_in ? json::value(token.renews_in->count())
                                                           : json::value(nullptr)}});
  }
  return {{"name", name},
          {"upstream", json::array{upstream.url()}},
          {"identity", optional_text(identity)},
          {"identity_kind", identity_kind(config, identity)},
          {"state", to_string(upstream.health())},
          {"paused_seconds", upstream.paused().count()},
          {"last_error", optional_text(upstream.last_error())},
          {"tokens", std::move(tokens)}};
}

json::array describe(const Config& config, const proxy::Registries& registries) {
  json::array all;
  for (const auto& [name, registry] : registries.used()) {
    for (const auto& [identity, upstream] : registry->upstreams())
      all.push_back(describe(config, name, identity, *upstream));
  }
  for (const auto& entry : registries.configured()) {
    if (const auto used = registries.used().find(entry.name);
        used != registries.used().end() && !used->second->upstreams().empty())
      continue;
    json::array upstream;
    for (const std::string& url : entry.upstream) upstream.emplace_back(url);
    if (upstream.empty()) upstream.emplace_back("https://" + entry.name);
    all.push_back(json::object{{"name", entry.name},
                               {"upstream", std::move(upstream)},
                               {"identity", optional_text(entry.identity)},
                               {"identity_kind", identity_kind(config, entry.identity)},
                               {"state", "idle"},
                               {"paused_seconds", 0},
                               {"last_error", nullptr},
                               {"tokens", json::array()}});
  }
  return all;
}

json::array describe(const proxy::Fills& fills) {
  json::array all;
  for (const auto& fill : fills.progress()) {
    all.push_back(
        json::object{{"digest", fill.digest.to_string()},
                     {"registry", fill.registry},
                     {"repository", fill.repository},
                     {"bytes", fill.bytes},
                     {"total", fill.total ? json::value(*fill.total) : json::value(nullptr)},
                     {"readers", fill.readers}});
  }
  return all;
}

std::uint64_t fetched_bytes(const proxy::Registries& registries) {
  std::uint64_t bytes = 0;
  for (const auto& [name, registry] : registries.used()) {
    for (const auto& [identity, upstream] : registry->upstreams()) bytes += upstream->stats().bytes;
  }
  return bytes;
}

}  // namespace

json::object Control::status() const {
  const auto stats = sources_.store.stats();
  const auto& traffic = sources_.proxy.traffic();
  const auto uptime =
      std::chrono::duration_cast<std::chrono::seconds>(sources_.clock.now() - started_);
  json::array listen;
  for (const std::string& address : addresses_) listen.emplace_back(address);
  return {{"version", STAITHE_VERSION},
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
                                 {"mode", cache::to_string(stats.mode)},
                                 {"mode_reason", stats.mode_reason}}},
          {"traffic", json::object{{"requests", traffic.requests},
                                   {"hits", traffic.hits},
                                   {"misses", traffic.misses},
                                   {"collapsed", traffic.collapsed},
                                   {"stale", traffic.stale},
                                   {"errors", traffic.errors},
                                   {"denied", sources_.access.denied()},
                                   {"bytes_served", traffic.bytes_served},
                                   {"bytes_fetched", fetched_bytes(sources_.registries)}}},
          {"registries", describe(sources_.config, sources_.registries)},
          {"fills", describe(sources_.fills)}};
}

asio::awaitable<void> Control::handle(proxy::Exchange& exchange) {
  const auto& request = exchange.request();
  if (!co_await sources_.access.allows(Right::look, exchange.peer())) {
    co_await exchange.reply_error(403, "DENIED",
                                  "this user may not ask this daemon; ask as root, or as a user "
                                  "that access.users or access.groups of staithe.toml names");
    co_return;
  }
  if (request.method != "GET" && request.method != "HEAD") {
    exchange.add("Allow", "GET, HEAD");
    co_await exchange.reply_error(405, "UNSUPPORTED",
                                  "the control socket of this version answers questions only: GET "
                                  "/v1/status, /v1/registries, /v1/fills, /v1/config");
    co_return;
  }
  const std::string_view path = request.target.substr(0, request.target.find('?'));
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
                                  "/v1/status, /v1/registries, /v1/fills and /v1/config");
    co_return;
  }
  const bool unready = path == "/readyz" && state_ != State::ready;
  co_await exchange.reply(unready ? 503 : 200, "application/json", json::serialize(answer) + "\n");
}

void Control::handled(const proxy::Exchange& exchange, std::chrono::microseconds took,
                      const Error* failure) {
  log::debug("control request", {{"method", exchange.request().method},
                                 {"target", exchange.request().target},
                                 {"status", exchange.status()},
                                 {"microseconds", took.count()},
                                 {"error", failure ? failure->detail : std::string()}});
}

}  // namespace staithe::daemon
