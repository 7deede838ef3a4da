// Loops beside the main one, each with a thread of its own: what scales with the cores of the
// machine and needs nothing of the state that lives on the main loop runs on them.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <cstddef>
#include <deque>
#include <thread>

namespace staithe::proxy {

namespace asio = boost::asio;

class Loops {
 public:
  // As many as the machine has cores that this process may run on, but no more than `most`.
  static std::size_t for_this_machine(std::size_t most = 8);
  // Half of them, rounded up: for work whose clients run on this machine too and need a core each.
  // With two cores, 64 clients and small objects one thread answers 100,000 requests a second, and
  // two, which take turns with the clients, 70,000 (./dev bench hit --filter manifest).
  static std::size_t beside_clients() { return (for_this_machine() + 1) / 2; }

  // Threads inherit the signal mask of the caller. `count` > 0.
  explicit Loops(std::size_t count);
  // Waits until everything on them has ended by itself; nothing new may come.
  ~Loops();
  Loops(const Loops&) = delete;
  Loops& operator=(const Loops&) = delete;

  std::size_t size() const { return loops_.size(); }
  asio::io_context& at(std::size_t i) { return loops_[i].context; }

  // Returns, on the caller's loop, when every one of them has come round since.
  asio::awaitable<void> come_round();

 private:
  struct Loop {
    asio::io_context context{1};
    asio::executor_work_guard<asio::io_context::executor_type> work{context.get_executor()};
    std::thread thread;
  };
  std::deque<Loop> loops_;
};

}  // namespace staithe::proxy
