#include "proxy/senders.h"

#include <cassert>
#include <numeric>

namespace staithe::proxy {

Senders::~Senders() { assert(jobs() == 0); }

std::size_t Senders::jobs() const {
  return std::accumulate(jobs_.begin(), jobs_.end(), std::size_t{0});
}

std::size_t Senders::enter() {
  std::size_t best = (last_ + 1) % jobs_.size();
  for (std::size_t i = 0; i < jobs_.size(); ++i) {
    const std::size_t at = (last_ + 1 + i) % jobs_.size();
    if (jobs_[at] < jobs_[best]) best = at;
  }
  ++jobs_[best];
  last_ = best;
  return best;
}

}  // namespace staithe::proxy
