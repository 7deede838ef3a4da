// A pause that a host asks for: by 429, or by 503 with Retry-After. Everybody who asks that host
// obeys it at once.
//
// Its end is spread twice. This machine waits longer than it was told by a random part, because ten
// thousand others were told the same second; and each that waits here comes back at a random
// instant after that. A Ramp then lets one through first, and more only as that one is answered.
// Pure; time and chance come in.
#pragma once

#include <algorithm>
#include <optional>

#include "cache/clock.h"
#include "cache/random.h"
#include "proxy/http.h"

namespace staithe::proxy {

class Pause {
 public:
  // Where a 429 says nothing about when to come back.
  static constexpr std::chrono::seconds unnamed{5};
  static constexpr std::chrono::seconds longest{300};
  // A pause that ends within this is waited out by those who are patient, so that clients see
  // nothing of it; a longer one fails at once, so that they turn to another source.
  static constexpr std::chrono::seconds patience{10};
  // Each of the two random parts is below a quarter of the pause, within these bounds.
  static constexpr std::chrono::milliseconds least_spread{250};
  static constexpr std::chrono::milliseconds most_spread{3'000};

  // The host asks for `length` from now on. True if that begins a pause, false if it only confirms
  // or lengthens the one that holds.
  bool begin(Instant now, std::chrono::nanoseconds length, Random& random) {
    length = std::clamp<std::chrono::nanoseconds>(length, {}, longest);
    const bool begins = !holds(now);
    if (begins) {
      spread_ = std::clamp<std::chrono::nanoseconds>(length / 4, least_spread, most_spread);
      ours_ = random.between({}, spread_);
    }
    until_ = std::max(until_, now + length + ours_);
    return begins;
  }

  bool holds(Instant now) const { return now < until_; }
  std::chrono::nanoseconds left(Instant now) const {
    return std::max<std::chrono::nanoseconds>(until_ - now, {});
  }
  // When one that waits for the end comes back; another instant for each.
  Instant comes_back(Random& random) const { return until_ + random.between({}, spread_); }

 private:
  Instant until_{};
  std::chrono::nanoseconds spread_{};
  std::chrono::nanoseconds ours_{};
};

// How long one question of ours may still wait for the ends of pauses, on its whole way: of the
// token server, the registry and the data host.
class Patience {
 public:
  explicit Patience(bool any) : left_(any ? Pause::patience : std::chrono::seconds(0)) {}

  bool suffices(std::chrono::nanoseconds wait) const { return wait <= left_; }
  void spend(std::chrono::nanoseconds waited) {
    left_ = std::max<std::chrono::nanoseconds>(left_ - waited, {});
  }

 private:
  std::chrono::nanoseconds left_;
};

// What Retry-After asks for: whole seconds, or a date, which is compared with the answer's own Date
// (both by upstream's clock) or, without one, with `wall`. nullopt if it is absent or makes no
// sense; never negative.
std::optional<std::chrono::seconds> retry_after(const Headers& headers, WallTime wall);

}  // namespace staithe::proxy
