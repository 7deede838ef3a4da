// A cold pull's client: takes a list of things once, some at a time, and looks at the clock.
//
// As a load (load.h) it lets bodies go in the kernel, so that it costs little beside the servers on
// a machine of few cores, and throws a Failure for an answer that is none. One thread, not bound
// to a processor.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace staithe::bench {

struct Part {
  std::string target;
  std::uint64_t size_bytes = 0;  // of the whole object
  // With a range: from here so many bytes. If `open_ended`, the request names no end and the
  // connection is reset once these bytes are here, as containerd does with its parallel chunks.
  // A server that answers with the whole object instead is read until they have come.
  std::optional<std::uint64_t> begin = std::nullopt;
  std::uint64_t length_bytes = 0;
  bool open_ended = false;
};

struct Arrival {
  unsigned status = 0;
  double first_byte_seconds = 0;  // of those that were asked for, since the pull began
  double asked_seconds = 0;       // when its request was sent
  std::uint64_t body_bytes = 0;   // that were received for it
};

struct Pulled {
  double seconds = 0;  // until the last byte of the last part
  std::vector<Arrival> parts;
};

// Over at most `at_once` connections, each made anew here and kept for what follows on it.
Pulled pull(std::uint16_t port, const std::vector<Part>& parts, unsigned at_once);

}  // namespace staithe::bench
