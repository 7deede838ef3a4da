// Other programs that give credentials: docker's credential helpers.
//
// The interface lets tests play them. PosixPrograms runs the real ones: found in $PATH, started
// without a shell, with the secret on a pipe and never among the arguments, ended at a time limit.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <boost/asio/thread_pool.hpp>
#include <chrono>
#include <cstddef>
#include <string>
#include <vector>

#include "proxy/auth/secret.h"

namespace staithe::proxy::auth {

namespace asio = boost::asio;

struct ProgramRun {
  std::string program;  // a name without a slash
  std::vector<std::string> arguments;
  std::string input;  // not secret
  std::chrono::milliseconds limit{60'000};
  std::size_t max_output_bytes = std::size_t{64} * 1024;
};

struct ProgramResult {
  int exit_status = 0;
  Secret output;
  std::string errors;  // what it said on stderr, at most 2 KiB; not for showing as it is
};

class Programs {
 public:
  virtual ~Programs() = default;
  // Throws Failure: identity_missing if there is no such program, unreachable if it takes longer
  // than its limit (it is killed then), upstream_nonsense if it says more than its limit.
  virtual asio::awaitable<ProgramResult> run(ProgramRun run) = 0;
};

class PosixPrograms final : public Programs {
 public:
  PosixPrograms();
  ~PosixPrograms() override;
  // Ends what runs, and what is run from now on: nobody waits a minute for a helper when the daemon
  // stops. Cancelling who waits for a program does not end it.
  void stop();
  asio::awaitable<ProgramResult> run(ProgramRun run) override;

 private:
  int stop_;  // an eventfd, readable once it is time to stop
  // Its own, since a helper takes seconds of network time: nothing else should wait for it.
  asio::thread_pool pool_;
};

}  // namespace staithe::proxy::auth
