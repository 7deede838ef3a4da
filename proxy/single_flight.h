// Many callers, one run: whoever asks for a key that is being worked on waits for that work and
// gets its value or its error. The work belongs to no caller, so a caller that leaves ends nothing.
// Lives on the loop.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <utility>

#include "cache/error.h"
#include "cache/event.h"
#include "cache/task_group.h"

namespace staithe::proxy {

template <class Value>
class SingleFlight {
 public:
  SingleFlight(asio::any_io_executor loop, TaskGroup& tasks) : loop_(loop), tasks_(tasks) {}

  // Runs `work` unless `key` is being worked on; then `work` is dropped unstarted.
  asio::awaitable<Value> run(std::string key, asio::awaitable<Value> work) {
    std::shared_ptr<Flight> flight;
    if (const auto it = flights_.find(key); it != flights_.end()) {
      flight = it->second;
    } else {
      flight = std::make_shared<Flight>(loop_);
      flights_.emplace(key, flight);
      if (!tasks_.spawn("flight", fly(flight, key, std::move(work)))) {
        flights_.erase(key);
        throw Failure(Errc::cancelled, "the daemon is stopping");
      }
    }
    while (!flight->value && !flight->error) co_await flight->done.wait();
    if (flight->error) throw Failure(*flight->error);
    co_return *flight->value;
  }

 private:
  struct Flight {
    explicit Flight(asio::any_io_executor loop) : done(std::move(loop)) {}
    std::optional<Value> value;
    std::optional<Error> error;
    Event done;
  };

  asio::awaitable<void> fly(std::shared_ptr<Flight> flight, std::string key,
                            asio::awaitable<Value> work) {
    try {
      flight->value = co_await std::move(work);
    } catch (const Failure& failure) {
      flight->error = failure.error();
    } catch (...) {
      flight->error = Error{Errc::cancelled, "the daemon is stopping"};
    }
    flights_.erase(key);
    flight->done.notify_all();
  }

  asio::any_io_executor loop_;
  TaskGroup& tasks_;
  std::unordered_map<std::string, std::shared_ptr<Flight>> flights_;
};

}  // namespace staithe::proxy
