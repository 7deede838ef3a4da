// How often tokens were fetched, counted by kind: of one [[registry]]. Lives on the loop.
#pragma once

#include <array>
#include <cstdint>

#include "proxy/auth/schedule.h"

namespace staithe::proxy::auth {

class TokenMeter {
 public:
  // The kinds that are tokens: a challenge is none.
  static constexpr std::array kinds{Kind::entra, Kind::refresh, Kind::access, Kind::password};

  void note(Kind kind, bool fetched) {
    auto& count = counts_[static_cast<std::size_t>(kind)];
    ++(fetched ? count.fetched : count.failed);
  }
  std::uint64_t fetched(Kind kind) const { return counts_[static_cast<std::size_t>(kind)].fetched; }
  std::uint64_t failed(Kind kind) const { return counts_[static_cast<std::size_t>(kind)].failed; }

 private:
  struct Count {
    std::uint64_t fetched = 0;
    std::uint64_t failed = 0;
  };
  std::array<Count, 5> counts_{};  // by Kind
};

}  // namespace staithe::proxy::auth
