#include "proxy/host_policy.h"

#include <algorithm>

#include "proxy/http.h"

namespace staithe::proxy {

namespace {

std::string_view without_port(std::string_view host) {
  const std::size_t colon = host.rfind(':');
  if (colon == std::string_view::npos || host.ends_with(']')) return host;
  return host.substr(0, colon);
}

bool has_port(std::string_view host) { return without_port(host).size() != host.size(); }

}  // namespace

HostPolicy::HostPolicy(const std::vector<std::string>& listen,
                       const std::vector<std::string>& hosts)
    : names_{"localhost", "127.0.0.1", "[::1]"} {
  for (const std::string& address : listen) {
    if (!address.starts_with("unix:")) names_.emplace_back(without_port(address));
  }
  for (const std::string& host : hosts) (has_port(host) ? exact_ : names_).push_back(host);
}

bool HostPolicy::accepts(std::string_view host) const {
  const auto equals = [](std::string_view text) {
    return [text](const std::string& known) { return iequals(known, text); };
  };
  return std::ranges::any_of(names_, equals(without_port(host))) ||
         std::ranges::any_of(exact_, equals(host));
}

bool is_cross_site(std::string_view sec_fetch_site, std::string_view origin) {
  if (!origin.empty()) return true;
  return !sec_fetch_site.empty() && sec_fetch_site != "none" && sec_fetch_site != "same-origin";
}

}  // namespace staithe::proxy
