// Whether a client takes what there is for it, fast enough to be waited for.
//
// Only the time counts in which bytes stood ready and the client did not take them: a client that
// itself waits, for upstream or for the disk, is never slow. Such time is cut into windows; one in
// which the client took less than `least_bytes` is the end of it. Pure.
#pragma once

#include <chrono>
#include <cstdint>

namespace staithe::proxy {

using SteadyTime = std::chrono::steady_clock::time_point;

class Pace {
 public:
  Pace(std::chrono::milliseconds window, std::int64_t least_bytes)
      : window_(window), least_bytes_(least_bytes) {}

  // Bytes stand ready that the client does not take. Nothing happens if they already did.
  void offer(SteadyTime now) {
    if (offered_ == SteadyTime::max()) offered_ = now;
  }
  // It took them.
  void rest(SteadyTime now) {
    if (offered_ == SteadyTime::max()) return;
    waited_ += now - offered_;
    offered_ = SteadyTime::max();
  }

  // True if the current window has passed.
  bool due(SteadyTime now) const {
    return offered_ != SteadyTime::max() && waited_ + (now - offered_) >= window_;
  }
  // Call when due: whether the client was too slow. `taken_bytes` is all that it took since the
  // beginning. If it was not, the next window begins.
  bool too_slow(SteadyTime now, std::int64_t taken_bytes) {
    if (taken_bytes - taken_before_ < least_bytes_) return true;
    taken_before_ = taken_bytes;
    waited_ = {};
    offered_ = now;
    return false;
  }

 private:
  std::chrono::milliseconds window_;
  std::int64_t least_bytes_;
  std::int64_t taken_before_ = 0;
  std::chrono::steady_clock::duration waited_{};
  SteadyTime offered_ = SteadyTime::max();  // max(): nothing is
};

}  // namespace staithe::proxy
