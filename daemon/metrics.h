// All figures of the daemon as Prometheus' text: GET /metrics.
//
// Lives on the loop. Reading costs the front nothing: its threads' counters are read, not stopped.
#pragma once

#include <functional>
#include <optional>
#include <string>

#include "cache/clock.h"
#include "cache/store.h"
#include "daemon/access.h"
#include "daemon/tls_certificate.h"
#include "proxy/fills.h"
#include "proxy/proxy.h"
#include "proxy/registries.h"
#include "proxy/server.h"
#include "proxy/upstream_meter.h"

namespace staithe::daemon {

// What it tells about; all outlive it.
struct MetricSources {
  const cache::Store& store;
  const proxy::Proxy& proxy;
  const proxy::Registries& registries;
  const proxy::Fills& fills;
  const proxy::UpstreamMeters& upstreams;
  const Access& access;
  // Of the registry's listeners.
  std::function<proxy::Server::Figures()> connections = {};
  std::function<std::optional<TlsState>()> tls = {};  // none: nothing listens with TLS
  WallTime started = {};
};

std::string metrics_text(const MetricSources& sources);

}  // namespace staithe::daemon
