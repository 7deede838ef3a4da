// What `staithe setup` has to know of staithed: from the running daemon, or from its configuration.
#pragma once

#include <boost/json/value.hpp>
#include <expected>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "daemon/control_client.h"
#include "daemon/environment.h"
#include "daemon/options.h"
#include "daemon/setup.h"

namespace staithe::daemon {

struct FoundService {
  Served service;
  bool is_running = false;
  std::vector<std::string> images;  // in the cache, by name: what a self-test may ask for
};

// Pure: from the answers of GET /v1/config, /v1/status and /v1/images. An error if clients cannot
// reach it: it has no TCP listener.
Result<FoundService> service_of(const boost::json::value& config, const boost::json::value& status,
                                const boost::json::value& images);
// Pure: from a configuration alone.
Result<FoundService> service_of(const Config& config);

// Asks the daemon at `socket`.
std::expected<FoundService, ControlError> ask_service(const std::filesystem::path& socket);

// Only these hosts, each of which the service has to serve.
Result<Served> only(const Served& service, const std::vector<std::string>& hosts);

}  // namespace staithe::daemon
