// The surroundings of a test of credentials, driven by hand, and the calls it makes.
#pragma once

#include <gtest/gtest.h>

#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/cancellation_signal.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/system/system_error.hpp>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "proxy/auth/identities.h"
#include "tests/fake/surroundings.h"

namespace staithe::proxy::auth {

// One coroutine that a test has started.
struct CallerBase {
  virtual ~CallerBase() = default;
  // Its client has gone.
  void leave() { signal.emit(asio::cancellation_type::terminal); }
  asio::cancellation_signal signal;
};

template <class T>
struct Caller : CallerBase {
  std::optional<Result<T>> outcome;
  bool left = false;  // ended by leave()

  bool done() const { return outcome.has_value() || left; }
  const T& value() const {
    if (!outcome) throw std::logic_error("the call has not returned");
    if (!*outcome) throw Failure(outcome->error());
    return **outcome;
  }
  const Error& error() const {
    if (!outcome || *outcome) throw std::logic_error("the call has not failed");
    return outcome->error();
  }
};

class World : public fake::Surroundings {
 public:
  explicit World(std::uint64_t seed = 1)
      : Surroundings(seed, [this](std::string_view name, std::string_view why) {
          reports.push_back(std::string(name) + ": " + std::string(why));
        }) {}
  ~World() {
    tasks.cancel();
    for (const auto& caller : callers_) caller->leave();
    clock.settle();
    EXPECT_EQ(tasks.size(), 0U) << "a task did not end when it was cancelled";
  }

  // Starts the call and runs until nothing is ready; time stands still.
  template <class T>
  std::shared_ptr<Caller<T>> call(asio::awaitable<T> call) {
    const std::shared_ptr<Caller<T>> caller = begin(std::move(call));
    clock.settle();
    return caller;
  }
  // Starts it only: it runs with the next settle() or advance().
  template <class T>
  std::shared_ptr<Caller<T>> begin(asio::awaitable<T> call) {
    auto caller = std::make_shared<Caller<T>>();
    callers_.push_back(caller);
    asio::co_spawn(io, capture(std::move(call), caller),
                   asio::bind_cancellation_slot(caller->signal.slot(), [](std::exception_ptr) {}));
    return caller;
  }
  // The outcome of a call that needs no time.
  template <class T>
  Result<T> now(asio::awaitable<T> awaitable) {
    const auto caller = call(std::move(awaitable));
    if (!caller->outcome) {
      ADD_FAILURE() << "the call waits";
      return fail(Errc::cancelled, "the call waits");
    }
    return std::move(*caller->outcome);
  }

  std::vector<std::string> reports;  // of the task group: what failed in the background

 private:
  template <class T>
  static asio::awaitable<void> capture(asio::awaitable<T> call, std::shared_ptr<Caller<T>> caller) {
    try {
      caller->outcome.emplace(co_await std::move(call));
    } catch (const Failure& failure) {
      caller->outcome.emplace(std::unexpected(failure.error()));
    } catch (const boost::system::system_error& error) {
      caller->left = true;
      EXPECT_EQ(error.code(), asio::error::operation_aborted);
    }
  }

  // Kept to the end, because a signal must outlive what was posted when it was emitted.
  std::vector<std::shared_ptr<CallerBase>> callers_;
};

// A registry whose name is its host.
inline Place at(Origin upstream, std::string ca_file = {}) {
  std::string name = upstream.host;
  return {.name = std::move(name),
          .upstream = std::move(upstream),
          .ca_file = std::move(ca_file),
          .token_hosts = {}};
}

}  // namespace staithe::proxy::auth
