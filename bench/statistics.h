// Small figures over small samples.
#pragma once

#include <vector>

namespace staithe::bench {

// The value below which `share` (0 to 1) of the sample lies; 0 of an empty one.
template <class T>
double quantile(std::vector<T> sample, double share);

struct Summary {
  double median = 0;
  double low = 0;
  double high = 0;

  // Half the distance between the extremes, as a share of the median.
  double spread() const;
};

Summary summary_of(const std::vector<double>& runs);

}  // namespace staithe::bench
