// How a request was answered: for Cache-Status (RFC 9211) and the traffic figures.
#pragma once

#include <chrono>
#include <string_view>

namespace staithe::proxy {

enum class Outcome {
  local,      // no registry content: ping, health
  hit,        // from the cache, upstream asked at most whether it may be
  miss,       // from upstream, stored
  collapsed,  // from upstream by a transfer that another request had started
  stale,      // from the cache, because upstream failed
  pass,       // from upstream, not stored
  denied,     // not to this caller
};

constexpr std::string_view cache_status(Outcome outcome) {
  switch (outcome) {
    case Outcome::local:
      return "staithe; hit; detail=local";
    case Outcome::hit:
      return "staithe; hit";
    case Outcome::miss:
      return "staithe; fwd=miss; stored";
    case Outcome::collapsed:
      return "staithe; fwd=miss; collapsed";
    case Outcome::stale:
      return "staithe; fwd=stale";
    case Outcome::pass:
      return "staithe; fwd=bypass";
    case Outcome::denied:
      return "staithe; fwd=miss; detail=denied";
  }
  return "staithe";
}

// Of the answer that upstream gave a moment ago, that it has no such thing (proxy/absences.h).
inline constexpr std::string_view negative_cache_status = "staithe; hit; detail=negative";

// Whether upstream sent nothing for the answer with this Cache-Status: its body was here, or on its
// way for another request. A stale one says why after that.
constexpr bool spares_upstream(std::string_view cache_status_field) {
  return cache_status_field == cache_status(Outcome::hit) ||
         cache_status_field == cache_status(Outcome::collapsed) ||
         cache_status_field.starts_with(cache_status(Outcome::stale));
}

// How long a repository's proof that it may show a digest is good: upstream is asked again after
// this. ACR's own permission caches take up to 10 minutes, managed identity tokens up to 24 hours
// to notice a change of roles (azure-protocol.md, section 5), so a day adds no new order of
// magnitude.
inline constexpr std::chrono::hours authorization_bound{24};

}  // namespace staithe::proxy
