// Which loop sends a file: the one that sends the fewest at the moment.
//
// Used from the main loop alone, where every sending begins and ends.
#pragma once

#include <cstddef>
#include <vector>

#include "proxy/loops.h"

namespace staithe::proxy {

class Senders {
 public:
  // `loops` outlive it.
  explicit Senders(Loops& loops) : loops_(loops), jobs_(loops.size()) {}
  // Nothing is being sent any more.
  ~Senders();
  Senders(const Senders&) = delete;
  Senders& operator=(const Senders&) = delete;

  // A place on a loop, for as long as something is sent there.
  class Place {
   public:
    explicit Place(Senders& senders) : senders_(senders), at_(senders.enter()) {}
    ~Place() { --senders_.jobs_[at_]; }
    Place(const Place&) = delete;
    Place& operator=(const Place&) = delete;

    asio::io_context& loop() const { return senders_.loops_.at(at_); }

   private:
    Senders& senders_;
    std::size_t at_;
  };

  std::size_t jobs() const;

 private:
  std::size_t enter();

  Loops& loops_;
  std::vector<std::size_t> jobs_;  // by loop
  std::size_t last_ = 0;           // of those that have as few, the next has its turn
};

}  // namespace staithe::proxy
