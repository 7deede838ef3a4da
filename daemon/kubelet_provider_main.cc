// The credential provider of kubelet.
#include <signal.h>

#include <exception>
#include <iostream>

#include "cache/escape.h"
#include "daemon/kubelet_provider.h"
#include "daemon/protection.h"

int main(int argc, char** argv) {
  using namespace staithe::daemon;
  protect_process();
  signal(SIGPIPE, SIG_IGN);  // a kubelet that leaves is an error of the stream
  try {
    const Environment environment = Environment::of_process();
    return run_kubelet_provider(argc, argv, {std::cin, std::cout, std::cerr, environment});
  } catch (const std::exception& error) {
    const std::string text = "staithe: " + staithe::printable(error.what());
    std::cerr << text << "\n";
    return 1;
  }
}
