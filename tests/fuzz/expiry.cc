// The arithmetic of a token's life: whatever an issuer says and whatever the clocks show, a token
// is renewed before it is no longer used, and never used after its end (faults F20 to F25).
#include "proxy/auth/schedule.h"
#include "proxy/auth/token.h"
#include "tests/fuzz/fuzz.h"

namespace staithe::fuzz {

namespace {

namespace auth = proxy::auth;
using std::chrono::nanoseconds;

std::optional<std::int64_t> maybe(Input& input) {
  if (!input.flag()) return std::nullopt;
  // Near a date of today, or anything.
  if (input.flag()) return static_cast<std::int64_t>(input.number());
  return 1'800'000'000 + static_cast<std::int64_t>(input.number(3)) - 0x80'0000;
}

void check_plan(nanoseconds lasts, Input& input) {
  const double chance = static_cast<double>(input.number(4)) / 0x1p32;
  std::optional<nanoseconds> advice;
  if (input.flag()) advice = nanoseconds(static_cast<std::int64_t>(input.number()) >> 1);
  for (const auth::Kind kind : {auth::Kind::entra, auth::Kind::refresh, auth::Kind::access,
                                auth::Kind::password, auth::Kind::demand}) {
    const auth::Plan plan = auth::plan(kind, lasts, advice, chance);
    check(plan.renew_after.count() > 0);
    check(plan.renew_after <= plan.stop_after && plan.stop_after <= lasts);
    if (kind != auth::Kind::demand) check(plan.renew_after < plan.stop_after);
  }
}

void check_retry(Input& input) {
  const double chance = static_cast<double>(input.number(4)) / 0x1p32;
  const int failures = 1 + static_cast<int>(input.number(4) >> 2);
  std::optional<nanoseconds> named;
  if (input.flag()) named = nanoseconds(static_cast<std::int64_t>(input.number()) >> 1);
  for (const Errc code : {Errc::unreachable, Errc::denied, Errc::throttled, Errc::config}) {
    const nanoseconds wait = auth::retry_after({code, ""}, failures, named, chance);
    check(wait >= std::chrono::milliseconds(750));
    check(wait <= std::chrono::minutes(6));
  }
}

}  // namespace

void one(std::string_view bytes) {
  Input input(bytes);
  const auth::LifeClues clues{.expires_in = maybe(input),
                              .expires = maybe(input),
                              .issued = maybe(input),
                              .server_date = maybe(input),
                              .wall = std::clamp<std::int64_t>(  // our own clock
                                  maybe(input).value_or(1'800'000'000), 0, 253'402'300'800)};
  const auto life = auth::remaining_life(clues);
  if (life) {
    check(life->count() > 0 && *life <= auth::longest_life);
    if (clues.expires_in)
      check(std::chrono::floor<std::chrono::seconds>(*life).count() <=
            std::max<std::int64_t>(*clues.expires_in, 0));
    check_plan(*life, input);
  } else {
    check(is_printable(life.error().detail));
  }
  check_plan(std::chrono::milliseconds(1) + nanoseconds(static_cast<std::int64_t>(input.number(6))),
             input);
  check_retry(input);
  const std::int64_t left = auth::remaining_seconds(static_cast<std::int64_t>(input.number()),
                                                    static_cast<std::int64_t>(input.number()));
  check(left <= 253'402'300'800 && left >= -253'402'300'800);
}

}  // namespace staithe::fuzz
