#include "cache/task_group.h"

#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/system/system_error.hpp>
#include <cassert>
#include <exception>

namespace staithe {

TaskGroup::TaskGroup(asio::any_io_executor loop, Report report)
    : loop_(loop), report_(std::move(report)), ended_(loop) {}

TaskGroup::~TaskGroup() { assert(running_.empty()); }

bool TaskGroup::spawn(std::string name, asio::awaitable<void> task) {
  if (cancelled_) return false;
  auto signal = running_.emplace(running_.end());
  asio::co_spawn(
      loop_, std::move(task),
      asio::bind_cancellation_slot(
          signal->slot(), [this, signal, name = std::move(name)](std::exception_ptr error) {
            running_.erase(signal);
            if (error && !cancelled_) {
              try {
                std::rethrow_exception(error);
              } catch (const std::exception& e) {
                report_(name, e.what());
              }
            }
            ended_.notify_all();
          }));
  return true;
}

void TaskGroup::cancel() {
  cancelled_ = true;
  // A task may end, and leave the list, while its own signal is emitted; so emit from the loop,
  // one at a time, over positions that stay valid.
  for (auto it = running_.begin(); it != running_.end();) {
    auto current = it++;
    current->emit(asio::cancellation_type::terminal);
  }
}

asio::awaitable<void> TaskGroup::join() {
  while (!running_.empty()) {
    co_await ended_.wait();
  }
}

}  // namespace staithe
