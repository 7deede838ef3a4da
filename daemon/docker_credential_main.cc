// The credential helper of docker, podman and Nomad.
#include <signal.h>

#include <exception>
#include <iostream>

#include "cache/escape.h"
#include "daemon/docker_credential.h"
#include "daemon/protection.h"

int main(int argc, char** argv) {
  using namespace staithe::daemon;
  protect_process();
  signal(SIGPIPE, SIG_IGN);  // a client that leaves is an error of the stream
  try {
    const Environment environment = Environment::of_process();
    return run_docker_credential(argc, argv, {std::cin, std::cout, std::cerr, environment});
  } catch (const std::exception& error) {
    const std::string text = "staithe: " + staithe::printable(error.what());
    std::cout << text << "\n" << std::flush;
    std::cerr << text << "\n";
    return 1;
  }
}
