// The registry that clients see: routes, policy, and the counters of what was served.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <cstdint>
#include <string>
#include <vector>

#include "proxy/blobs.h"
#include "proxy/connection.h"
#include "proxy/fills.h"
#include "proxy/host_policy.h"
#include "proxy/manifests.h"
#include "proxy/outcome.h"
#include "proxy/registries.h"
#include "proxy/route.h"

namespace staithe::proxy {

struct Traffic {
  std::uint64_t requests = 0;
  std::uint64_t hits = 0;
  std::uint64_t misses = 0;  // brought from upstream: stored, or passed on
  std::uint64_t collapsed = 0;
  std::uint64_t stale = 0;
  std::uint64_t errors = 0;  // answered with a status of 400 or more, or cut short
  std::uint64_t bytes_served = 0;
};

class Proxy final : public Handler {
 public:
  // All references outlive the proxy.
  Proxy(asio::any_io_executor loop, Registries& registries, cache::Store& store, Fills& fills,
        TaskGroup& tasks);

  // Whose requests are taken; until this is called, none. Called once the addresses are known.
  void admit(HostPolicy policy) { policy_ = std::move(policy); }
  // What /readyz says.
  void set_ready(bool ready) { ready_ = ready; }

  asio::awaitable<void> handle(Exchange& exchange) override;
  void handled(const Exchange& exchange, std::chrono::microseconds took,
               const Error* failure) override;

  const Traffic& traffic() const { return traffic_; }

 private:
  asio::awaitable<Outcome> dispatch(Exchange& exchange, Route route);

  Registries& registries_;
  Blobs blobs_;
  Manifests manifests_;
  std::optional<HostPolicy> policy_;
  bool ready_ = false;
  Traffic traffic_;
};

}  // namespace staithe::proxy
