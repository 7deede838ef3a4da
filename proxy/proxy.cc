#include "proxy/proxy.h"

#include <algorithm>

#include "cache/log.h"
#include "proxy/errors.h"
#include "proxy/listings.h"

namespace staithe::proxy {

namespace {

// Requests whose way is told, per second: who calls decides which, and the log is not his.
constexpr std::size_t most_traced = 20;

// For clients that look at it before they send a credential (skopeo, podman), and for those that
// wait to be asked (containerd).
constexpr std::string_view challenge = "Basic realm=\"staithe\", charset=\"UTF-8\"";

// The name that a request for content has; null for what has none.
const ImageName* name_of(const Route& route) {
  return std::visit(
      [](const auto& r) -> const ImageName* {
        if constexpr (requires { r.name; }) {
          return &r.name;
        } else {
          return nullptr;
        }
      },
      route);
}

// By which a caller's right to the repository is shown: what it asks for, or what it is about.
std::string proof_of(const Route& route) {
  if (const auto* manifest = std::get_if<ManifestRoute>(&route))
    return "manifests/" + manifest->reference.to_string();
  if (const auto* blob = std::get_if<BlobRoute>(&route)) return "blobs/" + blob->digest.to_string();
  if (const auto* referrers = std::get_if<ReferrersRoute>(&route))
    return "manifests/" + referrers->digest.to_string();
  return "tags/list?n=1";
}

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

// Which lists the user is not on: those of one registry, or, if that is empty, of all.
std::string denial_of(unsigned uid, const std::string& registry) {
  const std::string user = "the user with uid " + std::to_string(uid);
  if (registry.empty())
    return user +
           " may not use this machine's identity; root can add the user to access.users, or one of "
           "its groups to access.groups, in staithe.toml";
  return user + " may not pull from " + registry +
         " here; root can add the user to users, or one of its groups to groups, of its own "
         "[registry.access] in staithe.toml";
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
    case Outcome::denied:
      return RequestResult::denied;
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
  if (hosts && !hosts->accepts(request.host)) {
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
        case Outcome::denied:
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

// The entry of the registry whose content is asked for; null: of none, or of one that is not
// configured.
const RegistrySettings* Proxy::entry_of(std::string_view target) const {
  const auto route = parse_route(target);
  if (!route) return nullptr;
  return std::visit(
      [&](const auto& r) -> const RegistrySettings* {
        if constexpr (requires { r.name; }) {
          return registries_.entry(r.name.registry);
        } else {
          return nullptr;
        }
      },
      *route);
}

// Answers if not. Never by a challenge: no password would help (registry-clients.md, section 1).
asio::awaitable<bool> Proxy::may_use(Exchange& exchange) {
  // A reload may replace all of it meanwhile.
  const MayUse rule = may_use_;
  const std::uint64_t version = admission_.version();
  const RegistrySettings* const entry = entry_of(exchange.request().target);
  std::optional<std::string> registry;
  if (entry) registry = entry->name;
  const bool by_own_list = entry && entry->access;
  const std::optional<Instant> until = co_await rule(exchange.caller(), registry);
  RequestMeter::Registry* const meter = registry ? &meter_.registry(*registry) : nullptr;
  if (until) {
    if (meter) exchange.pass().note(meter, version, *until);
    co_return true;
  }
  const Peer peer = exchange.peer();
  ++traffic_.denied;
  if (!peer) ++traffic_.denied_unknown;
  exchange.account().result = RequestResult::denied;
  exchange.account().registry = meter;
  const std::string message =
      peer ? denial_of(*peer, by_own_list ? registry.value() : std::string())
           : std::string(
                 "the kernel does not tell which user made this connection, so it may not use this "
                 "machine's identity; connect from this machine and its network namespace, or to a "
                 "unix: socket of listen.registry");
  exchange.add("Cache-Status", "staithe; fwd=miss; detail=denied");
  co_await exchange.reply_error(403, "DENIED", message);
  co_return false;
}

bool Proxy::wants_credential(std::string_view target) const {
  if (std::ranges::none_of(registries_.configured(), &RegistrySettings::verify_callers))
    return false;
  const Result<Route> route = parse_route(target);
  const ImageName* name = route ? name_of(*route) : nullptr;
  if (!name || name->registry.empty()) return false;
  const RegistrySettings* settings = match_registry(registries_.configured(), name->registry);
  return settings && settings->verify_callers;
}

asio::awaitable<bool> Proxy::has_right(Exchange& exchange, RegistryPtr registry,
                                       std::string repository, std::string what, bool named) {
  CallerProofs::Verdict verdict;
  bool anonymous = true;
  {
    // It is gone when the proof is, however long the answer then takes.
    const auth::Secret field = exchange.take_credential();
    Result<auth::CallerCredential> credential = auth::parse_caller_credential(field.reveal());
    if (!credential) {
      anonymous = false;
      verdict.why = {Errc::unauthorized, credential.error().detail};
    } else if (!judge_) {
      verdict.why = {Errc::denied, "there is nobody here to judge callers"};
    } else {
      anonymous = credential->kind == auth::CallerCredential::Kind::anonymous;
      const Judge judge = judge_;
      verdict = co_await judge({.registry = registry,
                                .repository = repository,
                                .what = std::move(what),
                                .credential = std::move(*credential),
                                .peer = exchange.peer()});
    }
  }
  if (verdict.proven) co_return true;
  const std::string image = registry->name() + "/" + repository;
  const bool asks = named && (anonymous || verdict.why.code == Errc::unauthorized);
  // What is not there for somebody who is known is not there; to others nothing is said.
  const bool refused = verdict.why.code == Errc::unauthorized || verdict.why.code == Errc::denied;
  if (!anonymous && !refused) throw Failure(verdict.why);
  std::string message;
  if (!anonymous) {
    message = verdict.why.detail;
  } else if (named) {
    message = image +
              " is served only to callers who may read it themselves (verify_callers): log in, "
              "under the address of this daemon, with your own account of " +
              registry->name();
  } else {
    message = image +
              " is served only to callers who may read it themselves (verify_callers), and a "
              "request that names no registry is never asked for a password: write " +
              registry->name() + " into the image's name, or pull it from there";
  }
  ++traffic_.denied_caller;
  exchange.add("Cache-Status", cache_status(Outcome::denied));
  if (asks) exchange.add("WWW-Authenticate", challenge);
  co_await exchange.reply_error(asks ? 401 : 403, asks ? "UNAUTHORIZED" : "DENIED", message);
  co_return false;
}

asio::awaitable<Outcome> Proxy::dispatch(Exchange& exchange, Route route) {
  if (std::holds_alternative<PingRoute>(route)) {
    // Still a 200: dockerd, which would answer a 401 with somebody else's password, takes it for
    // all that there is to know.
    if (std::ranges::any_of(registries_.configured(), &RegistrySettings::verify_callers))
      exchange.add("WWW-Authenticate", challenge);
    co_return co_await answer_local(exchange, 200, "{}");
  }
  if (std::holds_alternative<LiveRoute>(route))
    co_return co_await answer_local(exchange, 200, R"({"status":"live"})");
  if (std::holds_alternative<ReadyRoute>(route))
    co_return co_await answer_local(exchange, ready_ ? 200 : 503,
                                    ready_ ? R"({"status":"ready"})" : R"({"status":"not ready"})");

  const ImageName& name = *name_of(route);
  if (name.by_ns) exchange.add("OCI-Namespace", name.registry);
  const RegistryPtr registry = registries_.find(name.registry);
  exchange.account().registry = &meter_.registry(registry->settings().name);
  std::string repository = registry->canonical(name.repository);
  if (registry->settings().verify_callers &&
      !co_await has_right(exchange, registry, repository, proof_of(route), !name.registry.empty()))
    co_return Outcome::denied;
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
