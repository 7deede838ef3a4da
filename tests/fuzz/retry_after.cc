// When an upstream says to come back, and how much it still grants: Retry-After and Date, and
// Docker Hub's figures, one per line. No answer of it keeps us away for longer than we say.
#include "proxy/auth/token_call.h"
#include "proxy/pause.h"
#include "proxy/pull_quota.h"
#include "tests/fuzz/fuzz.h"

namespace staithe::fuzz {

namespace {

void check_pause(std::chrono::seconds length) {
  SeededRandom random(7);
  proxy::Pause pause;
  const Instant now{std::chrono::hours(1000)};
  check(pause.begin(now, length, random));
  check(pause.left(now) >= length);
  check(pause.left(now) <= length + proxy::Pause::most_spread);
  check(pause.comes_back(random) <= now + length + 2 * proxy::Pause::most_spread);
  check(!pause.holds(now + length + proxy::Pause::most_spread));
}

}  // namespace

void one(std::string_view input) {
  Input lines(input);
  proxy::Headers headers;
  for (const char* name :
       {"Retry-After", "Date", "ratelimit-limit", "ratelimit-remaining", "docker-ratelimit-source"})
    headers.add(name, std::string(lines.line()));
  const WallTime wall = std::chrono::sys_days(std::chrono::year(2026) / 1 / 1);
  if (const auto after = proxy::retry_after(headers, wall)) {
    check(after->count() >= 0 && *after <= proxy::Pause::longest);
    check_pause(*after);
  }
  if (const auto date = proxy::auth::parse_http_date(headers.get("Retry-After")))
    check(*date >= 0 && *date < 253'402'300'800);  // Years have four digits.
  proxy::auth::Answer answer;
  answer.headers = headers;
  if (const auto after = answer.retry_after())
    check(after->count() >= 0 && *after <= std::chrono::hours(24));
  if (const auto quota = proxy::pull_quota(headers)) {
    check(is_printable(quota->source));
    check(quota->window.count() >= 0);
  }
}

}  // namespace staithe::fuzz
