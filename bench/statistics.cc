#include "bench/statistics.h"

#include <algorithm>

namespace staithe::bench {

template <class T>
double quantile(std::vector<T> sample, double share) {
  if (sample.empty()) return 0;
  const auto at = sample.begin() +
                  static_cast<std::ptrdiff_t>(share * static_cast<double>(sample.size() - 1) + 0.5);
  std::nth_element(sample.begin(), at, sample.end());
  return static_cast<double>(*at);
}

template double quantile(std::vector<float>, double);
template double quantile(std::vector<double>, double);

double Summary::spread() const { return median == 0 ? 0 : (high - low) / 2 / median; }

Summary summary_of(const std::vector<double>& runs) {
  if (runs.empty()) return {};
  const auto [low, high] = std::ranges::minmax(runs);
  return {.median = quantile(runs, 0.5), .low = low, .high = high};
}

}  // namespace staithe::bench
