// A credential with an end, and how its end is found.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "cache/clock.h"
#include "cache/error.h"
#include "proxy/auth/secret.h"

namespace staithe::proxy::auth {

// The life of something fetched. It begins when the request was sent, so that the end is never
// later than the issuer's. The boot clock measures it; the wall clock at the beginning is kept as a
// second check for machines that were frozen without that clock noticing.
struct Life {
  Instant since;
  WallTime wall_since;
  std::chrono::nanoseconds lasts{};
  std::optional<std::chrono::nanoseconds> refresh_in = {};  // the issuer's advice, after `since`

  Instant end() const { return since + lasts; }
  WallTime wall_end() const { return wall_since + lasts; }
};

struct Token {
  Secret secret;  // of access tokens the header's whole value, "Bearer ..."
  Life life;
  std::string scope;  // what it was asked for and grants; empty where that is no matter
};

// What an answer tells about a token's life.
struct LifeClues {
  std::optional<std::int64_t> expires_in = {};   // seconds, from the answer
  std::optional<std::int64_t> expires = {};      // `exp` or `expires_on`, seconds since 1970
  std::optional<std::int64_t> issued = {};       // `iat`
  std::optional<std::int64_t> server_date = {};  // the Date header of the answer
  std::int64_t wall = 0;                         // our own clock, which may be wrong by hours
};

// No issuer gives more than a day (azure-protocol.md section 4.4); more than that is taken as that.
inline constexpr std::chrono::hours longest_life{24};
// What the distribution spec's token protocol means by silence.
inline constexpr std::chrono::seconds unstated_life{60};

// How long the token lasts from now on: the shortest of expires_in, exp - Date and exp - iat, so
// that our own wall clock has no say where another measure exists. Fails with upstream_nonsense if
// the token has already ended.
Result<std::chrono::nanoseconds> remaining_life(const LifeClues& clues);

// `expires` - `now`, both seconds since 1970, for any numbers: dates that are nobody's are now or a
// day from now.
std::int64_t remaining_seconds(std::int64_t expires, std::int64_t now);

// Seconds since 1970 of an HTTP date in its one current form (RFC 9110 section 5.6.7).
std::optional<std::int64_t> parse_http_date(std::string_view text);

}  // namespace staithe::proxy::auth
