#include "cache/sparing.h"

#include <utility>

namespace staithe {

std::optional<std::uint64_t> Sparing::admit(std::string_view name, Instant now) {
  Subject& about = subject(name, now);
  if (now >= about.until) {
    about.until = now + rate_.interval;
    about.lines = 0;
  }
  if (about.lines == rate_.lines) {
    ++about.left_out;
    return std::nullopt;
  }
  ++about.lines;
  return std::exchange(about.left_out, 0);
}

Sparing::Subject& Sparing::subject(std::string_view name, Instant now) {
  if (const auto known = subjects_.find(name); known != subjects_.end()) return known->second;
  // Those of which there is nothing left to say make room.
  if (subjects_.size() >= most_subjects)
    std::erase_if(subjects_, [&](const auto& entry) {
      return now >= entry.second.until && entry.second.left_out == 0;
    });
  if (subjects_.size() >= most_subjects) name = {};
  return subjects_[std::string(name)];
}

}  // namespace staithe
