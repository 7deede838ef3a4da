// One after the other, in the order of asking: work that must not overlap with its like.
//
//   const auto turn = co_await turns.take();   waits until it is its turn
//
// Who comes while a turn ends goes behind those who wait, even if these have not woken yet: what is
// written in order relies on it. Lives on the loop, and outlives every turn.
#pragma once

#include <list>
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

  // Throws if it is cancelled while another has it; then it is as if it had never asked.
  asio::awaitable<Turn> take() {
    const Place place(*this);
    while (taken_ || line_.front() != &place) co_await freed_.wait();
    co_return Turn(*this);
  }

 private:
  // One that asks, for as long as it waits.
  class Place {
   public:
    explicit Place(Turns& turns)
        : turns_(turns), at_(turns.line_.insert(turns.line_.end(), this)) {}
    ~Place() { turns_.line_.erase(at_); }
    Place(const Place&) = delete;
    Place& operator=(const Place&) = delete;

   private:
    Turns& turns_;
    std::list<const Place*>::iterator at_;
  };

  bool taken_ = false;
  std::list<const Place*> line_;
  Event freed_;
};

}  // namespace staithe::cache
