// What listen.metrics serves: GET and HEAD of /metrics, /healthz and /readyz, and the status page
// where the configuration wants it. Nothing of the control socket: whoever reaches a port of this
// machine may look at these and can do nothing. Lives on the loop.
#pragma once

#include <boost/json/value.hpp>
#include <functional>
#include <optional>

#include "cache/clock.h"
#include "daemon/metrics.h"
#include "proxy/admission.h"
#include "proxy/connection.h"
#include "proxy/host_policy.h"

namespace staithe::daemon {

class MetricsDoor final : public proxy::Handler {
 public:
  struct Sources {
    MetricSources metrics;
    std::function<bool()> is_ready;
    const Clock& clock;
    // What the status page shows. Empty: there is no page (listen.status_page = false).
    std::function<boost::json::value()> status = {};
  };
  explicit MetricsDoor(Sources sources) : sources_(std::move(sources)) {}

  // Whose requests are taken (DNS rebinding, threat T4): by the Host that they name. Before this
  // is called, none.
  void admit(proxy::HostPolicy policy) { hosts_.emplace(std::move(policy)); }

  asio::awaitable<void> handle(proxy::Exchange& exchange) override;
  void handled(const proxy::Exchange& exchange, std::chrono::microseconds took,
               const Error* failure) override;

 private:
  Sources sources_;
  std::optional<proxy::HostPolicy> hosts_;
};

}  // namespace staithe::daemon
