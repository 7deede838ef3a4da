// The operator's command.
#include <signal.h>

#include <exception>
#include <iostream>

#include "cache/escape.h"
#include "daemon/cli.h"
#include "daemon/options.h"
#include "daemon/protection.h"

int main(int argc, char** argv) {
  using namespace staithe::daemon;
  protect_process();         // `token` and `login` hold secrets
  signal(SIGPIPE, SIG_IGN);  // a reader that leaves (head, less) is an error of the stream
  try {
    const Environment environment = Environment::of_process();
    return run_cli(argc, argv, {std::cout, std::cerr, environment, Terminal::of_stdout()});
  } catch (const std::exception& error) {
    std::cerr << "staithe: " << staithe::printable(error.what()) << "\n";
    return kExitFailed;
  }
}
