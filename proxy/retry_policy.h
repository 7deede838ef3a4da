// What an answer, or none, says about the host that was asked, and what may be asked again. Pure.
//
// Everything that Upstream sends is a GET or a HEAD and so may be repeated (RFC 9110
// section 9.2.2); what decides is whether repeating can help. A refused connection, one that broke
// before the head, and 502, 503 and 504 are passing troubles of something between us and the
// registry. 500 and the rest of the 5xx belong to the one thing that was asked for: asking again
// brings the same, and they say nothing about the other repositories. A 4xx is an answer. 429, and
// a 503 that says when to come back, is a pause for everybody who asks this host.
#pragma once

#include <chrono>

#include "cache/error.h"

namespace staithe::proxy {

enum class Verdict {
  answered,  // the host is well
  peculiar,  // of this one request: no word about the host
  failing,   // the host, or the way to it, is in trouble
  paused,    // the host asks for a pause
};

constexpr Verdict judge(int status, bool says_when_to_come_back) {
  if (status == 429 || (status == 503 && says_when_to_come_back)) return Verdict::paused;
  if (status >= 502 && status <= 504) return Verdict::failing;
  return status >= 500 ? Verdict::peculiar : Verdict::answered;
}

// Of a request that got no answer at all.
constexpr Verdict judge(Errc code) {
  return code == Errc::unreachable || code == Errc::upstream_failed ? Verdict::failing
                                                                    : Verdict::peculiar;
}

// Attempts for one request, the first among them.
inline constexpr int most_attempts = 3;
// Whoever has waited this long, for a connection that was not made or a head that did not come, is
// not made to wait as long again: its client has other sources.
inline constexpr std::chrono::seconds retry_window{3};
// The bound of the first random wait before a retry; it doubles, up to the longest.
inline constexpr std::chrono::milliseconds first_backoff{100};
inline constexpr std::chrono::milliseconds longest_backoff{1'000};

// Worth another attempt, if the budget has one? `attempts` were made since `waited` ago.
constexpr bool may_retry(Verdict verdict, int attempts, std::chrono::nanoseconds waited) {
  return verdict == Verdict::failing && attempts < most_attempts && waited < retry_window;
}

// The wait before the next attempt is random in [0, this).
constexpr std::chrono::milliseconds backoff_bound(int attempts) {
  auto bound = first_backoff;
  for (int i = 1; i < attempts && bound < longest_backoff; ++i) bound *= 2;
  return bound < longest_backoff ? bound : longest_backoff;
}

}  // namespace staithe::proxy
