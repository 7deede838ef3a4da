#include "proxy/url.h"

#include <arpa/inet.h>
#include <curl/urlapi.h>
#include <netinet/in.h>

#include <algorithm>
#include <array>
#include <cassert>
#include <memory>
#include <optional>

#include "cache/escape.h"
#include "proxy/http.h"

namespace staithe::proxy {
namespace {

// Signed storage URLs are 1 to 2 KiB; a response head may hold 64 KiB.
constexpr std::size_t max_url_bytes = std::size_t{16} * 1024;
constexpr std::size_t max_host_bytes = 253;  // RFC 1035 section 2.3.4, as text
constexpr std::size_t max_label_bytes = 63;

struct CurlUrlDeleter {
  void operator()(CURLU* url) const { curl_url_cleanup(url); }
};
using CurlUrl = std::unique_ptr<CURLU, CurlUrlDeleter>;

CurlUrl new_curl_url() {
  CurlUrl url(curl_url());
  if (!url) throw std::bad_alloc();
  return url;
}

// A part of the URL, or nothing where it has none.
std::optional<std::string> part(CURLU* url, CURLUPart what, unsigned flags = 0) {
  char* text = nullptr;
  if (curl_url_get(url, what, &text, flags) != CURLUE_OK || text == nullptr) return std::nullopt;
  std::string copy(text);
  curl_free(text);
  return copy;
}

bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_hex(char c) { return is_digit(c) || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F'); }
bool is_alnum(char c) { return is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }
char lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; }

std::uint16_t default_port(std::string_view scheme) { return scheme == "https" ? 443 : 80; }

// "https" of "https://host/path", "" of anything that has no scheme (RFC 3986 section 3.1).
std::string_view scheme_of(std::string_view text) {
  const std::size_t end =
      text.find_first_not_of("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+-.");
  if (end == 0 || end == std::string_view::npos || text[end] != ':') return {};
  if (!is_alnum(text.front()) || is_digit(text.front())) return {};
  return text.substr(0, end);
}

// What of a text that may be a URL can be shown: no query, no fragment, no userinfo, however
// broken it is. Where a secret cannot be told from the rest, nothing but the scheme is left.
std::string without_secrets(std::string_view text) {
  const std::size_t at = text.rfind('@');
  const std::size_t query = text.find_first_of("?#");
  if (at == std::string_view::npos) return printable(text.substr(0, query));
  const std::string_view scheme = scheme_of(text);
  const std::string start = scheme.empty() ? "" : printable(scheme, 20) + "://";
  if (query < at) return start + "...";  // npos is behind everything
  return start + "..." + printable(text.substr(at, query - at));
}

std::unexpected<Error> refuse(std::string_view text, std::string_view why) {
  std::string detail = "'" + without_secrets(text) + "' is not a usable URL: ";
  detail += why;
  return fail(Errc::bad_request, std::move(detail));
}

// Bytes that cannot stand in a request line as they are. Escaping them changes no meaning.
std::string escape_target(std::string_view text) {
  constexpr std::string_view hex = "0123456789ABCDEF";
  std::string escaped;
  escaped.reserve(text.size());
  for (const char c : text) {
    if (c > ' ' && c <= '~' && c != '\\' && c != '#') {
      escaped += c;
    } else {
      const auto byte = static_cast<unsigned char>(c);
      escaped += {'%', hex[byte >> 4], hex[byte & 15]};
    }
  }
  return escaped;
}

bool has_control_or_space(std::string_view text) {
  return std::ranges::any_of(text, [](char c) { return (c >= 0 && c <= ' ') || c == 0x7f; });
}

// The name or address as it will be dialled, in its one spelling; empty if it is none.
std::string canonical_host(std::string_view host) {
  if (host.starts_with('[')) {
    if (!host.ends_with(']')) return {};
    const std::string inside(host.substr(1, host.size() - 2));
    in6_addr address{};
    std::array<char, INET6_ADDRSTRLEN> text{};
    if (::inet_pton(AF_INET6, inside.c_str(), &address) != 1) return {};
    if (!::inet_ntop(AF_INET6, &address, text.data(), text.size())) return {};
    return "[" + std::string(text.data()) + "]";
  }
  if (host.empty() || host.size() > max_host_bytes) return {};
  std::string name(host);
  std::ranges::transform(name, name.begin(), lower);
  std::size_t label_bytes = 0;
  for (const char c : name) {
    if (c == '.') {
      if (label_bytes == 0) return {};
      label_bytes = 0;
    } else {
      if (!is_alnum(c) && c != '-' && c != '_') return {};
      if (++label_bytes > max_label_bytes) return {};
    }
  }
  if (label_bytes == 0) return {};  // A trailing dot.
  // libcurl has turned every spelling of an IPv4 address into four decimal numbers; what still
  // ends in a number is an address for some resolvers and a name for others.
  in_addr address{};
  if (is_ip_literal(name) && ::inet_pton(AF_INET, name.c_str(), &address) != 1) return {};
  return name;
}

}  // namespace

std::string Origin::authority() const {
  return port == default_port(scheme) ? host : host + ":" + std::to_string(port);
}

std::string Origin::to_string() const { return scheme + "://" + authority(); }

Result<Url> Url::parse(std::string_view text) {
  if (text.size() > max_url_bytes) return refuse(text, "it is longer than 16 KiB");
  if (has_control_or_space(text)) return refuse(text, "it holds a space or a control character");
  if (text.find('#') != std::string_view::npos) return refuse(text, "it has a fragment");
  const std::string_view given_scheme = scheme_of(text);
  if (!iequals(given_scheme, "http") && !iequals(given_scheme, "https"))
    return refuse(text, "it does not begin with https:// or http://");
  const std::string_view rest = text.substr(given_scheme.size());
  if (!rest.starts_with("://")) return refuse(text, "two slashes must follow the scheme");
  const std::string_view after = rest.substr(3);
  const std::string_view authority = after.substr(0, after.find_first_of("/?"));
  if (authority.contains('@')) return refuse(text, "it names a user");
  // Nothing that libcurl would decode or read in a way of its own.
  const bool plain = std::ranges::all_of(authority, [](char c) {
    return is_alnum(c) || c == '-' || c == '_' || c == '.' || c == ':' || c == '[' || c == ']';
  });
  if (authority.empty() || !plain) return refuse(text, "its host is empty or not a host name");

  // A trailing dot is refused, not dropped: nobody writes it, and with one spelling per host there
  // is nothing to forget when hosts are compared.
  std::string whole(given_scheme);
  whole += "://";
  whole += authority;
  whole += escape_target(after.substr(authority.size()));
  const CurlUrl parsed = new_curl_url();
  if (const CURLUcode code =
          curl_url_set(parsed.get(), CURLUPART_URL, whole.c_str(), CURLU_DISALLOW_USER);
      code != CURLUE_OK)
    return refuse(text, curl_url_strerror(code));
  if (part(parsed.get(), CURLUPART_USER) || part(parsed.get(), CURLUPART_FRAGMENT) ||
      part(parsed.get(), CURLUPART_ZONEID))
    return refuse(text, "it has a user, a fragment or a zone");

  Url url;
  url.origin_.scheme = part(parsed.get(), CURLUPART_SCHEME).value_or("");
  if (url.origin_.scheme != "http" && url.origin_.scheme != "https")
    return refuse(text, "its scheme is neither https nor http");
  url.origin_.host = canonical_host(part(parsed.get(), CURLUPART_HOST).value_or(""));
  if (url.origin_.host.empty()) return refuse(text, "its host is not a host name or address");
  const std::string port = part(parsed.get(), CURLUPART_PORT, CURLU_DEFAULT_PORT).value_or("0");
  const unsigned long number = std::stoul(port);
  if (number == 0 || number > 65535) return refuse(text, "its port is not 1 to 65535");
  url.origin_.port = static_cast<std::uint16_t>(number);
  url.target_ = part(parsed.get(), CURLUPART_PATH).value_or("/");
  if (const auto query = part(parsed.get(), CURLUPART_QUERY)) url.target_ += "?" + *query;
  assert(url.target_.starts_with('/'));
  return url;
}

Result<Url> Url::resolve(std::string_view location) const {
  if (location.empty()) return refuse(location, "it is empty");
  if (!scheme_of(location).empty()) return parse(location);
  if (location.starts_with("//")) return parse(origin_.scheme + ":" + std::string(location));
  if (location.size() > max_url_bytes) return refuse(location, "it is longer than 16 KiB");
  if (has_control_or_space(location))
    return refuse(location, "it holds a space or a control character");
  if (location.contains('#')) return refuse(location, "it has a fragment");

  const CurlUrl resolved = new_curl_url();
  CURLUcode code = curl_url_set(resolved.get(), CURLUPART_URL, wire().c_str(), 0);
  if (code == CURLUE_OK)
    code = curl_url_set(resolved.get(), CURLUPART_URL, escape_target(location).c_str(), 0);
  if (code != CURLUE_OK) return refuse(location, curl_url_strerror(code));
  Result<Url> url = parse(part(resolved.get(), CURLUPART_URL).value_or(""));
  if (url && url->origin() != origin_) return refuse(location, "it is read in two ways");
  return url;
}

Url Url::with_target(std::string target) const {
  assert(target.starts_with('/'));
  Url url = *this;
  url.target_ = escape_target(target);
  return url;
}

std::string_view Url::path() const {
  return std::string_view(target_).substr(0, target_.find('?'));
}

std::string Url::printable() const {
  return staithe::printable(origin_.to_string() + std::string(path()), 400);
}

std::string percent_encode(std::string_view text) {
  constexpr std::string_view hex = "0123456789ABCDEF";
  const auto is_unreserved = [](char c) {
    return is_alnum(c) || c == '-' || c == '.' || c == '_' || c == '~';
  };
  // Exactly as much as it takes: what is encoded may be a secret, and growing would leave copies.
  std::string encoded;
  encoded.reserve(text.size() * 3 -
                  2 * static_cast<std::size_t>(std::ranges::count_if(text, is_unreserved)));
  for (const char c : text) {
    if (is_unreserved(c)) {
      encoded += c;
    } else {
      const auto byte = static_cast<unsigned char>(c);
      encoded += {'%', hex[byte >> 4], hex[byte & 15]};
    }
  }
  return encoded;
}

Result<std::string> percent_decode(std::string_view text) {
  const auto digit = [](char c) { return is_digit(c) ? c - '0' : lower(c) - 'a' + 10; };
  std::string decoded;
  decoded.reserve(text.size());
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '%') {
      decoded += text[i];
      continue;
    }
    if (i + 2 >= text.size() || !is_hex(text[i + 1]) || !is_hex(text[i + 2]))
      return fail(Errc::bad_request, "a % must be followed by two hexadecimal digits");
    decoded += static_cast<char>(digit(text[i + 1]) * 16 + digit(text[i + 2]));
    i += 2;
  }
  return decoded;
}

bool host_below(std::string_view host, std::string_view suffix) {
  if (suffix.empty() || host.size() <= suffix.size() + 1) return false;
  const std::size_t dot = host.size() - suffix.size() - 1;
  return host[dot] == '.' && iequals(host.substr(dot + 1), suffix);
}

bool host_under(std::string_view host, std::string_view suffix) {
  return !suffix.empty() && (iequals(host, suffix) || host_below(host, suffix));
}

bool is_ip_literal(std::string_view host) {
  if (host.starts_with('[') || host.contains(':')) return true;
  if (host.ends_with('.')) host.remove_suffix(1);
  // getaddrinfo takes one to four numbers, decimal, octal or hexadecimal; no top-level domain is a
  // number, so the last label decides.
  const std::size_t dot = host.rfind('.');
  std::string_view last = dot == std::string_view::npos ? host : host.substr(dot + 1);
  if (last.empty()) return false;
  if (std::ranges::all_of(last, is_digit)) return true;
  if (!last.starts_with("0x") && !last.starts_with("0X")) return false;
  last.remove_prefix(2);
  return std::ranges::all_of(last, is_hex);
}

}  // namespace staithe::proxy
