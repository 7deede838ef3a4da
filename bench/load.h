// The clients: keep-alive HTTP/1.1 connections in one thread, each asking again as soon as it has
// its answer (a closed loop, no pipelining); or, at a given rate, whichever is free asks when it is
// time to.
//
// Every answer is checked: its status, its length, that the connection stays. One that is wrong
// ends the measurement with a Failure, since a rate of wrong answers is no rate. Bodies are
// received and let go in the kernel (MSG_TRUNC), so that on a machine of few cores the clients cost
// little beside the server; fetch() is the one that looks at the bytes.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "cache/digest.h"

namespace staithe::bench {

struct Request {
  std::string method;  // GET or HEAD
  std::string target;
  std::string accept = "*/*";
  // What a right answer has.
  std::uint64_t size_bytes = 0;  // Content-Length, also of the answer to HEAD
};

struct LoadPlan {
  std::uint16_t port = 0;
  unsigned connections = 1;
  std::vector<Request> requests;  // in turn, over all connections
  // What is measured: a window of time after the connections have run for `warm_up`; answers that
  // are under way at its end are given up. Or, if `count` is set, exactly so many answers.
  std::chrono::milliseconds warm_up{200};
  std::chrono::milliseconds window{2'000};
  std::uint64_t count = 0;
  // Requests a second; 0: as many as are answered. A latency counts from when it was time to ask,
  // also when every connection still waited for an answer then.
  double rate = 0;
  bool pinned = false;  // the clients stay on the machine's last processor
  // Called when the window opens and when it closes, with all connections still there.
  std::function<void()> opened = [] {};
  std::function<void()> closed = [] {};
};

struct LoadResult {
  double seconds = 0;
  std::uint64_t answers = 0;     // that ended within the window
  std::uint64_t body_bytes = 0;  // that arrived within the window
  std::vector<float> latencies_microseconds;
};

LoadResult run_load(const LoadPlan& plan);

// One answer with its bytes looked at.
struct Fetched {
  std::string head;  // status line and fields
  std::uint64_t body_bytes = 0;
  cache::Digest digest;  // of the body, sha256
};
// Throws Failure for another status than 200 or another length than the request names.
Fetched fetch(std::uint16_t port, const Request& request);

}  // namespace staithe::bench
