// The operators' door: HTTP/1.1 with JSON over the control socket (interface.md section 4).
//
// Never answers with a token, a secret or a signed URL, in any form, but for what credentials.h is
// there for. Lives on the loop.
#pragma once

#include <boost/json/object.hpp>
#include <chrono>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "cache/clock.h"
#include "cache/store.h"
#include "daemon/access.h"
#include "daemon/cache_control.h"
#include "daemon/credentials.h"
#include "daemon/doctor.h"
#include "daemon/explanation.h"
#include "daemon/options.h"
#include "daemon/tls_certificate.h"
#include "daemon/verification.h"
#include "daemon/warm_control.h"
#include "proxy/connection.h"
#include "proxy/fills.h"
#include "proxy/proxy.h"
#include "proxy/registries.h"
#include "proxy/server.h"

namespace staithe::daemon {

class Control final : public proxy::Handler {
 public:
  // What it tells about; all outlive it.
  struct Sources {
    const Config& config;
    const Clock& clock;
    cache::Store& store;
    const proxy::Proxy& proxy;
    proxy::Registries& registries;
    const proxy::Fills& fills;
    Access& access;
    Credentials& credentials;
    Verifier& verifier;
    WarmControl& warm;
    std::function<boost::json::object()> warm_status;  // what is warmed, and what is to be
    std::function<Faults()> reload;  // reads the configuration again; what is wrong with it
    // Of the registry's listeners.
    std::function<proxy::Server::Figures()> connections = {};
    std::function<std::optional<TlsState>()> tls = {};  // none: nothing listens with TLS
    std::function<std::string()> metrics = {};          // as Prometheus reads them
    Doctor* doctor = nullptr;                           // none: nothing answers there
  };
  explicit Control(Sources sources);

  enum class State { starting, ready, draining };
  void set_state(State state) { state_ = state; }
  void set_addresses(std::vector<std::string> addresses) { addresses_ = std::move(addresses); }

  asio::awaitable<void> handle(proxy::Exchange& exchange) override;
  void handled(const proxy::Exchange& exchange, std::chrono::microseconds took,
               const Error* failure) override;

  boost::json::object status() const;

 private:
  asio::awaitable<void> reload(proxy::Exchange& exchange);

  Sources sources_;
  CacheControl cache_;
  Explainer explainer_;
  Instant started_;
  State state_ = State::starting;
  std::vector<std::string> addresses_;
};

}  // namespace staithe::daemon
