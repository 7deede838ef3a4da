// A sign of life for the service manager, given only after work was done by every part of the
// daemon that could stand still: each in turn is asked to come round, and the sign is given when
// all have. One that does not is named in the log, so that the journal says why the manager ends
// the daemon.
//
// Lives on the loop, and so a loop that stands still gives no sign either.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <chrono>
#include <functional>
#include <string>
#include <vector>

#include "cache/clock.h"
#include "cache/task_group.h"

namespace staithe::daemon {

class Watchdog {
 public:
  struct Part {
    std::string name;
    // Returns when the part has done something since the call.
    std::function<asio::awaitable<void>()> come_round;
  };

  // All outlive it; `give_sign` is called on the loop.
  Watchdog(Clock& clock, TaskGroup& tasks, std::vector<Part> parts,
           std::function<void()> give_sign);

  // Until it is cancelled. `interval`: how often a sign is wanted.
  asio::awaitable<void> run(std::chrono::nanoseconds interval);

 private:
  asio::awaitable<void> go_round();

  Clock& clock_;
  TaskGroup& tasks_;
  std::vector<Part> parts_;
  std::function<void()> give_sign_;
  const Part* asked_ = nullptr;     // has not come round yet
  const Part* reported_ = nullptr;  // was named
  Instant since_{};                 // when it was asked
};

}  // namespace staithe::daemon
