#include "proxy/auth/keeper.h"

#include <algorithm>
#include <boost/asio/this_coro.hpp>
#include <boost/system/system_error.hpp>
#include <cassert>
#include <utility>

#include "cache/escape.h"
#include "cache/event.h"
#include "cache/log.h"
#include "proxy/auth/password.h"

namespace staithe::proxy::auth {
namespace {

// Renewals that follow each other faster than this, as of a token whose file is watched, are told
// at level debug.
constexpr std::chrono::minutes told_every{10};
// A refusal this long after the last one is a new story: what was used meanwhile was accepted.
constexpr std::chrono::seconds refusals_forgotten{30};

std::chrono::seconds in_seconds(std::chrono::nanoseconds duration) {
  return std::max(std::chrono::floor<std::chrono::seconds>(duration), std::chrono::seconds(0));
}

}  // namespace

// One fetch, and those who wait for it.
template <class T>
struct Keeper<T>::Flight {
  explicit Flight(asio::any_io_executor loop) : changed(std::move(loop)) {}
  Event changed;
  std::optional<Result<Kept>> outcome;
  int riders = 0;
};

// Sees to it that a flight lands: also when its task is dropped unstarted, or ended in the middle.
template <class T>
class Keeper<T>::Landing {
 public:
  Landing(std::shared_ptr<Keeper> keeper, std::shared_ptr<Flight> flight)
      : keeper_(std::move(keeper)), flight_(std::move(flight)) {}
  Landing(Landing&&) = default;
  ~Landing() {
    if (flight_) land(fail(Errc::cancelled, keeper_->name_ + ": the daemon is stopping"));
  }

  // Returns how many were waiting.
  int land(Result<Kept> outcome) {
    const std::shared_ptr<Flight> flight = std::exchange(flight_, nullptr);
    keeper_->flight_ = nullptr;
    flight->outcome = std::move(outcome);
    flight->changed.notify_all();
    return flight->riders;
  }

 private:
  std::shared_ptr<Keeper> keeper_;
  std::shared_ptr<Flight> flight_;
};

template <class T>
Keeper<T>::Keeper(std::string name, Kind kind, std::unique_ptr<Source<T>> source,
                  Environment environment)
    : name_(std::move(name)), kind_(kind), source_(std::move(source)), environment_(environment) {}

template <class T>
asio::awaitable<typename Keeper<T>::Kept> Keeper<T>::get() {
  const auto self = this->shared_from_this();  // The owner may drop us while we wait.
  const Instant now = environment_.clock.now();
  used_ = true;
  last_used_ = now;
  std::shared_ptr<Flight> flight = flight_;
  if (is_valid(now)) {
    const bool doubtful = is_doubtful();
    if (!flight && (doubtful || now >= renew_at_) && now >= retry_at_)
      flight = start(co_await asio::this_coro::executor);
    if (!doubtful || !flight) co_return kept_;
  } else if (!flight) {
    kept_ = nullptr;
    if (now < retry_at_) throw_failed(*error_);
    flight = start(co_await asio::this_coro::executor);
  }
  Result<Kept> outcome = co_await ride(flight);
  if (outcome) co_return std::move(*outcome);
  if (is_valid(environment_.clock.now())) co_return kept_;
  throw_failed(std::move(outcome.error()));
}

template <class T>
asio::awaitable<typename Keeper<T>::Kept> Keeper<T>::get_other_than(Kept used) {
  const auto self = this->shared_from_this();
  if (kept_ != used) co_return co_await get();
  std::shared_ptr<Flight> flight = flight_;
  if (!flight) {
    if (environment_.clock.now() < retry_at_) throw Failure(*error_);
    flight = start(co_await asio::this_coro::executor);
  }
  co_return value_or_throw(co_await ride(flight));
}

template <class T>
asio::awaitable<void> Keeper<T>::renew() {
  const auto self = this->shared_from_this();
  std::shared_ptr<Flight> flight = flight_;
  if (!flight) flight = start(co_await asio::this_coro::executor);
  value_or_throw(co_await ride(flight));
}

template <class T>
bool Keeper<T>::discard(const T* used) {
  if (kept_.get() != used || !used) return true;
  const Instant now = environment_.clock.now();
  if (refused_at_ != Instant::min() && now - refused_at_ > refusals_forgotten) {
    refusals_ = 0;
    refusable_at_ = now;
  }
  refused_at_ = now;
  if (now < refusable_at_) return false;
  refusable_at_ = now + retry_after(Error{Errc::upstream_failed, {}}, ++refusals_, std::nullopt,
                                    environment_.random.unit());
  kept_ = nullptr;
  ++generation_;
  return true;
}

template <class T>
typename Keeper<T>::Kept Keeper<T>::current() const {
  return is_valid(environment_.clock.now()) ? kept_ : nullptr;
}

template <class T>
std::optional<TokenStatus> Keeper<T>::status() const {
  const Instant now = environment_.clock.now();
  if (!is_valid(now)) return std::nullopt;
  return TokenStatus{.kind = to_string(kind_),
                     .age = in_seconds(now - kept_->life.since),
                     .expires_in = in_seconds(kept_->life.end() - now),
                     .renews_in = in_seconds(std::max(renew_at_, retry_at_) - now)};
}

template <class T>
bool Keeper<T>::is_idle() const {
  const Instant now = environment_.clock.now();
  return !is_valid(now) && !flight_ && now >= retry_at_;
}

template <class T>
bool Keeper<T>::is_renewal_due(Instant now) const {
  if (now < retry_at_) return false;
  if (!kept_) return renewed_unasked(kind_);
  return now >= renew_at_ && (used_ || renewed_unasked(kind_));
}

template <class T>
Instant Keeper<T>::next_wake(Instant now) const {
  if (!kept_) return retry_at_;
  if (now < renew_at_) return renew_at_;
  return used_ || renewed_unasked(kind_) ? std::min(retry_at_, stop_) : stop_;
}

template <class T>
std::shared_ptr<typename Keeper<T>::Flight> Keeper<T>::start(const asio::any_io_executor& loop) {
  assert(!flight_);
  const auto self = this->shared_from_this();
  const auto flight = std::make_shared<Flight>(loop);
  flight_ = flight;
  // It may land before spawn() returns; `flight` remembers how.
  environment_.tasks.spawn(name_, fly(self, Landing(self, flight)));
  return flight;
}

template <class T>
bool Keeper<T>::succeeded(T fresh) {
  const Plan when =
      plan(kind_, fresh.life.lasts, fresh.life.refresh_in, environment_.random.unit());
  if (environment_.clock.now() >= fresh.life.since + when.stop_after) return false;
  renew_at_ = fresh.life.since + when.renew_after;
  stop_ = fresh.life.since + when.stop_after;
  wall_stop_ = fresh.life.wall_since + when.stop_after;
  kept_ = std::make_shared<const T>(std::move(fresh));
  used_ = false;
  error_.reset();
  failures_ = 0;
  retry_at_ = Instant::min();
  ++generation_;
  if (kind_ != Kind::demand)
    environment_.tasks.spawn(name_, tend(this->weak_from_this(), generation_, environment_));
  return true;
}

template <class T>
void Keeper<T>::throw_failed(Error error) const {
  const Instant now = environment_.clock.now();
  if (error.code == Errc::throttled && retry_at_ > now)
    throw Postponed(error.code, std::move(error.detail), retry_at_ - now);
  throw Failure(std::move(error));
}

template <class T>
void Keeper<T>::failed(Error error, std::optional<std::chrono::nanoseconds> retry) {
  ++failures_;
  retry_at_ =
      environment_.clock.now() + retry_after(error, failures_, retry, environment_.random.unit());
  error_ = std::move(error);
}

template <class T>
void Keeper<T>::tell_renewed(int failures_before, bool first) {
  if (kind_ == Kind::demand) return;
  if (environment_.meter) environment_.meter->note(kind_, true);
  // Access tokens come with every repository, and passwords are read again and again.
  const Instant now = environment_.clock.now();
  const bool due = told_at_ == Instant::min() || now - told_at_ >= told_every;
  const bool rare = (renewed_unasked(kind_) && due) || failures_before > 0;
  if (rare) told_at_ = now;
  log::write(rare ? log::Level::info : log::Level::debug, "token renewed",
             {{"token", name_},
              {"kind", to_string(kind_)},
              {"first", first},
              {"failures_before", failures_before},
              {"expires_in_seconds", in_seconds(kept_->life.end() - now).count()},
              {"renews_in_seconds", in_seconds(renew_at_ - now).count()}});
}

template <class T>
void Keeper<T>::tell_failed(const Error& error, int waited_for_by) {
  if (kind_ == Kind::demand || error.code == Errc::cancelled) return;
  if (environment_.meter) environment_.meter->note(kind_, false);
  // The supervisor tells of what nobody waits for. Of an access token its client is told, and who
  // asks for what he may not have could fill the log; of the others the first in a row says it all.
  if (waited_for_by == 0) return;
  const Instant now = environment_.clock.now();
  log::write(kind_ == Kind::access || failures_ > 1 ? log::Level::debug : log::Level::warn,
             "token not renewed",
             {{"token", name_},
              {"kind", to_string(kind_)},
              {"still_valid", is_valid(now)},
              {"next_try_seconds", in_seconds(retry_at_ - now).count()},
              {"error", error}});
}

template <class T>
asio::awaitable<void> Keeper<T>::fly(std::shared_ptr<Keeper> self, Landing landing) {
  std::optional<T> fresh;
  std::optional<Error> error;
  std::optional<std::chrono::nanoseconds> retry;
  try {
    fresh.emplace(co_await self->source_->fetch());
  } catch (const Postponed& postponed) {
    error = postponed.error();
    retry = postponed.retry_after();
  } catch (const Failure& failure) {
    error = failure.error();
  } catch (const boost::system::system_error& system_error) {
    // Stopping is no failure of the fetch: the Landing tells those who wait.
    if (system_error.code() == asio::error::operation_aborted) throw;
    error = Error{Errc::upstream_failed, self->name_ + ": " + printable(system_error.what())};
  } catch (const std::exception& unexpected) {
    error = Error{Errc::upstream_failed, self->name_ + ": " + printable(unexpected.what())};
  }
  const int failures_before = self->failures_;
  const bool first = self->generation_ == 0;
  if (fresh && self->succeeded(std::move(*fresh))) {
    self->tell_renewed(failures_before, first);
    landing.land(self->kept_);
    co_return;
  }
  if (!error) error = Error{Errc::upstream_nonsense, self->name_ + ": it had ended on arrival"};
  self->failed(*error, retry);
  const int riders = landing.land(std::unexpected(*error));
  self->tell_failed(*error, riders);
  // What nobody waits for, the supervisor hears of.
  if (riders == 0 && error->code != Errc::cancelled) throw Failure(std::move(*error));
}

template <class T>
asio::awaitable<void> Keeper<T>::landed(std::shared_ptr<Flight> flight) {
  while (!flight->outcome) co_await flight->changed.wait();
}

template <class T>
asio::awaitable<Result<typename Keeper<T>::Kept>> Keeper<T>::ride(std::shared_ptr<Flight> flight) {
  struct Rider {
    explicit Rider(Flight& on) : flight(on) { ++flight.riders; }
    ~Rider() { --flight.riders; }
    Flight& flight;
  } rider(*flight);
  co_await landed(flight);
  co_return *flight->outcome;
}

template <class T>
asio::awaitable<void> Keeper<T>::tend(std::weak_ptr<Keeper> keeper, std::uint64_t generation,
                                      Environment environment) {
  for (;;) {
    Instant wake;
    std::shared_ptr<Flight> flight;
    {
      const std::shared_ptr<Keeper> self = keeper.lock();
      if (!self || self->generation_ != generation) co_return;
      const Instant now = environment.clock.now();
      if (!self->is_valid(now)) self->kept_ = nullptr;
      if (!self->kept_ && !renewed_unasked(self->kind_)) co_return;
      flight = self->flight_;
      if (!flight && self->is_renewal_due(now))
        flight = self->start(co_await asio::this_coro::executor);
      wake = flight ? now : self->next_wake(now);
    }
    if (flight) {
      co_await landed(flight);
      if (!*flight->outcome && flight->outcome->error().code == Errc::cancelled) co_return;
    } else {
      co_await environment.clock.sleep_until(wake);
    }
  }
}

template class Keeper<Token>;
template class Keeper<Demand>;
template class Keeper<Password>;

}  // namespace staithe::proxy::auth
