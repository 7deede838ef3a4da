#include "proxy/upstream.h"

#include <algorithm>

#include "cache/escape.h"
#include "cache/log.h"
#include "proxy/auth/base64.h"
#include "proxy/auth/source.h"
#include "proxy/auth/trust.h"
#include "proxy/errors.h"
#include "proxy/words.h"

namespace staithe::proxy {

namespace {

// Manifests, lists and HEADs at once, beside the transfers that max_connections bounds.
constexpr std::size_t max_questions = 16;
constexpr std::size_t max_error_body_bytes = 64 * 1024;
constexpr std::size_t max_words_bytes = 300;  // of a server, in one of our sentences

bool is_redirect(int status) {
  return status == 301 || status == 302 || status == 303 || status == 307 || status == 308;
}

bool is_content(int status) { return status == 200 || status == 206; }

// What may be asked twice if the answer is late: small, and the same however often it is asked.
bool may_hedge(const Upstream::Ask& ask) {
  if (ask.has_next) return false;  // The next one is the second request.
  return ask.method == "HEAD" || ask.what.starts_with("manifests/");
}

// Only ACR says what it grants (rate_limit.h); the others have their pauses.
std::optional<RateLimit> rate_limit_of(const Upstream::Settings& settings) {
  if (!auth::parse_acr_host(settings.base.origin().host, settings.redirects.acr_suffixes))
    return std::nullopt;
  return RateLimit(RateLimit::acr);
}

// Everything in a request that a server could echo and nobody may see: the Authorization value, its
// parts, and the query of a signed URL.
std::vector<auth::Secret> secrets_of(const auth::Authorization& authorization, const Url& url) {
  std::vector<auth::Secret> secrets;
  if (authorization) {
    const std::string_view value = authorization->reveal();
    const std::string_view token = value.substr(std::min(value.find(' ') + 1, value.size()));
    secrets.emplace_back(token);
    if (value.starts_with("Basic ")) {
      if (Result<std::string> pair = auth::decode_base64(token)) {
        secrets.emplace_back(std::string_view(*pair).substr(pair->find(':') + 1));
        secrets.push_back(auth::Secret::take(std::move(*pair)));
      }
    }
  }
  const std::string& target = url.target();
  if (const std::size_t query = target.find('?'); query != std::string::npos) {
    secrets.emplace_back(std::string_view(target).substr(query + 1));
    if (Result<std::string> decoded = percent_decode(target.substr(query + 1)))
      secrets.push_back(auth::Secret::take(std::move(*decoded)));
  }
  return secrets;
}

// Counts the bytes of a body, and holds the connection's slot until it is done with.
class CountedResponse final : public HttpResponse {
 public:
  // `sent` and `url` are what the request carried and where it went.
  CountedResponse(std::unique_ptr<HttpResponse> response, Slots::Slot slot,
                  std::shared_ptr<UpstreamStats> stats, std::shared_ptr<UpstreamMeter> meter,
                  auth::Authorization sent, Url url)
      : slot_(std::move(slot)),
        response_(std::move(response)),
        stats_(std::move(stats)),
        meter_(std::move(meter)),
        sent_(std::move(sent)),
        url_(std::move(url)) {}

  int status() const override { return response_->status(); }
  const Headers& headers() const override { return response_->headers(); }
  asio::awaitable<bool> read(std::vector<char>& piece) override {
    const bool more = co_await response_->read(piece);
    if (more) {
      stats_->bytes += piece.size();
      meter_->note_bytes(piece.size());
    }
    co_return more;
  }
  std::vector<auth::Secret> secrets() const override { return secrets_of(sent_, url_); }

 private:
  Slots::Slot slot_;
  std::unique_ptr<HttpResponse> response_;
  std::shared_ptr<UpstreamStats> stats_;
  std::shared_ptr<UpstreamMeter> meter_;
  auth::Authorization sent_;
  Url url_;
};

}  // namespace

const char* to_string(Health health) {
  switch (health) {
    case Health::idle:
      return "idle";
    case Health::ok:
      return "ok";
    case Health::throttled:
      return "throttled";
    case Health::unreachable:
      return "unreachable";
    case Health::unauthorized:
      return "unauthorized";
  }
  return "idle";
}

Random& system_random() {
  static SystemRandom random;  // It has no state.
  return random;
}

Upstream::Upstream(asio::any_io_executor loop, Settings settings,
                   std::unique_ptr<auth::Authorizer> authorizer, HttpClient& http, Clock& clock,
                   Random& random)
    : settings_(std::move(settings)),
      authorizer_(std::move(authorizer)),
      clock_(clock),
      random_(random),
      transfers_(loop, settings_.max_connections),
      questions_(loop, max_questions),
      home_(loop, http, clock, random, budget_, stats_, rate_limit_of(settings_), settings_.meter),
      elsewhere_(loop, http, clock, random, budget_, stats_, std::nullopt, settings_.meter) {}

asio::awaitable<std::unique_ptr<HttpResponse>> Upstream::send(Ask ask) {
  ask.repository = settings_.prefix + ask.repository;
  Patience patience(ask.patient);
  const Instant asked = clock_.now();
  std::optional<Error> failed;
  try {
    // What there is to wait for comes before a connection is taken that others may need.
    co_await client_of(ask).wait(patience);
    if (!ask.place || !ask.place->url) co_await token(ask, patience);
    auto response = co_await send_once(ask, patience);
    note(*response);
    tell(ask, asked, response.get(), nullptr);
    co_return response;
  } catch (const Failure& failure) {
    failed = failure.error();
  }
  if (failed->code == Errc::unreachable || failed->code == Errc::upstream_failed ||
      failed->code == Errc::firewall || failed->code == Errc::upstream_nonsense)
    set_health(Health::unreachable);
  if (failed->code == Errc::unauthorized || failed->code == Errc::denied ||
      failed->code == Errc::identity_missing)
    set_health(Health::unauthorized, &*failed);
  last_error_ = trouble().value_or(*failed);
  tell(ask, asked, nullptr, &*failed);
  throw Failure(*failed);
}

asio::awaitable<auth::Authorization> Upstream::token(const Ask& ask, Patience& patience) {
  for (;;) {
    std::chrono::nanoseconds left;
    try {
      co_return co_await authorizer_->for_pull(ask.repository);
    } catch (const auth::Postponed& postponed) {
      left = postponed.retry_after();
      const Instant now = clock_.now();
      const Instant before = std::max(token_paused_until_, now);
      settings_.meter->note_pause(
          std::max<std::chrono::nanoseconds>(now + left - before, std::chrono::nanoseconds(0)));
      token_paused_until_ = now + left;
      if (!patience.suffices(left)) throw;
    }
    const auto spread =
        std::clamp<std::chrono::nanoseconds>(left / 4, Pause::least_spread, Pause::most_spread);
    const auto wait = left + random_.between(std::chrono::nanoseconds(0), spread);
    co_await clock_.sleep_for(wait);
    patience.spend(wait);
  }
}

asio::awaitable<std::unique_ptr<HttpResponse>> Upstream::send_once(const Ask& ask,
                                                                   Patience& patience) {
  const bool transfer = ask.method == "GET" && ask.what.starts_with("blobs/");
  auto slot = co_await (transfer ? transfers_ : questions_).acquire();
  Answer answer;
  auth::Authorization sent;
  if (ask.place && ask.place->url) {
    // No token is needed there, nor asked for.
    if (auto found = co_await revisit(ask, patience)) answer = std::move(*found);
  }
  for (bool repeated = false; !answer.response; repeated = true) {
    const auth::Authorization authorization = co_await token(ask, patience);
    answer = co_await walk(ask, authorization, patience);
    sent = answer.at_home ? authorization : nullptr;
    // Only the registry can refuse its token; another host's 401 is no word about it.
    const int status = answer.response->status();
    if (!answer.at_home || repeated) break;
    const bool worth_repeating =
        (status == 401 &&
         authorizer_->refused(ask.repository, authorization, answer.response->headers())) ||
        (status == 403 && authorization && authorizer_->forbidden(authorization));
    if (!worth_repeating) break;
    answer.response.reset();
  }
  co_return std::make_unique<CountedResponse>(std::move(answer.response), std::move(slot), stats_,
                                              settings_.meter, std::move(sent),
                                              std::move(answer.url));
}

// From the registry along its redirects. The credential goes to the registry's origin only, and is
// not taken up again once the chain has left it.
asio::awaitable<Upstream::Answer> Upstream::walk(const Ask& ask,
                                                 const auth::Authorization& authorization,
                                                 Patience& patience) {
  const Url start = settings_.base.with_target("/v2/" + ask.repository + "/" + ask.what);
  Url url = start;
  bool at_home = true;
  bool restarted = false;
  for (int hops = 0;; ++hops) {
    HttpRequest asked = request(ask, url);
    if (at_home && authorization)
      asked.headers.add("Authorization", std::string(authorization->reveal()));
    PoliteClient& client = at_home ? home_ : elsewhere_;
    auto response = co_await client.send(std::move(asked), {.patience = &patience,
                                                            .may_hedge = at_home && may_hedge(ask),
                                                            .may_repeat = !ask.has_next,
                                                            .kind = upstream_kind_of(ask.what)});
    if (at_home) {
      if (auto quota = pull_quota(response->headers())) quota_ = std::move(quota);
    }
    if (!at_home && response->status() == 403 && !std::exchange(restarted, true)) {
      url = start;  // A signed URL that has expired; the registry gives a new one.
      at_home = true;
      hops = 0;
      continue;
    }
    if (!is_redirect(response->status())) {
      if (ask.place && !at_home && is_content(response->status())) ask.place->url = url;
      co_return Answer{std::move(response), at_home, std::move(url)};
    }
    const std::string* location = response->headers().find("Location");
    if (!location || hops == max_redirects)
      throw Failure(Errc::upstream_nonsense,
                    this->url() + (location ? " redirects too often" : " redirects to nowhere"));
    Url next = value_or_throw(url.resolve(*location));
    if (const auto allowed = may_follow(settings_.redirects, url, next); !allowed)
      throw Failure(allowed.error());
    at_home = at_home && next.origin() == settings_.base.origin();
    url = std::move(next);
  }
}

asio::awaitable<std::optional<Upstream::Answer>> Upstream::revisit(const Ask& ask,
                                                                   Patience& patience) {
  Place& place = *ask.place;
  Url url = *place.url;
  const auto forget = [&] {  // Unless another range has found a new one meanwhile.
    if (place.url && place.url->wire() == url.wire()) place.url.reset();
  };
  std::unique_ptr<HttpResponse> response;
  try {
    response = co_await elsewhere_.send(
        request(ask, url),
        {.patience = &patience, .may_repeat = !ask.has_next, .kind = upstream_kind_of(ask.what)});
  } catch (...) {
    forget();
    throw;
  }
  if (!is_content(response->status())) {
    forget();
    co_return std::nullopt;
  }
  co_return Answer{std::move(response), false, std::move(url)};
}

HttpRequest Upstream::request(const Ask& ask, const Url& url) const {
  HttpRequest request{.method = ask.method,
                      .url = url,
                      .headers = {},
                      .body = {},
                      .ca_file = settings_.ca_file,
                      .host_named_by = named_by(settings_.redirects, url.origin().host),
                      .limits = settings_.limits};
  if (ask.has_next) {
    request.limits.connect = std::min(request.limits.connect, mirror_connect);
    request.limits.first_byte = std::min(request.limits.first_byte, mirror_first_byte);
  }
  if (!ask.accept.empty()) request.headers.add("Accept", ask.accept);
  if (!ask.range.empty()) request.headers.add("Range", ask.range);
  return request;
}

void Upstream::note(const HttpResponse& response) {
  const int status = response.status();
  if (status == 401) {
    last_error_ = {Errc::unauthorized, url() + " answered 401 to a fresh credential"};
    set_health(Health::unauthorized, &*last_error_);
  } else if (status >= 500) {
    set_health(Health::unreachable);
    last_error_ = {Errc::upstream_failed, url() + " answered " + std::to_string(status)};
  } else {
    set_health(Health::ok);
    last_error_.reset();
  }
}

void Upstream::set_health(Health health, const Error* why) {
  const Health before = std::exchange(health_, health);
  const bool refused = health == Health::unauthorized;
  const bool back = before == Health::unauthorized && health == Health::ok;
  if (health == before || !(refused || back)) return;
  const auto left_out = credential_lines_.admit({}, clock_.now());
  if (!left_out) return;
  if (refused) {
    log::warn("upstream refuses our credential",
              {{"upstream", url()}, {"error", *why}, {"left_out", log::if_any(*left_out)}});
  } else {
    log::info("upstream takes our credential again",
              {{"upstream", url()}, {"left_out", log::if_any(*left_out)}});
  }
}

void Upstream::tell(const Ask& ask, Instant asked, const HttpResponse* response,
                    const Error* failure) const {
  if (ask.trace.empty()) return;
  const auto took = std::chrono::duration_cast<std::chrono::microseconds>(clock_.now() - asked);
  log::info("upstream asked", {{"upstream", url()},
                               {"method", ask.method},
                               {"what", ask.repository + "/" + ask.what},
                               {"range", log::if_any(ask.range)},
                               {"status", response ? response->status() : 0},
                               {"microseconds", took.count()},
                               {"error", log::if_any(failure ? failure->detail : "")},
                               {"trace_id", ask.trace}});
}

Instant Upstream::next_try(const Place* place) const {
  if (place && place->url) return elsewhere_.next_try();
  return std::max(home_.next_try(), elsewhere_.next_try());
}

std::optional<Error> Upstream::trouble() const {
  return home_.trouble().or_else([&] { return elsewhere_.trouble(); });
}

Health Upstream::health() const {
  if (paused() > std::chrono::seconds(0)) return Health::throttled;
  if (home_.breaker().is_open() || elsewhere_.breaker().is_open()) return Health::unreachable;
  return health_;
}

std::chrono::seconds Upstream::paused() const {
  return std::chrono::ceil<std::chrono::seconds>(std::max(
      {home_.pause_left(), elsewhere_.pause_left(),
       std::chrono::nanoseconds(token_paused_until_ - clock_.now()), std::chrono::nanoseconds(0)}));
}

std::optional<std::chrono::seconds> Upstream::retry_in() const {
  std::optional<std::chrono::seconds> longest;
  for (const PoliteClient* client : {&home_, &elsewhere_}) {
    if (!client->breaker().is_open()) continue;
    const auto left = std::max<std::chrono::nanoseconds>(
        client->breaker().again_at() - clock_.now(), std::chrono::nanoseconds(0));
    longest = std::max(longest.value_or(std::chrono::seconds(0)),
                       std::chrono::ceil<std::chrono::seconds>(left));
  }
  return longest;
}

asio::awaitable<Error> error_of(HttpResponse& response, std::string asked, Errc absent) {
  const int status = response.status();
  std::string body;
  try {
    body = co_await read_all(response, max_error_body_bytes);
  } catch (const Failure&) {
    // The status says enough.
  }
  const Errc code = status == 404                              ? absent
                    : status == 401                            ? Errc::unauthorized
                    : status == 403 && tells_of_firewall(body) ? Errc::firewall
                    : status == 403                            ? Errc::denied
                    : status == 429                            ? Errc::throttled
                    : status >= 500 && status <= 599           ? Errc::upstream_failed
                                                               : Errc::upstream_nonsense;
  std::string detail = "upstream answered " + std::to_string(status) + " for " + asked;
  const std::vector<auth::Secret> secrets = response.secrets();
  std::vector<std::string_view> hidden;
  for (const auth::Secret& secret : secrets) hidden.push_back(secret.reveal());
  const std::string words = printable(without_secrets(words_of(body), hidden), max_words_bytes);
  if (!words.empty()) detail += " (" + words + ")";
  if (code == Errc::firewall)
    detail +=
        ": the registry's network rules keep this machine out; let it through (public access, "
        "firewall, private endpoint)";
  if (code == Errc::unauthorized || code == Errc::denied)
    detail +=
        ": this machine's identity may not read it, or a firewall is in the way; give the "
        "identity AcrPull (or the registry's equal) on this registry";
  co_return Error{code, std::move(detail)};
}

}  // namespace staithe::proxy
