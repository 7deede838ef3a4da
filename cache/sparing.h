// Log lines that could come by the thousand: a few per subject and interval are written, the rest
// is counted, and the next line that is written says how many there were.
//
//   Sparing stale_lines_{{.lines = 1, .interval = std::chrono::minutes(1)}};
//   if (const auto left_out = stale_lines_.admit(registry, clock_.now()))
//     log::warn("tag served stale", {..., {"left_out", *left_out}});
//
// Pure; its user owns it, and calls it from one thread.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "cache/clock.h"

namespace staithe {

class Sparing {
 public:
  struct Rate {
    std::size_t lines = 1;
    std::chrono::nanoseconds interval = std::chrono::minutes(1);
  };
  // More subjects than this at one time share one rate.
  static constexpr std::size_t most_subjects = 256;

  explicit Sparing(Rate rate) : rate_(rate) {}

  // How many lines about `subject` were left out since the last one, if one may be written now;
  // nullopt if this one is left out.
  std::optional<std::uint64_t> admit(std::string_view subject, Instant now);

 private:
  struct Subject {
    Instant until;  // of the interval
    std::size_t lines = 0;
    std::uint64_t left_out = 0;
  };
  Subject& subject(std::string_view name, Instant now);

  const Rate rate_;
  std::map<std::string, Subject, std::less<>> subjects_;
};

}  // namespace staithe
