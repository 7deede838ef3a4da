// A bounded number of things at once: the connections to one registry. Lives on the loop.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <cstddef>
#include <memory>
#include <utility>

#include "cache/event.h"

namespace staithe::proxy {

class Slots {
  struct State {
    State(asio::any_io_executor loop, std::size_t count) : free(count), changed(std::move(loop)) {}
    std::size_t free;
    Event changed;
  };

 public:
  Slots(asio::any_io_executor loop, std::size_t count)
      : state_(std::make_shared<State>(std::move(loop), count)) {}

  // One of the slots; free again when it goes. It may outlive the Slots.
  class Slot {
   public:
    Slot(Slot&& other) noexcept = default;
    Slot& operator=(Slot&&) = delete;
    ~Slot() {
      if (!state_) return;
      ++state_->free;
      state_->changed.notify_all();
    }

   private:
    friend class Slots;
    explicit Slot(std::shared_ptr<State> state) : state_(std::move(state)) { --state_->free; }
    std::shared_ptr<State> state_;
  };

  std::size_t free() const { return state_->free; }

  // Waits for a free one; each holder has deadlines of its own, so this ends.
  asio::awaitable<Slot> acquire() {
    const auto state = state_;
    while (state->free == 0) co_await state->changed.wait();
    co_return Slot(state);
  }

 private:
  std::shared_ptr<State> state_;
};

}  // namespace staithe::proxy
