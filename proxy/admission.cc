#include "proxy/admission.h"

#include <algorithm>
#include <cassert>

namespace staithe::proxy {

void Pass::note(const RequestMeter::Registry* registry, std::uint64_t version, Instant until) {
  assert(registry);
  if (version != version_) entries_.clear();
  version_ = version;
  const auto known = std::ranges::find(entries_, registry, &Entry::registry);
  if (known != entries_.end()) {
    known->until = until;
    return;
  }
  if (entries_.size() == most_registries) entries_.erase(entries_.begin());
  entries_.push_back({.registry = registry, .until = until});
}

bool Pass::covers(const RequestMeter::Registry* registry, std::uint64_t version,
                  Instant now) const {
  if (version != version_) return false;
  const auto known = std::ranges::find(entries_, registry, &Entry::registry);
  return known != entries_.end() && now < known->until;
}

}  // namespace staithe::proxy
