// Asks the daemon over its control socket: blocking HTTP/1.1 over a Unix socket, one request per
// connection, every wait bounded.
#pragma once

#include <boost/json/value.hpp>
#include <chrono>
#include <cstddef>
#include <expected>
#include <filesystem>
#include <string>
#include <string_view>

namespace staithe::daemon {

inline constexpr std::size_t kMaxControlAnswerBytes = 16 << 20;

struct ControlError {
  // Nobody answers there, or not as the daemon does; else the daemon answered with a failure.
  bool unreachable;
  std::string message;  // a sentence with its remedy, printable
};

// GET `target` ("/v1/status"); the whole exchange takes at most `timeout`.
std::expected<boost::json::value, ControlError> control_get(
    const std::filesystem::path& socket, std::string_view target,
    std::chrono::milliseconds timeout = std::chrono::seconds(10));

}  // namespace staithe::daemon
