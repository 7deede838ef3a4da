#include "proxy/proxy.h"

#include "cache/log.h"
#include "proxy/errors.h"
#include "proxy/listings.h"

namespace staithe::proxy {

namespace {

// Requests whose way is told, per second: who calls decides which, and the log is not his.
constexpr std::size_t most_traced = 20;

asio::awaitable<Outcome> answer_local(Exchange& exchange, int status, std::string_view body) {
  exchange.add("Cache-Status", cache_status(Outcome::local));
  co_await exchange.reply(status, "application/json", body);
  co_return Outcome::local;
}

RequestKind kind_of(const Route& route) {
  if (std::holds_alternative<ManifestRoute>(route)) return RequestKind::manifest;
  if (std::holds_alternative<BlobRoute>(route)) return RequestKind::blob;
  if (std::holds_alternative<TagsRoute>(route)) return RequestKind::tags;
  if (std::holds_alternative<ReferrersRoute>(route)) return RequestKind::referrers;
  return RequestKind::other;
}

RequestResult result_of(Outcome outcome) {
  switch (outcome) {
    case Outcome::local:
      return RequestResult::local;
    case Outcome::hit:
      return RequestResult::hit;
    case Outcome::miss:
      return RequestResult::miss;
    case Outcome::collapsed:
      return RequestResult::collapsed;
    case Outcome::stale:
      return RequestResult::stale;
    case Outcome::pass:
      return RequestResult::pass;
  }
  return RequestResult::local;
}

}  // namespace

Proxy::Proxy(asio::any_io_executor loop, Registries& registries, cache::Store& store, Fills& fills,
             TaskGroup& tasks, Clock& clock)
    : registries_(registries),
      store_(store),
      clock_(clock),
      traced_({.lines = most_traced, .interval = std::chrono::seconds(1)}),
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
  const RequestMeter::Front front = meter_.at_front();
  traffic.requests += front.requests;
  traffic.hits += front.requests;
  traffic.bytes_served += front.body_bytes;
  traffic.bytes_saved += front.body_bytes;
  return traffic;
}

void Proxy::tell_uses() {
  answers_.take_used([this](const cache::Digest& digest) { store_.touch(digest); });
}

std::optional<Trace> Proxy::trace_of(const Request& request) {
  const auto parent = parse_traceparent(request.field("traceparent"));
  if (!parent || request.fields->count("traceparent") != 1) return std::nullopt;
  Trace trace{.id = std::string(parent->trace_id), .parent = std::string(parent->parent_id)};
  if (!parent->sampled) return trace;
  const auto left_out = traced_.admit({}, clock_.now());
  if (left_out && *left_out > 0)
    log::info("traced requests were not told of, as there were too many",
              {{"requests", *left_out}});
  trace.told = left_out.has_value();
  return trace;
}

asio::awaitable<void> Proxy::handle(Exchange& exchange) {
  ++traffic_.requests;
  const Request& request = exchange.request();
  exchange.trace() = trace_of(request);
  exchange.add("Docker-Distribution-Api-Version", "registry/2.0");
  const auto hosts = admission_.hosts();
  if (hosts && !request.host.empty() && !hosts->accepts(request.host)) {
    ++traffic_.denied_host;
    exchange.account().result = RequestResult::denied;
    co_await exchange.reply_error(403, "DENIED",
                                  "this daemon serves programs on this machine that call it "
                                  "localhost or 127.0.0.1; add further names to access.hosts");
    co_return;
  }
  if (is_cross_site(request.field("Sec-Fetch-Site"), request.field("Origin"))) {
    ++traffic_.denied_web_page;
    exchange.account().result = RequestResult::denied;
    co_await exchange.reply_error(403, "DENIED", "requests of web pages are not served");
    co_return;
  }
  // Before anything is said about registries; whether the daemon lives is no secret.
  const bool is_health = request.target == "/healthz" || request.target == "/readyz";
  if (may_use_ && !is_health && !co_await may_use(exchange)) co_return;
  if (request.method != "GET" && request.method != "HEAD") {
    exchange.add("Allow", "GET, HEAD");
    exchange.account().result = RequestResult::refused;
    co_await exchange.reply_error(405, "UNSUPPORTED",
                                  "this is a pull-through cache; push to the registry itself");
    co_return;
  }
  if (request.field("Range").empty()) {
    if (AnswerPtr answer = answers_.find(request.target, clock_.now())) {
      RequestAccount& account = exchange.account();
      account.registry = answer->registry;
      account.kind = answer->kind;
      co_await exchange.reply_again(std::move(answer), clock_.now());
      account.result = RequestResult::hit;
      ++traffic_.hits;
      co_return;
    }
  }
  auto route = parse_route(request.target);
  const bool blob = route && std::holds_alternative<BlobRoute>(*route);
  std::optional<Error> error;
  if (route) {
    try {
      exchange.account().kind = kind_of(*route);
      const Outcome outcome = co_await dispatch(exchange, std::move(*route));
      exchange.account().result = result_of(outcome);
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
  exchange.account().result = result_of(error->code);
  if (exchange.answered()) throw Failure(*error);
  if (exchange.cache_status().empty())
    exchange.add("Cache-Status",
                 std::string("staithe; fwd=miss; detail=") + to_string(error->code));
  if (error->code == Errc::bad_request) exchange.close_after_answer();
  const ErrorReply reply = blob ? reply_for_blob(error->code) : reply_for(error->code);
  const std::string trace_id = exchange.trace() ? exchange.trace()->id : std::string();
  log::write(exchange.told_trace().empty() ? log::Level::debug : log::Level::info,
             "request refused",
             {{"target", request.target}, {"error", *error}, {"trace_id", log::if_any(trace_id)}});
  co_await exchange.reply_error(reply.status, reply.code, error->detail);
}

// Answers if not. Never by a challenge: no password would help (registry-clients.md, section 1).
asio::awaitable<bool> Proxy::may_use(Exchange& exchange) {
  const MayUse rule = may_use_;  // a reload may replace it meanwhile
  const Peer peer = exchange.peer();
  if (co_await rule(peer)) co_return true;
  ++traffic_.denied;
  exchange.account().result = RequestResult::denied;
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
  exchange.account().registry = &meter_.registry(registry->settings().name);
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
  const RequestAccount& account = exchange.account();
  const bool failed = failure || exchange.status() >= 500;
  meter_.add(account.registry, account.kind,
             account.result.value_or(failed ? RequestResult::error : RequestResult::gone), took);
  meter_.add_bytes(source_of(exchange.status(), exchange.cache_status()),
                   exchange.body_bytes_sent());
  const bool told = exchange.trace() && exchange.trace()->told;
  const log::Level level = told ? log::Level::info : log::Level::debug;
  if (!log::enabled(level)) return;
  const Trace trace = exchange.trace().value_or(Trace());
  log::write(level, "request",
             {{"method", exchange.request().method},
              {"target", exchange.request().target},
              {"status", exchange.status()},
              {"bytes", exchange.body_bytes_sent()},
              {"microseconds", took.count()},
              {"cache", exchange.cache_status()},
              {"user_agent", exchange.request().field("User-Agent")},
              {"error", failure ? failure->detail : std::string()},
              {"trace_id", log::if_any(trace.id)},
              {"parent_id", log::if_any(trace.parent)}});
}

}  // namespace staithe::proxy
