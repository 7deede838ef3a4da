// How long a host lately took to answer small requests, for deciding when one more is worth it.
// The last 64, so that it follows a host within minutes of a busy node. Pure.
#pragma once

#include <algorithm>
#include <array>
#include <chrono>
#include <cstddef>
#include <optional>

namespace staithe::proxy {

class HeadTimes {
 public:
  static constexpr std::size_t remembered = 64;
  static constexpr std::size_t enough = 16;  // to say anything

  void add(std::chrono::nanoseconds took) {
    times_[count_ % remembered] = took;
    ++count_;
  }

  // What 95 of 100 did not exceed; nullopt before there are enough.
  std::optional<std::chrono::nanoseconds> p95() const {
    const std::size_t n = std::min(count_, remembered);
    if (n < enough) return std::nullopt;
    auto sorted = times_;
    const auto at = sorted.begin() + static_cast<std::ptrdiff_t>(n * 95 / 100);
    std::nth_element(sorted.begin(), at, sorted.begin() + static_cast<std::ptrdiff_t>(n));
    return *at;
  }

 private:
  std::array<std::chrono::nanoseconds, remembered> times_{};
  std::size_t count_ = 0;
};

}  // namespace staithe::proxy
