#include "proxy/freshness.h"

#include <algorithm>

#include "proxy/outcome.h"

namespace staithe::proxy {

Doubt doubt_of(Errc code) {
  switch (code) {
    case Errc::unreachable:
    case Errc::upstream_failed:
    case Errc::throttled:
    case Errc::upstream_nonsense:
      return Doubt::failing;
    case Errc::identity_missing:
    case Errc::firewall:
      return Doubt::unproven;
    case Errc::denied:
    case Errc::unauthorized:
      return Doubt::refused;
    case Errc::manifest_unknown:
    case Errc::blob_unknown:
    case Errc::name_unknown:
      return Doubt::gone;
    case Errc::bad_request:
    case Errc::name_invalid:
    case Errc::digest_invalid:
    case Errc::range_not_satisfiable:
    case Errc::not_found:
    case Errc::unsupported:
    case Errc::registry_unknown:
    case Errc::too_large:
    case Errc::storage_full:
    case Errc::storage_failed:
    case Errc::in_use:
    case Errc::cancelled:
    case Errc::config:
      return Doubt::other;
  }
  return Doubt::other;
}

Ruling judge(Errc code, std::optional<std::chrono::seconds> age, const Freshness& settings) {
  const auto within = [&](std::chrono::milliseconds bound) { return age && *age < bound; };
  switch (doubt_of(code)) {
    case Doubt::failing:
      return within(settings.serve_stale) ? Ruling::stale : Ruling::fail;
    case Doubt::unproven:
      // No answer about this content, but perhaps the trace of a right that was taken away.
      return within(std::min<std::chrono::milliseconds>(settings.serve_stale, authorization_bound))
                 ? Ruling::stale
                 : Ruling::fail;
    case Doubt::refused:
      return Ruling::fail_and_drop;
    case Doubt::gone:
      return within(settings.serve_gone) ? Ruling::stale : Ruling::fail_and_drop;
    case Doubt::other:
      return Ruling::fail;
  }
  return Ruling::fail;
}

bool is_down(Errc code) { return code == Errc::unreachable || code == Errc::upstream_failed; }

}  // namespace staithe::proxy
