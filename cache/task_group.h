// Background coroutines that end before their owner does.
//
// A task that throws is reported once, by name, to the group's `report` function; it ends neither
// the group nor the program. Lives on the loop.
#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/cancellation_signal.hpp>
#include <functional>
#include <list>
#include <string>
#include <string_view>

#include "cache/event.h"

namespace staithe {

namespace asio = boost::asio;

class TaskGroup {
 public:
  // `report(name, sentence)` is called on the loop for a task that failed.
  using Report = std::function<void(std::string_view, std::string_view)>;

  TaskGroup(asio::any_io_executor loop, Report report);
  // The group must be empty: `co_await join()` first.
  ~TaskGroup();

  // Starts `task` on the loop; false if it was dropped unstarted because the group has been
  // cancelled.
  bool spawn(std::string name, asio::awaitable<void> task);

  // Asks every task to end (terminal cancellation); later spawns are dropped.
  void cancel();

  // Waits until every task has ended.
  asio::awaitable<void> join();

  std::size_t size() const { return running_.size(); }

 private:
  asio::any_io_executor loop_;
  Report report_;
  std::list<asio::cancellation_signal> running_;
  bool cancelled_ = false;
  Event ended_;
};

}  // namespace staithe
