#include "proxy/proxy.h"

#include "cache/log.h"
#include "proxy/errors.h"
#include "proxy/listings.h"

namespace staithe::proxy {

namespace {

asio::awaitable<Outcome> answer_local(Exchange& exchange, int status, std::string_view body) {
  exchange.add("Cache-Status", cache_status(Outcome::local));
  co_await exchange.reply(status, "application/json", body);
  co_return Outcome::local;
}

}  // namespace

Proxy::Proxy(asio::any_io_executor loop, Registries& registries, cache::Store& store, Fills& fills,
             TaskGroup& tasks, Clock& clock)
    : registries_(registries),
      store_(store),
      clock_(clock),
      absences_(clock),
      blobs_(loop, store, fills, tasks, clock, answers_),
      manifests_(loop, store, tasks, absences_, clock, answers_) {
  store_.on_gone([this](const cache::Digest* digest, bool only_tags) {
    digest ? answers_.erase(*digest, only_tags) : answers_.clear();
  });
  store_.on_eviction([this] { tell_uses(); });
  registries_.on_change([this] { answers_.clear(); });
}

Proxy::~Proxy() {
  store_.on_gone({});
  store_.on_eviction({});
  registries_.on_change({});
}

void Proxy::restrict(MayUse may_use) {
  may_use_ = std::move(may_use);
  admission_.set_everybody(!may_use_);
}

Traffic Proxy::traffic() const {
  Traffic traffic = traffic_;
  const Answers::Served served = answers_.served();
  traffic.requests += served.requests;
  traffic.hits += served.requests;
  traffic.bytes_served += served.body_bytes;
  traffic.bytes_saved += served.body_bytes;
  return traffic;
}

void Proxy::tell_uses() {
  answers_.take_used([this](const cache::Digest& digest) { store_.touch(digest); });
}

asio::awaitable<void> Proxy::handle(Exchange& exchange) {
  ++traffic_.requests;
  const Request& request = exchange.request();
  exchange.add("Docker-Distribution-Api-Version", "registry/2.0");
  const auto hosts = admission_.hosts();
  if (hosts && !request.host.empty() && !hosts->accepts(request.host)) {
    co_await exchange.reply_error(403, "DENIED",
                                  "this daemon serves programs on this machine that call it "
                                  "localhost or 127.0.0.1; add further names to access.hosts");
    co_return;
  }
  if (is_cross_site(request.field("Sec-Fetch-Site"), request.field("Origin"))) {
    co_await exchange.reply_error(403, "DENIED", "requests of web pages are not served");
    co_return;
  }
  // Before anything is said about registries; whether the daemon lives is no secret.
  const bool is_health = request.target == "/healthz" || request.target == "/readyz";
  if (may_use_ && !is_health && !co_await may_use(exchange)) co_return;
  if (request.method != "GET" && request.method != "HEAD") {
    exchange.add("Allow", "GET, HEAD");
    co_await exchange.reply_error(405, "UNSUPPORTED",
                                  "this is a pull-through cache; push to the registry itself");
    co_return;
  }
  if (request.field("Range").empty()) {
    if (AnswerPtr answer = answers_.find(request.target, clock_.now())) {
      co_await exchange.reply_again(std::move(answer), clock_.now());
      ++traffic_.hits;
      co_return;
    }
  }
  auto route = parse_route(request.target);
  const bool blob = route && std::holds_alternative<BlobRoute>(*route);
  std::optional<Error> error;
  if (route) {
    try {
      const Outcome outcome = co_await dispatch(exchange, std::move(*route));
      switch (outcome) {
        case Outcome::local:
          break;
        case Outcome::hit:
          ++traffic_.hits;
          break;
        case Outcome::miss:
        case Outcome::pass:
          ++traffic_.misses;
          break;
        case Outcome::collapsed:
          ++traffic_.collapsed;
          break;
        case Outcome::stale:
          ++traffic_.stale;
          break;
      }
      co_return;
    } catch (const Failure& failure) {
      error = failure.error();
    }
  } else {
    error = std::move(route.error());
  }
  if (exchange.answered()) throw Failure(*error);
  if (exchange.cache_status().empty())
    exchange.add("Cache-Status",
                 std::string("staithe; fwd=miss; detail=") + to_string(error->code));
  if (error->code == Errc::bad_request) exchange.close_after_answer();
  const ErrorReply reply = blob ? reply_for_blob(error->code) : reply_for(error->code);
  log::debug("request refused", {{"target", request.target}, {"error", *error}});
  co_await exchange.reply_error(reply.status, reply.code, error->detail);
}

// Answers if not. Never by a challenge: no password would help (registry-clients.md, section 1).
asio::awaitable<bool> Proxy::may_use(Exchange& exchange) {
  const MayUse rule = may_use_;  // a reload may replace it meanwhile
  const Peer peer = exchange.peer();
  if (co_await rule(peer)) co_return true;
  ++traffic_.denied;
  const std::string message =
      peer ? "the user with uid " + std::to_string(*peer) +
                 " may not use this machine's identity; root can add the user to access.users, or "
                 "one of its groups to access.groups, in staithe.toml"
           : std::string(
                 "the kernel does not tell which user made this connection, so it may not use this "
                 "machine's identity; connect from this machine and its network namespace, or to a "
                 "unix: socket of listen.registry");
  exchange.add("Cache-Status", "staithe; fwd=miss; detail=denied");
  co_await exchange.reply_error(403, "DENIED", message);
  co_return false;
}

asio::awaitable<Outcome> Proxy::dispatch(Exchange& exchange, Route route) {
  if (std::holds_alternative<PingRoute>(route))
    co_return co_await answer_local(exchange, 200, "{}");
  if (std::holds_alternative<LiveRoute>(route))
    co_return co_await answer_local(exchange, 200, R"({"status":"live"})");
  if (std::holds_alternative<ReadyRoute>(route))
    co_return co_await answer_local(exchange, ready_ ? 200 : 503,
                                    ready_ ? R"({"status":"ready"})" : R"({"status":"not ready"})");

  const ImageName& name = std::visit(
      [](const auto& r) -> const ImageName& {
        if constexpr (requires { r.name; }) {
          return r.name;
        } else {
          std::unreachable();
        }
      },
      route);
  if (name.by_ns) exchange.add("OCI-Namespace", name.registry);
  const RegistryPtr registry = registries_.find(name.registry);
  std::string repository = registry->canonical(name.repository);
  if (auto* manifest = std::get_if<ManifestRoute>(&route))
    co_return co_await manifests_.serve(exchange, registry, std::move(repository),
                                        std::move(manifest->reference));
  if (auto* blob = std::get_if<BlobRoute>(&route))
    co_return co_await serve_blob(exchange, registry, std::move(repository), blob->digest);
  if (auto* tags = std::get_if<TagsRoute>(&route))
    co_return co_await serve_listing(exchange, registry, std::move(repository),
                                     "tags/list" + tags->query, Errc::name_unknown);
  auto& referrers = std::get<ReferrersRoute>(route);
  co_return co_await serve_listing(exchange, registry, std::move(repository),
                                   "referrers/" + referrers.digest.to_string() + referrers.query,
                                   Errc::manifest_unknown);
}

asio::awaitable<Outcome> Proxy::serve_blob(Exchange& exchange, RegistryPtr registry,
                                           std::string repository, cache::Digest digest) {
  // No reference contains the sign, so no manifest's key is one of these.
  const std::string key = scope_of(*registry, repository) + "@@" + digest.to_string();
  if (const auto absent = absences_.find(key)) {
    exchange.add("Cache-Status", negative_cache_status);
    throw Failure(*absent);
  }
  try {
    co_return co_await blobs_.serve(exchange, registry, std::move(repository), digest);
  } catch (const Failure& failure) {
    if (!exchange.answered()) absences_.note(key, failure.error());
    throw;
  }
}

void Proxy::handled(const Exchange& exchange, std::chrono::microseconds took,
                    const Error* failure) {
  traffic_.bytes_served += exchange.body_bytes_sent();
  if (exchange.status() < 400 && spares_upstream(exchange.cache_status()))
    traffic_.bytes_saved += exchange.body_bytes_sent();
  if (failure || exchange.status() >= 400) ++traffic_.errors;
  if (!log::enabled(log::Level::debug)) return;
  log::debug("request", {{"method", exchange.request().method},
                         {"target", exchange.request().target},
                         {"status", exchange.status()},
                         {"bytes", exchange.body_bytes_sent()},
                         {"microseconds", took.count()},
                         {"cache", exchange.cache_status()},
                         {"user_agent", exchange.request().field("User-Agent")},
                         {"error", failure ? failure->detail : std::string()}});
}

}  // namespace staithe::proxy
