// The surroundings of credentials: a loop, clocks, a network, files, programs and chance, all
// played, for a test (tests/proxy/auth/world.h) or a fuzz target (tests/fuzz/played.h).
#pragma once

#include <boost/asio/io_context.hpp>
#include <cstdint>
#include <utility>

#include "cache/random.h"
#include "cache/task_group.h"
#include "proxy/auth/environment.h"
#include "tests/fake/clock.h"
#include "tests/fake/files.h"
#include "tests/fake/http.h"
#include "tests/fake/programs.h"

namespace staithe::fake {

struct Surroundings {
  Surroundings(std::uint64_t seed, TaskGroup::Report report)
      : clock(io), http(clock), random(seed), tasks(io.get_executor(), std::move(report)) {}
  Surroundings(const Surroundings&) = delete;
  Surroundings& operator=(const Surroundings&) = delete;

  proxy::auth::Environment environment() {
    return {.http = http,
            .clock = clock,
            .tasks = tasks,
            .random = random,
            .files = files,
            .programs = programs,
            .limits = {}};
  }

  asio::io_context io;
  ManualClock clock;
  FakeHttpClient http;
  SeededRandom random;
  FakeFiles files;
  FakePrograms programs;
  TaskGroup tasks;

 protected:
  ~Surroundings() = default;
};

}  // namespace staithe::fake
