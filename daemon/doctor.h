// The control socket's POST /v1/doctor: what stands between a pull and its image is tried now.
//
// The request is {"target":"contoso.azurecr.io/app:1"}, a registry or an image; without a target
// the registries that are in use are walked. The answer is lines of JSON as doctor_step.h has
// them, one for each step as it ends, then facts for whoever looks at the rest of the machine, and
// a sum:
//
//   {"kind":"facts","version":"0.1.0","listen":["127.0.0.1:5050"],
//    "registries":["contoso.azurecr.io"]}
//
// Steps: configuration (the file as it is now), those of doctor_walk.h for each registry, tls,
// disk. One runs at a time, since it asks for tokens beside those that are kept. Right::credential,
// as for a renewal. Lives on the loop.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "cache/store.h"
#include "daemon/access.h"
#include "daemon/doctor_walk.h"
#include "daemon/options.h"
#include "proxy/connection.h"

namespace staithe::daemon {

// What a doctor is asked for: nothing, a registry, or an image.
struct DoctorOrder {
  std::string registry = {};
  std::string repository = {};  // empty: one that is cached
  std::string reference = {};
};

// Pure. A name without a slash is a registry if it is configured as one or has a dot before any
// colon, as no image without a registry has. Errc::bad_request, name_invalid.
Result<DoctorOrder> parse_doctor_order(std::string_view body,
                                       const std::vector<proxy::RegistrySettings>& configured);

class Doctor {
 public:
  static constexpr std::size_t most_registries = 16;

  // Everything named here outlives it.
  struct Sources {
    DoctorWalk::Sources walk;
    Access& access;
    std::function<Faults()> check_configuration;  // reads the file again, and takes nothing over
    std::function<std::vector<std::string>()> addresses;  // of the registry's listeners
    // Of the TLS listener's certificate; nothing where there is none.
    std::function<asio::awaitable<std::optional<DoctorStep>>()> examine_tls = {};
  };
  explicit Doctor(Sources sources) : sources_(std::move(sources)), walk_(sources_.walk) {}

  static bool answers(std::string_view path) { return path == "/v1/doctor"; }
  // Answers. Throws nothing but what the connection handles.
  asio::awaitable<void> handle(proxy::Exchange& exchange);

  // A diagnosis that is under way ends soon, and no other begins.
  void stop() { walk_.stop(); }

 private:
  asio::awaitable<void> examine(proxy::Exchange& exchange, DoctorOrder order);
  asio::awaitable<std::vector<std::string>> registries_in_use();

  Sources sources_;
  DoctorWalk walk_;
  bool running_ = false;
};

}  // namespace staithe::daemon
