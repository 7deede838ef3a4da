// "Something changed": wakes every coroutine that waits, on the loop.
//
// Waiters re-check their own condition after waking, as with a condition variable. A cancelled
// waiter looks woken; it throws at its next co_await.
#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>

namespace staithe {

namespace asio = boost::asio;

class Event {
 public:
  explicit Event(asio::any_io_executor loop)
      : timer_(std::move(loop), asio::steady_timer::time_point::max()) {}

  asio::awaitable<void> wait() { co_await timer_.async_wait(asio::as_tuple(asio::use_awaitable)); }
  void notify_all() { timer_.cancel(); }

 private:
  asio::steady_timer timer_;  // never expires
};

}  // namespace staithe
