// A clock that a test owns: time passes only when it says so.
//
//   asio::io_context io;
//   ManualClock clock(io);
//   ... spawn coroutines ...
//   clock.settle();            runs everything that is ready
//   clock.advance(10min);      time passes, sleepers wake in their order, each at its own instant
//   clock.set_wall(...);       somebody sets the wall clock; the boot clock does not notice
//   clock.freeze(1h);          the machine is frozen: only the wall clock goes on
//
// `io` is run here with poll(), so a test never blocks; nothing else should run it meanwhile.
#pragma once

#include <atomic>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/cancellation_type.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/system/system_error.hpp>
#include <chrono>
#include <cstddef>
#include <map>
#include <set>

#include "cache/clock.h"
#include "cache/event.h"

namespace staithe::fake {

class ManualClock final : public Clock {
 public:
  explicit ManualClock(asio::io_context& io) : io_(io) {}

  Instant now() const override { return now_; }
  WallTime wall() const override { return WallTime(now_.time_since_epoch()) + wall_offset_; }

  asio::awaitable<void> sleep_until(Instant when) override {
    if (when <= now_) co_return;
    Sleeper sleeper(*this, when, co_await asio::this_coro::executor);
    co_await sleeper.woken.wait();
    if (now_ < when) throw boost::system::system_error(asio::error::operation_aborted);
  }

  // Runs what is ready, and what that makes ready.
  void settle() {
    io_.restart();
    io_.poll();
  }

  // Time passes; at each instant that somebody sleeps until, everything runs that is ready then.
  void advance(std::chrono::nanoseconds duration) {
    const Instant target = now_ + duration;
    settle();
    while (!sleepers_.empty() && sleepers_.begin()->first <= target) wake_first();
    now_ = target;
    settle();
  }

  // Passes to the next instant that somebody sleeps until; false if nobody sleeps.
  bool advance_to_next() {
    settle();
    if (sleepers_.empty()) return false;
    wake_first();
    return true;
  }

  void set_wall(WallTime wall) { wall_offset_ = wall - WallTime(now_.time_since_epoch()); }
  void jump_wall(std::chrono::nanoseconds by) { wall_offset_ += by; }
  void freeze(std::chrono::nanoseconds by) { jump_wall(by); }
  // The machine is suspended: time passes on both clocks, and nobody wakes before its end.
  void suspend(std::chrono::nanoseconds by) {
    settle();
    now_ += by;
    while (!sleepers_.empty() && sleepers_.begin()->first <= now_) wake_first();
    settle();
  }

  std::size_t sleepers() const { return sleepers_.size(); }

 private:
  struct Sleeper {
    Sleeper(ManualClock& on, Instant when, asio::any_io_executor loop)
        : woken(std::move(loop)), clock(on), place(clock.sleepers_.emplace(when, this)) {}
    ~Sleeper() {
      if (place != clock.sleepers_.end()) clock.sleepers_.erase(place);
    }
    Sleeper(const Sleeper&) = delete;
    Sleeper& operator=(const Sleeper&) = delete;
    Event woken;
    ManualClock& clock;
    std::multimap<Instant, Sleeper*>::iterator place;
  };

  void wake_first() {
    const auto first = sleepers_.begin();
    now_ = std::max(now_, first->first);
    Sleeper* sleeper = first->second;
    sleepers_.erase(first);
    sleeper->place = sleepers_.end();
    sleeper->woken.notify_all();
    settle();
  }

  asio::io_context& io_;
  // Not zero, so that arithmetic on a forgotten Instant{} shows.
  Instant now_{std::chrono::hours(1000)};
  std::chrono::nanoseconds wall_offset_ =
      std::chrono::sys_days(std::chrono::year(2026) / 1 / 1).time_since_epoch();
  std::multimap<Instant, Sleeper*> sleepers_;
};

// The machine's clock, for tests with real sockets: ahead by as much as a test has let pass (who
// sleeps meanwhile wakes), and `speed` times as fast, where nothing but time is waited for.
class PassingClock final : public Clock {
 public:
  explicit PassingClock(int speed = 1) : speed_(speed) {}
  void pass(std::chrono::nanoseconds duration) {
    ahead_ += duration.count();
    for (asio::steady_timer* timer : sleepers_) timer->cancel();
  }

  // Of any thread.
  Instant now() const override {
    return start_ + (BootClock::now() - start_) * speed_ + std::chrono::nanoseconds(ahead_);
  }
  WallTime wall() const override {
    return std::chrono::system_clock::now() + (now() - BootClock::now());
  }
  asio::awaitable<void> sleep_until(Instant when) override {
    asio::steady_timer timer(co_await asio::this_coro::executor);
    sleepers_.insert(&timer);
    struct Leave {
      std::set<asio::steady_timer*>& sleepers;
      asio::steady_timer* timer;
      ~Leave() { sleepers.erase(timer); }
    } leave{sleepers_, &timer};
    for (Instant at = now(); at < when; at = now()) {
      timer.expires_after((when - at) / speed_);
      co_await timer.async_wait(asio::as_tuple(asio::use_awaitable));
      const auto state = co_await asio::this_coro::cancellation_state;
      if (state.cancelled() != asio::cancellation_type::none)
        throw boost::system::system_error(asio::error::operation_aborted);
    }
  }

 private:
  int speed_;
  Instant start_ = BootClock::now();
  std::atomic<std::chrono::nanoseconds::rep> ahead_ = 0;
  std::set<asio::steady_timer*> sleepers_;
};

}  // namespace staithe::fake
