#include "cache/random.h"

#include <sys/random.h>

#include <cassert>

namespace staithe {

std::chrono::nanoseconds Random::between(std::chrono::nanoseconds low,
                                         std::chrono::nanoseconds high) {
  if (high <= low) return low;
  return low + std::chrono::nanoseconds(static_cast<std::chrono::nanoseconds::rep>(
                   unit() * static_cast<double>((high - low).count())));
}

std::uint64_t SystemRandom::next() {
  std::uint64_t number = 0;
  // Up to 256 bytes arrive whole and uninterrupted once the kernel is seeded (getrandom(2)).
  const ssize_t got = ::getrandom(&number, sizeof number, 0);
  assert(got == sizeof number);
  (void)got;
  return number;
}

std::uint64_t SeededRandom::next() {
  std::uint64_t z = (state_ += 0x9e3779b97f4a7c15);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
  z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
  return z ^ (z >> 31);
}

}  // namespace staithe
