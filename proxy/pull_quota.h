// How many pulls a registry still grants, where it says so: Docker Hub's `ratelimit-limit:
// 100;w=21600`, `ratelimit-remaining: 76;w=21600` and `docker-ratelimit-source`. Pure.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "proxy/http.h"

namespace staithe::proxy {

struct PullQuota {
  std::uint64_t limit = 0;
  std::uint64_t remaining = 0;
  std::chrono::seconds window{};  // in which `limit` are granted
  std::string source;             // who is counted: an address or an account; escaped

  bool operator==(const PullQuota&) const = default;
};

// nullopt where the headers are absent or make no sense.
std::optional<PullQuota> pull_quota(const Headers& headers);

}  // namespace staithe::proxy
