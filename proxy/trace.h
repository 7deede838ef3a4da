// W3C Trace Context, as far as the log needs it: a request that names its trace by `traceparent`
// has its lines marked with it, and if the caller wants it recorded, the request's way is told line
// by line. Nothing of it goes upstream: which of this machine's programs asked, and when else it
// asked, is no business of a registry.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace staithe::proxy {

struct TraceParent {
  std::string_view trace_id;   // 32 hexadecimal digits, not all zero
  std::string_view parent_id;  // 16 of them, likewise: the caller's span
  bool sampled = false;        // the caller records this trace
};

// The value of the field, by the rules of version 00; of a later version, what those rules still
// read. nullopt for everything else, which is to be ignored. Pure; the result borrows from `text`.
std::optional<TraceParent> parse_traceparent(std::string_view text);

// Of one request.
struct Trace {
  std::string id;
  std::string parent;
  bool told = false;  // its way is in the log whatever the level
};

}  // namespace staithe::proxy
