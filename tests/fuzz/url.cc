// URLs: one spelling for each, the same after every way round, and nothing that is shown of one has
// its query or its user.
#include "proxy/url.h"

#include <arpa/inet.h>

#include <string>

#include "tests/fuzz/fuzz.h"

namespace staithe::fuzz {

namespace {

constexpr std::string_view secret = "Xq7vKm2pZr9sWd4t";

void shows_no_secret(const std::string& text) {
  const auto url = proxy::Url::parse(text);
  check(url ? !url->printable().contains(secret) : !url.error().detail.contains(secret));
}

}  // namespace

void one(std::string_view input) {
  if (const auto url = proxy::Url::parse(input)) {
    const auto again = proxy::Url::parse(url->wire());
    check(again && again->origin() == url->origin() && again->target() == url->target());
    const proxy::Origin& origin = url->origin();
    check(origin.port != 0 && (origin.scheme == "http" || origin.scheme == "https"));
    for (const char c : origin.host) check(c > ' ' && c <= '~' && (c < 'A' || c > 'Z'));
    check(origin.host.find_first_of("/@?#%\\") == std::string::npos);
    check(!url->printable().contains('?') && is_printable(url->printable()));
    // Every spelling that the resolver takes for an address is known as one.
    in_addr address{};
    if (::inet_aton(origin.host.c_str(), &address) == 1) check(proxy::is_ip_literal(origin.host));
    const auto root = url->resolve("/");
    check(root && root->origin() == origin && root->target() == "/");
  } else {
    check(is_printable(url.error().detail));
  }

  const std::string text(input);
  if (!input.contains('#') && !input.contains(secret)) {
    shows_no_secret(text + (input.contains('?') ? "&" : "?") + std::string(secret));
    shows_no_secret("https://user:" + std::string(secret) + "@" + text);
    shows_no_secret("https://" + std::string(secret) + "@" + text);
  }

  const std::string encoded = proxy::percent_encode(input);
  check(proxy::percent_decode(encoded).value_or("no") == input || input == "no");
  if (const auto decoded = proxy::percent_decode(input))
    check(proxy::percent_decode(proxy::percent_encode(*decoded)).value_or("") == *decoded);

  Input halves(input);
  const std::string_view host = halves.line();
  const std::string_view suffix = halves.line();
  if (proxy::host_below(host, suffix)) check(proxy::host_under(host, suffix));
  if (proxy::host_under(host, suffix)) check(host.size() >= suffix.size() && !suffix.empty());
}

}  // namespace staithe::fuzz
