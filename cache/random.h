// Chance, handed in, so that a test can replay it from a seed.
//
// Used to spread retries and renewals over time; never for keys.
#pragma once

#include <chrono>
#include <cstdint>

namespace staithe {

class Random {
 public:
  virtual ~Random() = default;
  // Uniform over all 64-bit values.
  virtual std::uint64_t next() = 0;

  // Uniform in [0, 1).
  double unit() { return static_cast<double>(next() >> 11) * 0x1.0p-53; }
  // Uniform in [low, high); `low` if there is nothing between.
  std::chrono::nanoseconds between(std::chrono::nanoseconds low, std::chrono::nanoseconds high);
};

// The kernel's random numbers.
class SystemRandom final : public Random {
 public:
  std::uint64_t next() override;
};

// The same numbers for the same seed on every machine (splitmix64: prng.di.unimi.it).
class SeededRandom final : public Random {
 public:
  explicit SeededRandom(std::uint64_t seed) : state_(seed) {}
  std::uint64_t next() override;

 private:
  std::uint64_t state_;
};

}  // namespace staithe
