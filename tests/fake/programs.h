// Other programs, played by a test: one function answers all runs; they are remembered.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "cache/error.h"
#include "proxy/auth/programs.h"

namespace staithe::fake {

class FakePrograms final : public proxy::auth::Programs {
 public:
  struct Said {
    int exit_status = 0;
    std::string output;
  };
  std::function<Said(const proxy::auth::ProgramRun&)> play =
      [](const proxy::auth::ProgramRun& run) -> Said {
    throw Failure(Errc::identity_missing, "the program " + run.program + " cannot be started");
  };
  std::vector<proxy::auth::ProgramRun> runs;

  asio::awaitable<proxy::auth::ProgramResult> run(proxy::auth::ProgramRun run) override {
    runs.push_back(run);
    const Said said = play(run);
    proxy::auth::ProgramResult result;
    result.exit_status = said.exit_status;
    result.output = proxy::auth::Secret(said.output);
    co_return result;
  }
};

}  // namespace staithe::fake
