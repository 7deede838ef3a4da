// Warns ahead of the end of what only a person can renew: certificates, client secrets, tokens from
// a file or a sign-in.
//
// Once a minute it looks at the endings of all registries in use. Each that is near is logged as a
// warning, again every day, and every ten minutes on its last day; one that has passed, as an
// error. A sign-in that has ended is dropped, so that the registry's configured identity serves
// again. Lives on the loop.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <map>
#include <string>

#include "cache/clock.h"
#include "proxy/auth/authorizer.h"
#include "proxy/auth/identities.h"
#include "proxy/registries.h"

namespace staithe::daemon {

namespace asio = boost::asio;

class EndingWatch {
 public:
  // All outlive it.
  // `own`: those of the daemon itself, of no registry.
  EndingWatch(Clock& clock, proxy::Registries& registries, proxy::auth::Identities& identities,
              proxy::auth::Endings own = {})
      : clock_(clock), registries_(registries), identities_(identities), own_(std::move(own)) {}

  asio::awaitable<void> run();
  // One look; what run() does each minute.
  void look();

 private:
  void warn(const std::string& registry, const proxy::auth::Ending& ending);

  Clock& clock_;
  proxy::Registries& registries_;
  proxy::auth::Identities& identities_;
  proxy::auth::Endings own_;
  std::map<std::string, Instant> warned_;  // by what is warned of
};

// How long after a warning the next one comes.
std::chrono::nanoseconds warning_interval(std::chrono::seconds expires_in);

}  // namespace staithe::daemon
