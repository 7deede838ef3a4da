// One after the other: work that must not overlap with its like.
//
//   const auto turn = co_await turns.take();   waits until nobody has it
//
// Lives on the loop, and outlives every turn.
#pragma once

#include <utility>

#include "cache/event.h"

namespace staithe::cache {

class Turns {
 public:
  explicit Turns(asio::any_io_executor loop) : freed_(std::move(loop)) {}

  class Turn {
   public:
    explicit Turn(Turns& turns) : turns_(&turns) { turns_->taken_ = true; }
    Turn(Turn&& other) noexcept : turns_(std::exchange(other.turns_, nullptr)) {}
    Turn& operator=(Turn&&) = delete;
    ~Turn() {
      if (!turns_) return;
      turns_->taken_ = false;
      turns_->freed_.notify_all();
    }

   private:
    Turns* turns_;
  };

  asio::awaitable<Turn> take() {
    while (taken_) co_await freed_.wait();
    co_return Turn(*this);
  }

 private:
  bool taken_ = false;
  Event freed_;
};

}  // namespace staithe::cache
