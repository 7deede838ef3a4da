// How often requests to one upstream may be repeated: a share of what succeeds, not a number per
// request. Retries and hedges of all requests and all transfers draw on it together.
//
// A number per request multiplies the load just when upstream fails; a share cannot. Each retry
// costs 1. An answer gives `share_of_answers` back, and bytes of a blob that had not been here
// before give 1 per `bytes_per_retry`. So a transfer that is cut a thousand times and brings a
// mebibyte each time never ends for want of budget, and one that brings a byte per attempt ends
// after a dozen. A budget on which nobody has drawn for `rest` has its reserve again, so that an
// evil hour is not held against the next day. Deterministic; time comes in.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>

#include "cache/clock.h"

namespace staithe::proxy {

class RetryBudget {
 public:
  static constexpr double reserve = 10;
  static constexpr double most = 20;
  static constexpr double share_of_answers = 0.2;
  static constexpr std::uint64_t bytes_per_retry = 64 * 1024;
  static constexpr std::chrono::minutes rest{5};

  // Draws one retry; false if there is none, and then the failure at hand is final.
  bool take(Instant now) {
    if (drawn_ && now - *drawn_ >= rest) left_ = std::max(left_, reserve);
    drawn_ = now;
    if (left_ < 1) return false;
    left_ -= 1;
    return true;
  }

  // Upstream answered (anything but a failure).
  void note_answer() { left_ = std::min(most, left_ + share_of_answers); }

  // A transfer has brought bytes that it did not have before.
  void note_progress(std::uint64_t bytes) {
    left_ = std::min(most, left_ + static_cast<double>(bytes) / bytes_per_retry);
  }

  double left() const { return left_; }

 private:
  double left_ = reserve;
  std::optional<Instant> drawn_;  // the last attempt to
};

}  // namespace staithe::proxy
