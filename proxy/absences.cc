#include "proxy/absences.h"

#include "proxy/freshness.h"

namespace staithe::proxy {

void Absences::note(const std::string& key, const Error& error) {
  if (doubt_of(error.code) != Doubt::gone) return;
  const Instant now = clock_.now();
  while (!ends_.empty() && (ends_.front().first <= now || ends_.size() >= most_absences)) {
    const auto& [end, oldest] = ends_.front();
    if (const auto it = known_.find(oldest); it != known_.end() && it->second.until == end)
      known_.erase(it);
    ends_.pop_front();
  }
  const Instant until = now + absence_lasts;
  known_.insert_or_assign(key, Absence{error, until});
  ends_.emplace_back(until, key);
}

std::optional<Error> Absences::find(const std::string& key) const {
  const auto it = known_.find(key);
  if (it == known_.end() || clock_.now() >= it->second.until) return std::nullopt;
  return it->second.error;
}

}  // namespace staithe::proxy
