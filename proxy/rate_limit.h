// Shapes the requests of this machine to one registry, so that a burst here does not use up what
// the registry grants to the identity that other machines share. A token bucket whose rate halves
// after a 429 and comes back slowly (additive increase, multiplicative decrease). It never refuses:
// it makes a request wait, some milliseconds each once the burst is spent.
//
// For ACR (azure-protocol.md section 5): an identity may read 5,000 times a minute in Basic and
// Standard, 10,000 in Premium, per geo replica; all identities together twice that; nothing tells a
// client which tier it talks to. One machine takes at most half of the smaller figure: 40 a second
// and a burst of 120 are 2,520 in the worst minute. A pull of 15 layers costs some 20 requests, so
// a node that starts 30 pods at once waits 12 s in all for what without a limit might end in a 429
// for every node. Bytes come from data hosts, which are not counted and not shaped here.
//
// Exchanges and access tokens have a bucket of their own there, 10,000 or 20,000 a minute for the
// whole registry. They are one per repository and hour, shared by all who ask (auth/keeper), so one
// machine comes near to it only when it wants hundreds of repositories at once: 40 a second and a
// burst of 300 are 2,700 in the worst minute, about a quarter of the smaller figure.
// Pure; time comes in.
#pragma once

#include <algorithm>

#include "cache/clock.h"

namespace staithe::proxy {

class RateLimit {
 public:
  struct Settings {
    double most_per_second;
    double least_per_second;
    double burst;                 // at most_per_second; in proportion below it
    double recovery_per_second2;  // the rate grows by this in each second
  };
  static constexpr Settings acr{
      .most_per_second = 40, .least_per_second = 2, .burst = 120, .recovery_per_second2 = 0.2};
  static constexpr Settings acr_tokens{
      .most_per_second = 40, .least_per_second = 2, .burst = 300, .recovery_per_second2 = 0.2};

  explicit RateLimit(Settings settings)
      : settings_(settings), rate_(settings.most_per_second), left_(settings.burst) {}

  // A request wants to go: how long it waits for its turn, which is its own from here on.
  std::chrono::nanoseconds take(Instant now) {
    pass_to(now);
    left_ -= 1;
    if (left_ >= 0) return {};
    return std::chrono::nanoseconds(static_cast<std::int64_t>(-left_ / rate_ * 1e9));
  }
  // The same for what goes only if it need not wait.
  bool try_take(Instant now) {
    pass_to(now);
    if (left_ < 1) return false;
    left_ -= 1;
    return true;
  }

  // A request that was sent then was answered with 429. Those that were sent before the rate was
  // last cut tell nothing new.
  void note_throttled(Instant now, Instant sent) {
    if (sent < cut_at_) return;
    pass_to(now);
    cut_at_ = now;
    rate_ = std::max(rate_ / 2, settings_.least_per_second);
    left_ = std::min(left_, 0.0);
  }

  double per_second() const { return rate_; }

 private:
  void pass_to(Instant now) {
    if (then_ == Instant{}) then_ = now;
    const double seconds = std::chrono::duration<double>(now - then_).count();
    then_ = now;
    // By the rate before, which errs on the side of the registry.
    left_ = std::min(left_ + rate_ * seconds, settings_.burst * rate_ / settings_.most_per_second);
    rate_ = std::min(rate_ + settings_.recovery_per_second2 * seconds, settings_.most_per_second);
  }

  Settings settings_;
  double rate_;
  double left_;  // below 0: promised to those who wait
  Instant then_{};
  Instant cut_at_{};
};

}  // namespace staithe::proxy
