// The certificate of the TLS listener, as the log, the status and `staithe doctor` tell of it.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <boost/json/value.hpp>
#include <chrono>
#include <filesystem>
#include <optional>
#include <string>

#include "cache/clock.h"
#include "cache/error.h"
#include "daemon/doctor_step.h"
#include "proxy/auth/authorizer.h"
#include "proxy/auth/files.h"
#include "proxy/tls_gate.h"

namespace staithe::daemon {

// So long before its end people are told. setup makes another one earlier, when it is asked.
inline constexpr std::chrono::days tls_certificate_warning{30};

// How a TLS listener fares.
struct TlsState {
  std::string file;                   // listen.tls_file
  std::chrono::seconds expires_in{};  // of the certificate that is served; negative: since then
  std::string fault = {};             // why the file was not taken over when it was last read
  proxy::TlsGate::Figures figures = {};
};

proxy::auth::Ending ending_of(const TlsState& state);

// "tls" of GET /v1/status; null where nothing listens with TLS. Pure.
boost::json::value tls_status(const std::optional<TlsState>& state);

// Reads listen.tls_file. Throws Failure(config) that names the key; see FileRules::is_private.
asio::awaitable<proxy::TlsContextPtr> read_tls_file(proxy::auth::Files& files,
                                                    std::filesystem::path file,
                                                    bool is_private = true);

// What a diagnosis says of that file, as reading it now came out. `served`: what connections are
// shown; null where no daemon runs. Pure.
DoctorStep tls_step(const std::filesystem::path& file, const Result<proxy::TlsContextPtr>& found,
                    const proxy::TlsContextPtr& served, WallTime now);

// Both in one. Throws nothing but what cancels it.
asio::awaitable<DoctorStep> examine_tls_file(proxy::auth::Files& files, std::filesystem::path file,
                                             bool is_private, proxy::TlsContextPtr served,
                                             WallTime now);

}  // namespace staithe::daemon
