// What upstream said a moment ago that it has not, so that clients which ask for the same again and
// again (a HEAD, then a GET, then the next platform's) ask upstream once. Only 404s are remembered,
// for `absence_lasts`, at most `most_absences` of them, the oldest going first. Lives on the loop.
#pragma once

#include <chrono>
#include <cstddef>
#include <deque>
#include <optional>
#include <string>
#include <unordered_map>
#include <utility>

#include "cache/clock.h"
#include "cache/error.h"

namespace staithe::proxy {

// Shorter than anybody waits between a push and the pull that follows it by hand, longer than the
// requests of one pull are apart.
inline constexpr std::chrono::seconds absence_lasts{3};
inline constexpr std::size_t most_absences = 4096;

class Absences {
 public:
  // `clock` outlives it.
  explicit Absences(const Clock& clock) : clock_(clock) {}

  // `key` names registry, repository and reference. Errors that are no 404 of upstream's are
  // passed over.
  void note(const std::string& key, const Error& error);
  // What was noted, while it lasts.
  std::optional<Error> find(const std::string& key) const;
  // It is there after all.
  void drop(const std::string& key) { known_.erase(key); }

  std::size_t size() const { return known_.size(); }

 private:
  struct Absence {
    Error error;
    Instant until;
  };
  const Clock& clock_;
  std::unordered_map<std::string, Absence> known_;
  // In the order of their ends; of what was dropped or noted again too.
  std::deque<std::pair<Instant, std::string>> ends_;
};

}  // namespace staithe::proxy
