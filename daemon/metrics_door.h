// What listen.metrics serves: GET and HEAD of /metrics, /healthz and /readyz, and the status page
// where the configuration wants it. Nothing of the control socket: whoever reaches a port of this
// machine may look at these and can do nothing. Lives on the loop.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "daemon/metrics.h"
#include "proxy/admission.h"
#include "proxy/connection.h"
#include "proxy/host_policy.h"

namespace staithe::daemon {

// A document that stands beside the metrics.
struct Page {
  std::string content_type;
  std::string body;
};

class MetricsDoor final : public proxy::Handler {
 public:
  struct Sources {
    MetricSources metrics;
    std::function<bool()> is_ready;
    // The status page and what belongs to it, by the target asked for; nothing for all other
    // targets. Empty: there is none (listen.status_page = false).
    std::function<std::optional<Page>(std::string_view target)> page = {};
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
