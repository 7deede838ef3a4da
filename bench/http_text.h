// What the clients of the benchmarks share: a connection, and the head of an answer.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include "cache/disk.h"

namespace staithe::bench {

// A connected socket, without Nagle's delay. Throws Failure.
cache::File connect_to(std::uint16_t port);

// The value of a field in a head (each line with its CRLF), empty if it is not there.
std::string_view value_of(std::string_view head, std::string_view name);

// Content-Length, if it is there and a number.
std::optional<std::uint64_t> length_in(std::string_view head);

}  // namespace staithe::bench
