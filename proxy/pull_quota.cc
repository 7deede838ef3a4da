#include "proxy/pull_quota.h"

#include <charconv>

#include "cache/escape.h"

namespace staithe::proxy {

namespace {

constexpr std::size_t max_source_bytes = 64;

std::optional<std::uint64_t> number(std::string_view text) {
  std::uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (text.empty() || error != std::errc() || end != text.data() + text.size() || value > INT64_MAX)
    return std::nullopt;
  return value;
}

struct Counted {
  std::uint64_t count;
  std::optional<std::uint64_t> window_seconds;
};

// "100;w=21600", or "100" alone.
std::optional<Counted> counted(std::string_view text) {
  const std::size_t semicolon = text.find(';');
  const auto count = number(text.substr(0, semicolon));
  if (!count) return std::nullopt;
  if (semicolon == std::string_view::npos) return Counted{*count, std::nullopt};
  std::string_view parameter = text.substr(semicolon + 1);
  while (parameter.starts_with(' ')) parameter.remove_prefix(1);
  if (!parameter.starts_with("w=")) return Counted{*count, std::nullopt};
  const auto window = number(parameter.substr(2));
  if (!window) return std::nullopt;
  return Counted{*count, window};
}

}  // namespace

std::optional<PullQuota> pull_quota(const Headers& headers) {
  const auto limit = counted(headers.get("ratelimit-limit"));
  const auto remaining = counted(headers.get("ratelimit-remaining"));
  if (!limit || !remaining || !limit->window_seconds) return std::nullopt;
  return PullQuota{.limit = limit->count,
                   .remaining = remaining->count,
                   .window = std::chrono::seconds(*limit->window_seconds),
                   .source = printable(headers.get("docker-ratelimit-source"), max_source_bytes)};
}

}  // namespace staithe::proxy
