// [warm] of staithe.toml: images that are brought into the cache when the daemon starts, and when a
// reload adds them.
//
// Each is warmed once; those that fail are tried again after pauses that grow from half a minute to
// an hour, each of them drawn anew, so that machines which start together do not ask together.
// Pulls go first (warming.h). Lives on the loop.
#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/json/object.hpp>
#include <chrono>
#include <optional>
#include <string>
#include <vector>

#include "cache/clock.h"
#include "cache/event.h"
#include "cache/random.h"
#include "daemon/options.h"
#include "daemon/warming.h"

namespace staithe::daemon {

class StandingWarm {
 public:
  // All outlive it.
  struct Sources {
    Clock& clock;
    Random& random;
    Warmer& warmer;
  };
  StandingWarm(asio::any_io_executor loop, Sources sources, const WarmSettings& settings);

  // A reload: what is new is warmed now, what was warm stays so, the rest is forgotten. Another
  // platform makes all of them new.
  void set(const WarmSettings& settings);

  // For the daemon's life; returns once the warmer is stopped.
  asio::awaitable<void> run();

  // {"images":3,"warm":2,"failed":1,"next_try_in_seconds":20,"errors":[{"image","error"}]}
  boost::json::object status() const;

 private:
  struct Entry {
    ImageName image;
    std::string name;
    bool warm = false;
    std::string error = {};
  };
  void note(const boost::json::object& line);

  Sources sources_;
  Event changed_;
  WarmSettings settings_;
  std::vector<Entry> entries_;
  std::size_t generation_ = 0;  // of the settings
  std::optional<Instant> next_try_;
};

// Pure: how long after the `failures`th round in a row with failures the next one begins; `unit` is
// from 0 to 1.
std::chrono::milliseconds warm_pause(int failures, double unit);

}  // namespace staithe::daemon
