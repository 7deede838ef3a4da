#include "proxy/polite_client.h"

#include <boost/asio/experimental/awaitable_operators.hpp>

#include "cache/log.h"

namespace staithe::proxy {

namespace {

using namespace std::chrono_literals;
using namespace asio::experimental::awaitable_operators;

std::int64_t whole_seconds(std::chrono::nanoseconds duration) {
  return std::max<std::int64_t>(std::chrono::ceil<std::chrono::seconds>(duration).count(), 0);
}

}  // namespace

// A request's place among those that are under way, from the moment it goes out until its head has
// come, it failed, or whoever sent it is gone.
class PoliteClient::Passage {
 public:
  explicit Passage(PoliteClient& client)
      : client_(&client),
        sent_(client.clock_.now()),
        is_probe_(client.breaker_.enter(sent_)),
        epoch_(client.ramp_.enter()) {}
  Passage(Passage&& other) noexcept
      : client_(std::exchange(other.client_, nullptr)),
        sent_(other.sent_),
        is_probe_(other.is_probe_),
        noted_(other.noted_),
        epoch_(other.epoch_) {}
  Passage& operator=(Passage&&) = delete;
  ~Passage() {
    if (!client_) return;
    if (is_probe_ && !noted_) client_->breaker_.abandon(sent_);
    client_->ramp_.leave(epoch_);
    client_->ramp_moved_.notify_all();
  }

  Instant sent() const { return sent_; }
  Verdict note(const Leg& leg, const std::string& host) {
    const Verdict verdict = client_->note(leg, host, sent_, epoch_);
    noted_ = leg.response || verdict == Verdict::failing;
    return verdict;
  }

 private:
  PoliteClient* client_;
  Instant sent_;
  bool is_probe_;
  bool noted_ = false;
  std::uint64_t epoch_;
};

PoliteClient::PoliteClient(asio::any_io_executor loop, HttpClient& http, Clock& clock,
                           Random& random, RetryBudget& budget,
                           std::shared_ptr<UpstreamStats> stats, std::optional<RateLimit> limit,
                           std::shared_ptr<UpstreamMeter> meter)
    : loop_(loop),
      http_(http),
      clock_(clock),
      random_(random),
      budget_(budget),
      stats_(std::move(stats)),
      meter_(std::move(meter)),
      limit_(limit),
      ramp_moved_(loop) {}

asio::awaitable<std::unique_ptr<HttpResponse>> PoliteClient::send(HttpRequest request,
                                                                  Manner manner) {
  const Instant began = clock_.now();
  Patience own(manner.patient);
  Patience& patience = manner.patience ? *manner.patience : own;
  const std::string host = request.url.origin().to_string();
  int failures = 0;
  int pauses = 0;
  for (;;) {
    Leg leg;
    Verdict verdict{};
    {
      Passage passage = co_await turn(patience);
      if (const auto delay = hedge_delay(manner)) {
        leg = co_await hedged(request, manner.kind, *delay);
      } else {
        leg = co_await attempt(request, manner.kind);
      }
      verdict = passage.note(leg, host);
      if (manner.may_hedge && verdict == Verdict::answered)
        head_times_.add(clock_.now() - passage.sent());
    }
    if (verdict == Verdict::paused) {
      leg.response.reset();
      if (++pauses > most_pauses) {
        ++stats_->refused;
        throw Failure(pause_error_);
      }
      continue;  // Into the pause, if that is worth waiting for.
    }
    if (manner.may_repeat && may_retry(verdict, ++failures, clock_.now() - began) &&
        budget_.take(clock_.now())) {
      leg.response.reset();
      ++stats_->retries;
      co_await clock_.sleep_for(random_.between(0ns, backoff_bound(failures)));
      continue;
    }
    if (leg.error) throw Failure(*leg.error);
    co_return std::move(leg.response);
  }
}

void PoliteClient::check(const Patience& patience) {
  const Instant now = clock_.now();
  if (!breaker_.admits(now)) {
    ++stats_->refused;
    const std::int64_t seconds = whole_seconds(breaker_.again_at() - now);
    throw Failure(breaker_.error()->code, breaker_.error()->detail + "; it is tried again in " +
                                              std::to_string(seconds) + " s");
  }
  const auto left = pause_.left(now);
  if (left == 0ns || patience.suffices(left)) return;
  ++stats_->refused;
  throw Failure(pause_error_.code, pause_error_.detail + "; " +
                                       std::to_string(whole_seconds(left)) + " s of it are left");
}

asio::awaitable<void> PoliteClient::wait(Patience& patience) {
  for (;;) {
    check(patience);
    const Instant began = clock_.now();
    if (!pause_.holds(began)) co_return;
    co_await clock_.sleep_until(pause_.comes_back(random_));
    patience.spend(clock_.now() - began);
  }
}

// The order matters: what fails at once does so before it waits, and the token of the rate limit is
// taken last, by a request that will use it.
asio::awaitable<PoliteClient::Passage> PoliteClient::turn(Patience& patience) {
  std::optional<Instant> room_by;
  bool has_token = !limit_;
  for (;;) {
    co_await wait(patience);
    // While the breaker is open the one that is admitted is the probe, whatever hangs elsewhere.
    if (!breaker_.is_open() && !ramp_.has_room()) {
      const Instant now = clock_.now();
      if (!room_by) room_by = now + ramp_patience;
      if (now < *room_by) {
        co_await (ramp_moved_.wait() || clock_.sleep_until(*room_by));
        continue;
      }
    }
    if (!has_token) {
      has_token = true;
      if (const auto left = limit_->take(clock_.now()); left > 0ns) {
        co_await clock_.sleep_for(left);
        continue;
      }
    }
    co_return Passage(*this);
  }
}

asio::awaitable<PoliteClient::Leg> PoliteClient::attempt(HttpRequest request, UpstreamKind kind) {
  ++stats_->requests;
  struct Counted {  // also if whoever sent it is gone before the answer
    UpstreamMeter& meter;
    UpstreamKind kind;
    int status = 0;
    ~Counted() { meter.note(kind, status); }
  } counted{*meter_, kind};
  Leg leg;
  try {
    leg.response = co_await http_.send(std::move(request));
    counted.status = leg.response->status();
  } catch (const Failure& failure) {
    leg.error = failure.error();
  }
  co_return leg;
}

// Two requests of which the first answer counts. It lives in hedged(), which both legs end before.
struct PoliteClient::Race {
  Race(asio::any_io_executor loop, UpstreamKind of) : kind(of), moved(std::move(loop)) {}
  const UpstreamKind kind;
  bool first_failed = false;
  bool second_is_out = false;
  Event moved;
};

std::optional<std::chrono::nanoseconds> PoliteClient::hedge_delay(const Manner& manner) const {
  if (!manner.may_hedge || !may_hedge_now()) return std::nullopt;
  const auto usual = head_times_.p95();
  if (!usual) return std::nullopt;
  return std::max<std::chrono::nanoseconds>(*usual, least_hedge_delay);
}

bool PoliteClient::may_hedge_now() const {
  return breaker_.is_well() && ramp_.is_over() && !pause_.holds(clock_.now()) &&
         budget_.left() >= 1;
}

asio::awaitable<PoliteClient::Leg> PoliteClient::hedged(HttpRequest request, UpstreamKind kind,
                                                        std::chrono::nanoseconds delay) {
  Race race(loop_, kind);
  try {
    auto winner = co_await (first_leg(request, race) || second_leg(request, race, delay));
    if (winner.index() == 0) co_return std::move(std::get<0>(winner));
    co_return std::move(std::get<1>(winner));
  } catch (const asio::multiple_exceptions& both) {  // Cancelled, and so both legs.
    std::rethrow_exception(both.first_exception());
  }
}

asio::awaitable<PoliteClient::Leg> PoliteClient::first_leg(HttpRequest request, Race& race) {
  Leg leg = co_await attempt(std::move(request), race.kind);
  if (leg.response) co_return leg;
  race.first_failed = true;
  while (race.second_is_out) co_await race.moved.wait();
  co_return leg;
}

asio::awaitable<PoliteClient::Leg> PoliteClient::second_leg(HttpRequest request, Race& race,
                                                            std::chrono::nanoseconds delay) {
  co_await clock_.sleep_for(delay);
  const Instant now = clock_.now();
  if (!race.first_failed && may_hedge_now() && (!limit_ || limit_->try_take(now)) &&
      budget_.take(now)) {
    ++stats_->hedges;
    race.second_is_out = true;
    Leg leg = co_await attempt(std::move(request), race.kind);
    race.second_is_out = false;
    if (leg.response) co_return leg;
    race.moved.notify_all();
  }
  // The first leg decides, and its end cancels this one.
  for (;;) co_await race.moved.wait();
}

Verdict PoliteClient::note(const Leg& leg, const std::string& host, Instant sent,
                           std::uint64_t epoch) {
  Verdict verdict{};
  if (leg.error) {
    verdict = judge(leg.error->code);
    if (verdict == Verdict::failing) note_failure(*leg.error, host, sent);
    return verdict;
  }
  const HttpResponse& response = *leg.response;
  const int status = response.status();
  verdict = judge(status, retry_after(response.headers(), clock_.wall()).has_value());
  if (verdict == Verdict::failing) {
    note_failure({Errc::upstream_failed, host + " answered " + std::to_string(status)}, host, sent);
    return verdict;
  }
  // Every other answer, a request for a pause too, shows that somebody is there.
  const bool is_back = breaker_.answered(clock_.now(), sent);
  if (verdict == Verdict::paused) {
    note_pause(response, host, sent);
    return verdict;
  }
  if (is_back) ramp_.begin();
  ramp_.note_answer(epoch);
  budget_.note_answer();
  if (told_away_ && !breaker_.is_open() && !paused()) note_back(host);
  return verdict;
}

void PoliteClient::note_pause(const HttpResponse& response, const std::string& host, Instant sent) {
  const Instant now = clock_.now();
  ++stats_->throttled;
  const auto asked = retry_after(response.headers(), clock_.wall()).value_or(Pause::unnamed);
  const auto before = pause_.left(now);
  const bool begins = pause_.begin(now, asked, random_);
  meter_->note_pause(pause_.left(now) - before);
  if (limit_) limit_->note_throttled(now, sent);
  ramp_.begin();
  pause_error_ = {Errc::throttled, host + " answered " + std::to_string(response.status()) +
                                       " and asks for a pause of " + std::to_string(asked.count()) +
                                       " s"};
  if (!begins) return;
  told_away_ = true;
  log::info("upstream pauses", {{"upstream", host},
                                {"status", response.status()},
                                {"seconds", whole_seconds(pause_.left(now))}});
}

void PoliteClient::note_failure(Error error, const std::string& host, Instant sent) {
  const Instant now = clock_.now();
  if (!breaker_.failed(now, sent, error, random_)) return;
  // That a probe failed too is no change of state.
  log::write(std::exchange(told_away_, true) ? log::Level::debug : log::Level::warn,
             "upstream unreachable",
             {{"upstream", host},
              {"next_try_seconds", whole_seconds(breaker_.again_at() - now)},
              {"error", error}});
}

void PoliteClient::note_back(const std::string& host) {
  told_away_ = false;
  log::info("upstream back", {{"upstream", host}});
}

std::optional<Error> PoliteClient::trouble() const {
  if (breaker_.is_open()) return breaker_.error();
  if (paused()) return pause_error_;
  return std::nullopt;
}

Instant PoliteClient::next_try() const {
  const Instant now = clock_.now();
  Instant when = now + pause_.left(now);
  if (breaker_.is_open()) when = std::max(when, breaker_.again_at());
  return when;
}

}  // namespace staithe::proxy
