// When a token is renewed, when it is no longer used, and when a failure may be tried again.
// Pure: chance comes in as a number in [0, 1).
//
// azure-protocol.md section 7, and margins that shrink with the life, so that a token of 20 seconds
// is renewed ahead like one of an hour:
//
//   kind     renewed at                                   not used after
//   entra    refresh_in; else half of the life if that    end - 60 s
//            is 2 h or more; else 5 min ahead
//   refresh  50 to 60 % of the life                       end - 5 min
//   access   75 to 80 % of the life                       end - 30 s
//   password refresh_in; else half of the life            end
//   demand   never: a registry's way of asking changes    end
//            by its own 401
//
// A source that watches a file advises soon (refresh_in); of a refresh token that is followed as
// well.
#pragma once

#include <algorithm>
#include <cassert>
#include <chrono>
#include <optional>

#include "cache/error.h"

namespace staithe::proxy::auth {

enum class Kind { entra, refresh, access, password, demand };

inline const char* to_string(Kind kind) {
  switch (kind) {
    case Kind::entra:
      return "entra";
    case Kind::refresh:
      return "refresh";
    case Kind::access:
      return "access";
    case Kind::password:
      return "password";
    case Kind::demand:
      return "demand";
  }
  return "unknown";
}

// Is it renewed even while nobody asks? The first pull after a quiet weekend should not wait for
// the long way to Entra; access tokens are many, and one request away.
inline bool renewed_unasked(Kind kind) { return kind == Kind::entra || kind == Kind::refresh; }

// Offsets from the beginning of the life: 0 < renew_after <= stop_after <= lasts, and except for a
// demand renewal comes before the stop.
struct Plan {
  std::chrono::nanoseconds renew_after;
  std::chrono::nanoseconds stop_after;
};

inline Plan plan(Kind kind, std::chrono::nanoseconds lasts,
                 std::optional<std::chrono::nanoseconds> refresh_in, double chance) {
  using namespace std::chrono_literals;
  using std::chrono::nanoseconds;
  assert(lasts >= 1ms);
  assert(chance >= 0 && chance < 1);
  const auto share = [&](double of) {
    return nanoseconds(static_cast<nanoseconds::rep>(of * static_cast<double>(lasts.count())));
  };
  const auto stop = [&](nanoseconds margin) { return lasts - std::min(margin, lasts / 10); };
  const bool advised = refresh_in && *refresh_in > 0s && *refresh_in < lasts;
  Plan when{};
  switch (kind) {
    case Kind::entra:
      when.stop_after = stop(60s);
      if (advised) {
        when.renew_after =
            *refresh_in + std::chrono::duration_cast<nanoseconds>(*refresh_in * (0.04 * chance));
      } else {
        when.renew_after = lasts >= 2h ? lasts / 2 : lasts - std::min<nanoseconds>(5min, lasts / 4);
        when.renew_after -= share(0.05 * chance);
      }
      break;
    case Kind::refresh:
      when.stop_after = stop(5min);
      when.renew_after = share(0.5 + 0.1 * chance);
      if (advised) when.renew_after = std::min(when.renew_after, *refresh_in);
      break;
    case Kind::access:
      when.stop_after = stop(30s);
      when.renew_after = share(0.75 + 0.05 * chance);
      break;
    case Kind::password:
      when.stop_after = lasts;
      when.renew_after = advised ? *refresh_in : lasts / 2;
      break;
    case Kind::demand:
      return {.renew_after = lasts, .stop_after = lasts};
  }
  when.renew_after = std::min(when.renew_after, when.stop_after * 9 / 10);
  return when;
}

// How long after the `failures`-th failure in a row (1, 2, ...) nothing is asked again: 1 s, 2 s,
// ... 2 min, a quarter more or less. What only a human can mend waits for 30 s at least. A server
// that names a time is not asked before it, unless it names more than 5 min.
inline std::chrono::nanoseconds retry_after(const Error& error, int failures,
                                            std::optional<std::chrono::nanoseconds> named,
                                            double chance) {
  using namespace std::chrono_literals;
  using std::chrono::nanoseconds;
  assert(failures >= 1);
  const auto times = [](nanoseconds duration, double factor) {
    return nanoseconds(
        static_cast<nanoseconds::rep>(static_cast<double>(duration.count()) * factor));
  };
  nanoseconds wait = std::min<nanoseconds>(1s * (1 << std::min(failures - 1, 7)), 2min);
  switch (error.code) {
    case Errc::unauthorized:
    case Errc::denied:
    case Errc::config:
    case Errc::identity_missing:
    case Errc::firewall:
      wait = std::max<nanoseconds>(wait, 40s);
      break;
    case Errc::throttled:
      wait = std::max<nanoseconds>(wait, 5s);
      break;
    default:
      break;
  }
  wait = times(wait, 0.75 + 0.5 * chance);
  if (named) wait = std::max(wait, times(std::min<nanoseconds>(*named, 5min), 1 + 0.2 * chance));
  return wait;
}

}  // namespace staithe::proxy::auth
