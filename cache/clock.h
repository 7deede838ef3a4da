// Time, handed in, so that a test owns it.
//
// Deadlines are instants of a clock that counts suspend and cannot be set (CLOCK_BOOTTIME); the
// wall clock serves for what is shown, for what must outlive a restart, and as a second check of
// token expiry. Used from the loop only.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <chrono>

namespace staithe {

namespace asio = boost::asio;

// CLOCK_BOOTTIME as a C++ clock: monotonic, and it goes on while the machine is suspended.
struct BootClock {
  using duration = std::chrono::nanoseconds;
  using rep = duration::rep;
  using period = duration::period;
  using time_point = std::chrono::time_point<BootClock>;
  static constexpr bool is_steady = true;
  static time_point now() noexcept;
};

using Instant = BootClock::time_point;
using WallTime = std::chrono::sys_time<std::chrono::nanoseconds>;

class Clock {
 public:
  virtual ~Clock() = default;
  virtual Instant now() const = 0;
  virtual WallTime wall() const = 0;
  // Returns at or after `when`, promptly after a suspend too. Throws system_error
  // (operation_aborted) when the awaiting coroutine is cancelled.
  virtual asio::awaitable<void> sleep_until(Instant when) = 0;

  asio::awaitable<void> sleep_for(std::chrono::nanoseconds duration) {
    return sleep_until(now() + duration);
  }
};

// The machine's clocks.
class SystemClock final : public Clock {
 public:
  Instant now() const override { return BootClock::now(); }
  WallTime wall() const override { return std::chrono::system_clock::now(); }
  asio::awaitable<void> sleep_until(Instant when) override;
};

}  // namespace staithe
