// Stops asking a host that does not answer, so that a miss fails within milliseconds instead of
// waiting for the same silence again.
//
//   closed   requests go out; opened by failures in a row, by a share of failures, or by one
//            request that waited long while nothing came from the host at all
//   open     requests fail at once, for a random time below 1 s, that doubles up to 8 s with each
//            probe that fails; so a host that is back is found within 10 s
//   probing  when that time is over one request is sent. Its answer closes the breaker, its failure
//            opens it again, for a time that counts from when it was sent. One that hangs holds the
//            others back no longer than `probe_lease`: then the next is the probe, and what becomes
//            of the one before says nothing any more
//
// A failure of a request that was sent before the last change of state says nothing new, and is
// passed over: a hundred requests that fail together are one event. Pure; time and chance come in.
#pragma once

#include <algorithm>
#include <bit>
#include <cassert>
#include <cstdint>
#include <optional>
#include <utility>

#include "cache/clock.h"
#include "cache/error.h"
#include "cache/random.h"

namespace staithe::proxy {

class Breaker {
 public:
  static constexpr int failures_in_a_row = 5;
  // Half of the last 20, if they are not too far apart to belong together.
  static constexpr int window = 20;
  static constexpr int failures_in_window = 10;
  static constexpr std::chrono::seconds window_gap{30};
  // A request that failed after this long, while nothing else was answered, opens alone.
  static constexpr std::chrono::seconds silence{2};
  static constexpr std::chrono::seconds first_wait{1};
  static constexpr std::chrono::seconds longest_wait{8};
  static constexpr std::chrono::seconds probe_lease{5};
  // After it has closed, so many answers are needed before a single failure no longer opens it.
  static constexpr int probation_answers = 10;

  bool is_open() const { return open_; }
  // Closed, and not only just.
  bool is_well() const { return !open_ && probation_ == 0; }
  // Would a request be sent now?
  bool admits(Instant now) const { return !open_ || (now >= again_at_ && now >= leased_until_); }
  // When the next probe may go, if it is open. Past instants mean now.
  Instant again_at() const { return std::max(again_at_, leased_until_); }
  // Why it is open.
  const std::optional<Error>& error() const { return error_; }

  // A request is sent now; admits(now) must hold. True if it is the probe.
  bool enter(Instant now) {
    assert(admits(now));
    if (!open_) return false;
    probe_ = now;
    leased_until_ = now + probe_lease;
    return true;
  }
  // A probe, sent then, was given up before it came to anything: another may go.
  void abandon(Instant sent) {
    if (open_ && probe_ == sent) leased_until_ = sent;
  }

  // A request, sent then, was answered. True if that closed the breaker.
  bool answered(Instant now, Instant sent) {
    if (open_ && sent <= changed_at_) return false;
    const bool closes = std::exchange(open_, false);
    if (closes) {
      changed_at_ = now;
      again_at_ = {};
      leased_until_ = {};
      probation_ = probation_answers;
      error_.reset();
      forget();
    } else if (probation_ > 0) {
      --probation_;
    }
    if (probation_ == 0) wait_ = first_wait;
    last_answer_ = now;
    in_a_row_ = 0;
    remember(now, false);
    return closes;
  }

  // A request, sent then, failed. True if that opened the breaker, or opened it again after a
  // probe.
  bool failed(Instant now, Instant sent, Error error, Random& random) {
    if (sent <= changed_at_ || (open_ && sent != probe_)) return false;
    if (!open_) {
      ++in_a_row_;
      remember(now, true);
      const bool silent = now - sent >= silence && last_answer_ <= sent;
      if (!silent && probation_ == 0 && in_a_row_ < failures_in_a_row &&
          std::popcount(history_) < failures_in_window)
        return false;
    }
    // One that closed and failed again soon waits longer than the time before.
    if (open_ || probation_ > 0)
      wait_ = std::min<std::chrono::nanoseconds>(2 * wait_, longest_wait);
    const auto wait = random.between(wait_ / 2, wait_);
    // From when the probe was sent: the host may have come back right after that.
    again_at_ = open_ ? std::max(sent + wait, now + first_wait / 2) : now + wait;
    open_ = true;
    changed_at_ = now;
    leased_until_ = {};
    error_ = std::move(error);
    forget();
    return true;
  }

 private:
  void forget() {
    in_a_row_ = 0;
    history_ = 0;
  }
  void remember(Instant now, bool failure) {
    if (now - remembered_at_ > window_gap) history_ = 0;
    remembered_at_ = now;
    history_ = ((history_ << 1) | (failure ? 1U : 0U)) & ((1U << window) - 1);
  }

  bool open_ = false;
  Instant changed_at_{};  // of open_, or a failed probe
  Instant again_at_{};
  Instant leased_until_{};  // by the probe that is under way
  Instant probe_{};         // when that was sent
  std::chrono::nanoseconds wait_ = first_wait;
  int probation_ = 0;
  int in_a_row_ = 0;
  std::uint32_t history_ = 0;  // the last outcomes, a bit each; 1 = failed
  Instant remembered_at_{};
  Instant last_answer_{};
  std::optional<Error> error_;
};

}  // namespace staithe::proxy
