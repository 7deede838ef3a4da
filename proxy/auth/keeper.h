// Keeps one fetched thing good: shared by all who ask, renewed ahead of its end.
//
//   phase    what get() does
//   empty    starts the fetch or joins the one in flight, and waits
//   fresh    returns at once
//   due      returns at once; the renewal runs in the background
//   doubtful the boot clock says valid, the wall clock says over (the machine was frozen, or the
//            clock was set): waits for one renewal; if that fails, the boot clock is believed
//   over     past its stop: wiped, as empty
//   failed   empty, and the last fetch failed not long ago: throws that error at once, so that a
//            storm of pulls is no storm upstream
//
// The fetch belongs to no caller: it runs in the task group, and a caller that leaves does not end
// it. A failed fetch fails all who wait for it with the same error and is repeated no sooner than
// schedule.h says. While anything valid is kept, no failure is seen outside. Kinds that are renewed
// unasked go on for as long as the keeper lives; the others while they have been used since the
// last renewal.
//
// Held by shared_ptr, because a fetch in flight holds it as well. Lives on the loop.
#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "cache/clock.h"
#include "cache/error.h"
#include "proxy/auth/authorizer.h"
#include "proxy/auth/demand.h"
#include "proxy/auth/environment.h"
#include "proxy/auth/schedule.h"
#include "proxy/auth/source.h"
#include "proxy/auth/token.h"

namespace staithe::proxy::auth {

// T is move-only or not, and has a `life`.
template <class T>
class Keeper : public std::enable_shared_from_this<Keeper<T>> {
 public:
  using Kept = std::shared_ptr<const T>;

  // `name` tells the supervisor what failed in the background: "refresh token of contoso...".
  Keeper(std::string name, Kind kind, std::unique_ptr<Source<T>> source, Environment environment);

  // Throws Failure with the fetch's error.
  asio::awaitable<Kept> get();

  // Another one than `used`, which somebody has refused. The kept one goes on serving the others.
  asio::awaitable<Kept> get_other_than(Kept used);

  // Fetches a new one, or joins the fetch in flight, however long ago the last one failed; what is
  // kept goes on serving. Throws Failure with the fetch's error. For an operator's word.
  asio::awaitable<void> renew();

  // `used` was refused: forgets it if it is the kept one. True if a new get() is worth its while;
  // false if it was refused again and again, for then a new one will not help either.
  bool discard(const T* used);

  // Keeps `fresh`, which came by another way than the source.
  void keep(T fresh) { succeeded(std::move(fresh)); }

  // What is kept and may still be used, or null; asks nobody.
  Kept current() const;

  // For status; nullopt while nothing is kept.
  std::optional<TokenStatus> status() const;
  // Why the last fetch failed, until one succeeds.
  const std::optional<Error>& last_error() const { return error_; }

  // Nothing kept, nothing in flight, no failure to remember: dropping it loses nothing.
  bool is_idle() const;
  bool in_flight() const { return flight_ != nullptr; }
  Instant last_used() const { return last_used_; }

 private:
  struct Flight;
  class Landing;

  bool is_valid(Instant now) const { return kept_ && now < stop_; }
  bool is_doubtful() const {
    return kept_ && kind_ != Kind::demand && environment_.clock.wall() >= wall_stop_;
  }
  bool is_renewal_due(Instant now) const;
  Instant next_wake(Instant now) const;

  std::shared_ptr<Flight> start(const asio::any_io_executor& loop);
  // False if it came too late to be used.
  bool succeeded(T fresh);
  // What people and figures hear of a fetch.
  void tell_renewed(int failures_before, bool first);
  void tell_failed(const Error& error, int waited_for_by);
  void failed(Error error, std::optional<std::chrono::nanoseconds> retry);
  // Postponed where a server throttles us, so that who has the patience can wait for its end.
  [[noreturn]] void throw_failed(Error error) const;

  static asio::awaitable<void> fly(std::shared_ptr<Keeper> self, Landing landing);
  static asio::awaitable<void> landed(std::shared_ptr<Flight> flight);
  static asio::awaitable<Result<Kept>> ride(std::shared_ptr<Flight> flight);
  // Sleeps from renewal to renewal without owning the keeper.
  static asio::awaitable<void> tend(std::weak_ptr<Keeper> keeper, std::uint64_t generation,
                                    Environment environment);

  const std::string name_;
  const Kind kind_;
  const std::unique_ptr<Source<T>> source_;
  Environment environment_;

  Kept kept_;
  Instant renew_at_{};
  Instant stop_{};
  WallTime wall_stop_{};
  std::uint64_t generation_ = 0;  // counts what has been kept; ends the tending of its predecessors
  bool used_ = false;             // since it was fetched
  Instant told_at_ = Instant::min();  // that it was renewed
  Instant last_used_{};

  std::shared_ptr<Flight> flight_;

  std::optional<Error> error_;
  int failures_ = 0;  // in a row
  Instant retry_at_ = Instant::min();

  int refusals_ = 0;
  Instant refused_at_ = Instant::min();
  Instant refusable_at_ = Instant::min();
};

extern template class Keeper<Token>;
extern template class Keeper<Demand>;

using TokenKeeper = Keeper<Token>;

}  // namespace staithe::proxy::auth
