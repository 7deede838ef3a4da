#include "proxy/auth/trust.h"

#include <algorithm>
#include <array>

#include "cache/escape.h"

namespace staithe::proxy::auth {
namespace {

constexpr std::size_t max_label_bytes = 63;

bool is_lower_alnum(char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z'); }

bool is_alnum_label(std::string_view label) {
  return !label.empty() && label.size() <= max_label_bytes &&
         std::ranges::all_of(label, is_lower_alnum);
}

// Registry names are letters and digits; a domain name label adds one dash and a hash.
bool is_registry_label(std::string_view label) {
  if (label.size() > max_label_bytes) return false;
  const std::size_t dash = label.find('-');
  if (dash == std::string_view::npos) return is_alnum_label(label);
  return is_alnum_label(label.substr(0, dash)) && is_alnum_label(label.substr(dash + 1));
}

std::string lower_case(std::string_view text) {
  std::string lowered(text);
  for (char& c : lowered) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return lowered;
}

std::string join(const std::vector<std::string>& words) {
  std::string joined;
  for (const std::string& word : words) joined += (joined.empty() ? "" : ", ") + word;
  return joined;
}

std::unexpected<Error> refuse(const Origin& registry, const std::string& realm,
                              std::string_view why) {
  return fail(Errc::upstream_nonsense, registry.authority() + " names the token server " + realm +
                                           ", which is not used: " + std::string(why));
}

// A configured host is a name with its port, or a name for port 443 alone.
bool is_one_of(const std::vector<std::string>& token_hosts, const Origin& origin) {
  const std::string with_port = origin.host + ":" + std::to_string(origin.port);
  return std::ranges::any_of(token_hosts, [&](const std::string& host) {
    const std::string lowered = lower_case(host);
    return lowered == with_port || (origin.port == 443 && lowered == origin.host);
  });
}

// The realm as a URL, whose form alone can be wrong.
Result<Url> parse_realm(const Origin& registry, std::string_view realm) {
  Result<Url> url = Url::parse(realm);
  if (!url) {
    return fail(Errc::upstream_nonsense,
                registry.authority() + " names a bad token server: " + url.error().detail);
  }
  return url;
}

}  // namespace

std::optional<AcrHost> parse_acr_host(std::string_view host,
                                      const std::vector<std::string>& suffixes) {
  const std::string lowered = lower_case(host);
  for (const std::string& suffix : suffixes) {
    if (!host_below(lowered, suffix)) continue;
    const std::string_view before =
        std::string_view(lowered).substr(0, lowered.size() - suffix.size() - 1);
    const std::size_t dot = before.find('.');
    if (dot == std::string_view::npos) {
      if (is_registry_label(before))
        return AcrHost{.name = std::string(before), .region = {}, .suffix = lower_case(suffix)};
      continue;
    }
    // name.<region>.geo; what else stands there is a data endpoint or unknown.
    const std::string_view name = before.substr(0, dot);
    std::string_view region = before.substr(dot + 1);
    if (!region.ends_with(".geo")) continue;
    region.remove_suffix(4);
    if (is_registry_label(name) && is_alnum_label(region)) {
      return AcrHost{
          .name = std::string(name), .region = std::string(region), .suffix = lower_case(suffix)};
    }
  }
  return std::nullopt;
}

Result<void> check_acr_origin(const Origin& registry, const std::vector<std::string>& suffixes) {
  if (!parse_acr_host(registry.host, suffixes)) {
    return fail(Errc::config,
                "a managed identity is for Azure Container Registry, and " + registry.host +
                    " is not one of its login servers (below " + join(suffixes) +
                    "): use another identity for it, or add its suffix to azure.acr_suffixes");
  }
  if (registry.scheme != "https" && reach_of(registry.host) != Reach::loopback) {
    return fail(Errc::config, "a managed identity is not used over plain http: write https://" +
                                  registry.host + " as upstream");
  }
  return {};
}

Result<Url> check_acr_realm(const Origin& registry, std::string_view realm,
                            const std::vector<std::string>& suffixes) {
  Result<Url> url = parse_realm(registry, realm);
  if (!url || url->origin() == registry) return url;
  const auto same_port = [](const Origin& origin) {
    return origin.scheme == "https" && origin.port == 443;
  };
  const auto here = parse_acr_host(registry.host, suffixes);
  const auto there = parse_acr_host(url->origin().host, suffixes);
  if (here && there && here->name == there->name && here->suffix == there->suffix &&
      same_port(registry) && same_port(url->origin()))
    return url;
  return refuse(registry, url->printable(),
                "an Azure token goes to the registry's own origin and nowhere else");
}

Result<Url> check_password_realm(const Origin& registry, std::string_view realm,
                                 const std::vector<std::string>& token_hosts) {
  // Registries whose token server has another name than they: their own documentation says so.
  constexpr std::array<std::pair<std::string_view, std::string_view>, 3> known = {
      {{"registry-1.docker.io", "auth.docker.io"},
       {"index.docker.io", "auth.docker.io"},
       {"registry.gitlab.com", "gitlab.com"}}};
  Result<Url> url = parse_realm(registry, realm);
  if (!url || url->origin() == registry) return url;
  const Origin& there = url->origin();
  if (there.scheme == "https" && there.port == 443) {
    const bool belongs = registry.port == 443 && std::ranges::any_of(known, [&](const auto& pair) {
                           return pair.first == registry.host && pair.second == there.host;
                         });
    if (belongs) return url;
  }
  if (is_one_of(token_hosts, there) && there.scheme == "https") return url;
  return refuse(registry, url->printable(),
                "a password goes to the registry's own origin only; if that server is the "
                "registry's, add its host to token_hosts of this [[registry]]");
}

Result<void> check_password_origin(const Origin& registry) {
  if (registry.scheme == "https" || reach_of(registry.host) == Reach::loopback) return {};
  return fail(Errc::config, "a password is not sent over plain http: write https://" +
                                registry.host + " as upstream, or use no identity for it");
}

Reach reach_of(std::string_view host) {
  constexpr std::array<std::string_view, 8> internal = {
      "local", "internal", "home.arpa", "lan", "intranet", "corp", "private", "localdomain"};
  if (is_ip_literal(host)) {
    // Hosts of URLs are in canonical form (url.cc).
    return host.starts_with("127.") || host == "[::1]" ? Reach::loopback : Reach::address;
  }
  if (host_under(host, "localhost")) return Reach::loopback;
  if (!host.contains('.')) return Reach::internal;
  const bool below =
      std::ranges::any_of(internal, [&](std::string_view name) { return host_under(host, name); });
  return below ? Reach::internal : Reach::anywhere;
}

Result<Url> check_anonymous_realm(const Origin& registry, std::string_view realm) {
  Result<Url> url = parse_realm(registry, realm);
  if (!url || url->origin() == registry) return url;
  const Origin& there = url->origin();
  if (there.scheme != "https")
    return refuse(registry, url->printable(), "it is on another origin without TLS");
  if (there.host == registry.host) return url;
  const Reach from = reach_of(registry.host);
  switch (is_ip_literal(there.host) ? Reach::address : reach_of(there.host)) {
    case Reach::anywhere:
      return url;
    case Reach::internal:
      if (from != Reach::anywhere) return url;
      return refuse(registry, url->printable(), "its name belongs to a private network");
    case Reach::loopback:
      if (from == Reach::loopback) return url;
      return refuse(registry, url->printable(), "its name belongs to this machine");
    case Reach::address:
      break;
  }
  return refuse(registry, url->printable(), "it is an IP address and not the registry's own");
}

HostNamedBy realm_named_by(const Origin& registry, const Origin& realm,
                           const std::vector<std::string>& token_hosts) {
  const bool ours =
      realm.host == registry.host || is_one_of(token_hosts, realm) ||
      (reach_of(registry.host) != Reach::anywhere && reach_of(realm.host) != Reach::anywhere);
  return ours ? HostNamedBy::configuration : HostNamedBy::upstream;
}

}  // namespace staithe::proxy::auth
