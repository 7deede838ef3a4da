// How much of what a test tries many times it tries: STAITHE_EFFORT percent, and all if it says
// nothing. A played history of one thread takes ten times as long under a sanitizer, and that
// others with other seeds are clean too tells it little.
#pragma once

#include <algorithm>
#include <cstdlib>

namespace staithe::fake {

// That share of `all`, at least one.
inline int effort(int all) {
  const char* percent = std::getenv("STAITHE_EFFORT");
  return percent ? std::max(1, all * std::clamp(std::atoi(percent), 1, 100) / 100) : all;
}

}  // namespace staithe::fake
