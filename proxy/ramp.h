// How many requests at once a host gets after it was left alone: one, and one more for each answer,
// so that the number doubles with every round trip instead of all coming back in one instant.
//
// Counts requests whose head has not come yet; a transfer counts no longer once it flows. Those
// that were under way before begin() do not count: they may hang on a host that was gone. Pure.
#pragma once

#include <cstddef>
#include <cstdint>

namespace staithe::proxy {

class Ramp {
 public:
  // From here on there is no bound (Upstream has one of its own, on connections).
  static constexpr std::size_t enough = 32;

  // One at a time from now on.
  void begin() {
    ++epoch_;
    allowed_ = 1;
    under_way_ = 0;
  }

  bool is_over() const { return allowed_ >= enough; }
  bool has_room() const { return is_over() || under_way_ < allowed_; }
  std::size_t allowed() const { return allowed_; }

  // A request goes out. What it returns is given back at its end.
  std::uint64_t enter() {
    ++under_way_;
    return epoch_;
  }
  void leave(std::uint64_t epoch) {
    if (epoch == epoch_) --under_way_;
  }
  // It was answered.
  void note_answer(std::uint64_t epoch) {
    if (epoch == epoch_ && !is_over()) ++allowed_;
  }

 private:
  std::uint64_t epoch_ = 0;
  std::size_t allowed_ = enough;
  std::size_t under_way_ = 0;
};

}  // namespace staithe::proxy
