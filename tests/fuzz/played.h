// The surroundings of credentials for a fuzz target, without a test around them.
#pragma once

#include <boost/asio/co_spawn.hpp>
#include <exception>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "cache/log.h"
#include "proxy/auth/source.h"
#include "tests/fake/surroundings.h"
#include "tests/fuzz/fuzz.h"

namespace staithe::fuzz {

class Played : public fake::Surroundings {
 public:
  Played() : Surroundings(1, [](std::string_view, std::string_view) {}) {
    log::set_level(log::Level::error);  // What it says of failures is not looked at here.
  }
  ~Played() {
    tasks.cancel();
    clock.settle();
    check(tasks.size() == 0);
  }

  // What comes of it, however long it takes.
  template <class T>
  Result<T> run(asio::awaitable<T> call) {
    std::optional<Result<T>> outcome;
    asio::co_spawn(io, capture(std::move(call), outcome), [](std::exception_ptr error) {
      check(!error);  // Nothing but a Failure is thrown.
    });
    clock.settle();
    for (int wakes = 0; !outcome; ++wakes) {
      check(wakes < 1000);
      check(clock.advance_to_next());
    }
    return std::move(*outcome);
  }

 private:
  template <class T>
  static asio::awaitable<void> capture(asio::awaitable<T> call, std::optional<Result<T>>& outcome) {
    try {
      outcome.emplace(co_await std::move(call));
    } catch (const Failure& failure) {
      outcome.emplace(std::unexpected(failure.error()));
    }
  }
};

// Gives what `make` makes.
template <class T>
class MadeBy final : public proxy::auth::Source<T> {
 public:
  explicit MadeBy(std::function<T()> make) : make_(std::move(make)) {}
  asio::awaitable<T> fetch() override { co_return make_(); }

 private:
  std::function<T()> make_;
};

}  // namespace staithe::fuzz
