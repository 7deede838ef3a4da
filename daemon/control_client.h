// Asks the daemon over its control socket: blocking HTTP/1.1 over a Unix socket, one request per
// connection, every wait bounded.
#pragma once

#include <boost/json/value.hpp>
#include <chrono>
#include <cstddef>
#include <expected>
#include <filesystem>
#include <functional>
#include <string>
#include <string_view>

namespace staithe::daemon {

inline constexpr std::size_t kMaxControlAnswerBytes = 16 << 20;
inline constexpr std::size_t kMaxControlPostAnswerBytes = 1 << 20;

struct ControlError {
  // Nobody answers there, or not as the daemon does; else the daemon answered with a failure.
  bool unreachable;
  std::string message;  // a sentence with its remedy, printable
  int status = 0;       // of HTTP, if the daemon answered
  std::string code{};   // of the OCI error, "NOT_MANAGED"; may be empty
};

// GET `target` ("/v1/status"); the whole exchange takes at most `timeout`.
std::expected<boost::json::value, ControlError> control_get(
    const std::filesystem::path& socket, std::string_view target,
    std::chrono::milliseconds timeout = std::chrono::seconds(10),
    std::size_t most_bytes = kMaxControlAnswerBytes);

// Credentials wait for identity services and registries. kubelet gives its provider 60 seconds.
inline constexpr std::chrono::seconds kCredentialPatience{45};

// POST `body`, serialized JSON, to `target`. Both the body and what was received may hold a secret:
// they are wiped, and the value's own memory is wiped when it goes. The root is an object.
std::expected<boost::json::value, ControlError> control_post(
    const std::filesystem::path& socket, std::string_view target, std::string body,
    std::chrono::milliseconds timeout = kCredentialPatience);

// POST `body` to `target`, which answers with lines of JSON as long as it takes: `on_line` gets
// each of them. At most `patience` between two parts of the answer. Returns when it has ended,
// whole.
std::expected<void, ControlError> control_stream(
    const std::filesystem::path& socket, std::string_view target, std::string_view body,
    const std::function<void(const boost::json::value&)>& on_line,
    std::chrono::milliseconds patience = std::chrono::seconds(60));

}  // namespace staithe::daemon
