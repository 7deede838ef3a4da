// The way to one host of a registry, with manners: it waits out the pauses that the host asks for,
// leaves it alone while it does not answer, comes back gradually, stays below its limits, repeats
// what may be repeated within a budget, and asks twice where the first answer is late.
//
// The policies are classes of their own (Pause, Ramp, Breaker, RateLimit, RetryBudget, HeadTimes)
// that know neither network nor clock; this one only asks them in the right order. Lives on the
// loop.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "cache/clock.h"
#include "cache/event.h"
#include "cache/random.h"
#include "proxy/breaker.h"
#include "proxy/head_times.h"
#include "proxy/http.h"
#include "proxy/pause.h"
#include "proxy/ramp.h"
#include "proxy/rate_limit.h"
#include "proxy/retry_budget.h"
#include "proxy/retry_policy.h"
#include "proxy/upstream_meter.h"

namespace staithe::proxy {

struct UpstreamStats {
  std::uint64_t requests = 0;   // on the wire, repeats and hedges among them
  std::uint64_t bytes = 0;      // of response bodies
  std::uint64_t retries = 0;    // of requests that failed
  std::uint64_t hedges = 0;     // second requests because the first was late
  std::uint64_t throttled = 0;  // answers that asked for a pause
  std::uint64_t refused = 0;    // requests that failed at once, unsent: pause or breaker
};

class PoliteClient {
 public:
  // Of one request.
  struct Manner {
    bool patient = true;  // waits out a short pause; false where a stale answer is at hand
    // The patience of what it is a part of; null = its own. Outlives the request.
    Patience* patience = nullptr;
    // Small and idempotent: a second request goes out if the answer is late.
    bool may_hedge = false;
    // Sent again after a passing trouble; false where somebody else can be asked.
    bool may_repeat = true;
    UpstreamKind kind = UpstreamKind::manifest;  // as what it is counted
  };
  // The least wait before a second request, however fast the host usually is.
  static constexpr std::chrono::milliseconds least_hedge_delay{200};
  // The longest that a request waits for room in the ramp.
  static constexpr std::chrono::seconds ramp_patience{1};
  // Pauses that one request waits out before it gives up.
  static constexpr int most_pauses = 3;

  // All but `stats` and `meter`, which are shared, outlive the client. `limit`: nullopt = none.
  PoliteClient(asio::any_io_executor loop, HttpClient& http, Clock& clock, Random& random,
               RetryBudget& budget, std::shared_ptr<UpstreamStats> stats,
               std::optional<RateLimit> limit,
               std::shared_ptr<UpstreamMeter> meter = std::make_shared<UpstreamMeter>());

  PoliteClient(const PoliteClient&) = delete;
  PoliteClient& operator=(const PoliteClient&) = delete;

  // What the host answered, never with status 429. Throws Failure: throttled, during a pause that
  // is too long to wait for; while the breaker is open, at once, the class and the sentence of the
  // last failure and when the host is tried again; else what HttpClient::send throws.
  asio::awaitable<std::unique_ptr<HttpResponse>> send(HttpRequest request, Manner manner);

  // Returns when send() would neither fail at once nor wait for the end of a pause; throws as it.
  // For callers that would otherwise wait while they hold something that others need.
  asio::awaitable<void> wait(Patience& patience);

  bool paused() const { return pause_.holds(clock_.now()); }
  std::chrono::nanoseconds pause_left() const { return pause_.left(clock_.now()); }
  const Breaker& breaker() const { return breaker_; }
  // Why the host is left alone at present, if it is.
  std::optional<Error> trouble() const;
  // When the next request may go out: the end of a pause, or of what the breaker waits. Past or now
  // means at once.
  Instant next_try() const;

 private:
  class Passage;
  struct Race;
  struct Leg {
    std::unique_ptr<HttpResponse> response;
    std::optional<Error> error;  // if there is no response
  };

  // Throws if a request would fail at once.
  void check(const Patience& patience);
  asio::awaitable<Passage> turn(Patience& patience);
  asio::awaitable<Leg> attempt(HttpRequest request, UpstreamKind kind);
  asio::awaitable<Leg> hedged(HttpRequest request, UpstreamKind kind,
                              std::chrono::nanoseconds delay);
  asio::awaitable<Leg> first_leg(HttpRequest request, Race& race);
  asio::awaitable<Leg> second_leg(HttpRequest request, Race& race, std::chrono::nanoseconds delay);
  std::optional<std::chrono::nanoseconds> hedge_delay(const Manner& manner) const;
  bool may_hedge_now() const;
  // What the outcome of a request, sent then, teaches.
  Verdict note(const Leg& leg, const std::string& host, Instant sent, std::uint64_t epoch);
  void note_pause(const HttpResponse& response, const std::string& host, Instant sent);
  void note_failure(Error error, const std::string& host, Instant sent);
  void note_back(const std::string& host);

  asio::any_io_executor loop_;
  HttpClient& http_;
  Clock& clock_;
  Random& random_;
  RetryBudget& budget_;
  std::shared_ptr<UpstreamStats> stats_;
  std::shared_ptr<UpstreamMeter> meter_;
  std::optional<RateLimit> limit_;
  Pause pause_;
  Error pause_error_{};  // what asked for it
  Breaker breaker_;
  Ramp ramp_;
  Event ramp_moved_;
  HeadTimes head_times_;
  bool told_away_ = false;  // a pause or an opening was logged, and no answer since
};

}  // namespace staithe::proxy
