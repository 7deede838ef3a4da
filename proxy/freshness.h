// What becomes of what is cached when upstream, asked again, does not confirm it: the rules of
// docs/freshness.md as one pure function.
#pragma once

#include <chrono>
#include <optional>

#include "cache/error.h"
#include "proxy/settings.h"

namespace staithe::proxy {

// Why upstream did not confirm it, as far as the rules tell them apart.
enum class Doubt {
  failing,   // upstream, or the way to it or to a token, is not well: nothing was said
  unproven,  // we cannot show who we are, or are kept out as a machine: no word on this content
  refused,   // upstream, or the token server, says that we may not
  gone,      // upstream says that it has no such thing
  other,     // nothing of upstream's: we are stopping, a limit of our own
};

// Timeouts, DNS, connect, TLS, 5xx, 429 and pauses, nonsense, an open breaker are one class, for
// the registry and for token servers alike, because all of them carry these codes.
Doubt doubt_of(Errc code);

// What is served, or not.
enum class Ruling {
  stale,         // what is cached, marked
  fail,          // the error, and what is cached stays as it is
  fail_and_drop  // the error; what upstream took back is forgotten
};

// `age` is the time since upstream last confirmed the tag, or showed the digest, in this
// repository; none: it never did. A digest is not asked for again before its `authorization_bound`
// has passed, so here it is always older than that.
Ruling judge(Errc code, std::optional<std::chrono::seconds> age, const Freshness& settings);

// True if upstream itself cannot be reached now, so that what is not cached cannot be had.
bool is_down(Errc code);

}  // namespace staithe::proxy
