// URLs as this program treats them: an origin that may hold a credential, and a target whose query
// may be a secret (a signed storage URL). Parsed by libcurl's own parser, so that the host that was
// checked is the host that is dialled.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "cache/error.h"

namespace staithe::proxy {

// Where a connection goes, and to whom a credential belongs (RFC 6454). Host is lower case; an IPv6
// literal stands in brackets; the port is always set.
struct Origin {
  std::string scheme;  // "http" or "https"
  std::string host;
  std::uint16_t port = 0;

  bool operator==(const Origin&) const = default;
  // "https://contoso.azurecr.io", with the port only where it is not the scheme's own.
  std::string to_string() const;
  // "contoso.azurecr.io" or "localhost:5000": what a Host header and a registry name say.
  std::string authority() const;
};

class Url {
 public:
  // Accepts absolute http and https URLs without userinfo and fragment. The error's detail shows
  // the text without query and userinfo.
  static Result<Url> parse(std::string_view text);

  // `location` as a Location header gives it: absolute, or relative to this URL.
  Result<Url> resolve(std::string_view location) const;

  // The same origin with another path and query; `target` begins with '/'.
  Url with_target(std::string target) const;

  const Origin& origin() const { return origin_; }
  // Path and query, beginning with '/'. The query may be a secret: send it, never show it.
  const std::string& target() const { return target_; }
  // Path alone.
  std::string_view path() const;

  // The whole URL, for the wire only.
  std::string wire() const { return origin_.to_string() + target_; }
  // For logs, errors and status: without query.
  std::string printable() const;

 private:
  Origin origin_;
  std::string target_;
};

// RFC 3986 percent-encoding of everything but unreserved characters: form fields, query values.
std::string percent_encode(std::string_view text);
// Undoes it; nullopt-like error for a broken escape.
Result<std::string> percent_decode(std::string_view text);

// True if `host` is `suffix` or ends in "." + `suffix`, by whole labels, ignoring case. An empty
// suffix matches nothing.
bool host_under(std::string_view host, std::string_view suffix);
// True if something stands before the suffix: "a.azurecr.io" under "azurecr.io", not the suffix
// itself.
bool host_below(std::string_view host, std::string_view suffix);

// True for an IP literal, in any spelling that getaddrinfo would take (dotted, decimal, hex, IPv6).
bool is_ip_literal(std::string_view host);

}  // namespace staithe::proxy
