// Runs blocking work on a pool and comes back to the loop.
//
// The awaiting coroutine waits for the work even when it is cancelled, so `fn` may refer to what
// lives in the coroutine. No cancellation ever reaches the pool (in Boost 1.81 that is a data
// race). A hop costs about 30 us (style.md), so offload steps of a megabyte, not of a page.
// Pools are joined before the loop dies.
#pragma once

#include <boost/asio/associated_executor.hpp>
#include <boost/asio/async_result.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/thread_pool.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <exception>
#include <optional>
#include <type_traits>
#include <utility>

namespace staithe {

namespace asio = boost::asio;

namespace detail {

// Where the pool leaves what `fn` gave; lives in the awaiting coroutine.
template <class R>
struct Outcome {
  template <class F>
  void run(F& fn) noexcept {
    try {
      value.emplace(fn());
    } catch (...) {
      error = std::current_exception();
    }
  }
  R get() {
    if (error) std::rethrow_exception(error);
    return std::move(*value);
  }
  std::optional<R> value;
  std::exception_ptr error;
};

template <>
struct Outcome<void> {
  template <class F>
  void run(F& fn) noexcept {
    try {
      fn();
    } catch (...) {
      error = std::current_exception();
    }
  }
  void get() {
    if (error) std::rethrow_exception(error);
  }
  std::exception_ptr error;
};

}  // namespace detail

// Returns what `fn()` returns, or throws what it throws, on the caller's executor.
template <class F>
asio::awaitable<std::invoke_result_t<F&>> offload(asio::thread_pool& pool, F fn) {
  detail::Outcome<std::invoke_result_t<F&>> outcome;
  co_await asio::async_initiate<const asio::use_awaitable_t<>, void()>(
      [&](auto handler) {
        auto work = asio::make_work_guard(asio::get_associated_executor(handler));
        asio::post(pool,
                   [&outcome, &fn, work = std::move(work), handler = std::move(handler)]() mutable {
                     outcome.run(fn);
                     asio::post(work.get_executor(), std::move(handler));
                   });
      },
      asio::use_awaitable);
  co_return outcome.get();
}

}  // namespace staithe
