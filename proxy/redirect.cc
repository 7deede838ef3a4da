#include "proxy/redirect.h"

#include <algorithm>
#include <array>

#include "cache/escape.h"

namespace staithe::proxy {

namespace {

struct KnownHosts {
  std::string_view registry;  // suffix of the registry's host, by labels
  std::string_view data;      // suffix under which its blobs lie
};

// Where the built-in registries keep their blobs; from their documentation and firewall guides.
constexpr std::array known_hosts = {
    KnownHosts{"docker.io", "cloudflare.docker.com"},
    KnownHosts{"docker.io", "cloudfront.docker.com"},
    KnownHosts{"docker.io", "r2.cloudflarestorage.com"},
    KnownHosts{"ghcr.io", "pkg-containers.githubusercontent.com"},
    KnownHosts{"quay.io", "quay.io"},
    KnownHosts{"mcr.microsoft.com", "data.mcr.microsoft.com"},
    KnownHosts{"registry.k8s.io", "pkg.dev"},
    KnownHosts{"registry.k8s.io", "amazonaws.com"},
};

// Azure Blob Storage of each cloud: where ACR redirects without dedicated data endpoints.
constexpr std::array<std::string_view, 3> azure_storage = {
    "blob.core.windows.net", "blob.core.chinacloudapi.cn", "blob.core.usgovcloudapi.net"};

bool is_data_endpoint(const RedirectPolicy& policy, std::string_view host) {
  // name.<region>.data.<suffix>, of the same name as the registry.
  const std::string_view name =
      std::string_view(policy.registry.host).substr(0, policy.registry.host.find('.'));
  return std::ranges::any_of(policy.acr_suffixes, [&](const std::string& suffix) {
    if (!host_below(host, "data." + suffix)) return false;
    const std::string_view rest = host.substr(0, host.size() - suffix.size() - 6);
    const std::size_t dot = rest.find('.');
    return rest.substr(0, dot) == name && dot != std::string_view::npos &&
           rest.find('.', dot + 1) == std::string_view::npos;
  });
}

bool is_configured(const RedirectPolicy& policy, std::string_view host) {
  return std::ranges::any_of(policy.data_hosts, [&](const std::string& entry) {
    return entry.starts_with("*.") ? host_below(host, std::string_view(entry).substr(2))
                                   : host == entry;
  });
}

bool is_known_of_public_registry(const RedirectPolicy& policy, std::string_view host) {
  return std::ranges::any_of(known_hosts, [&](const KnownHosts& known) {
    return host_under(policy.registry.host, known.registry) && host_under(host, known.data);
  });
}

bool is_azure_data_host(const RedirectPolicy& policy, std::string_view host) {
  const bool acr = std::ranges::any_of(policy.acr_suffixes, [&](const std::string& suffix) {
    return host_below(policy.registry.host, suffix);
  });
  if (!acr) return false;
  return std::ranges::any_of(azure_storage,
                             [&](std::string_view s) { return host_below(host, s); }) ||
         is_data_endpoint(policy, host);
}

}  // namespace

Result<void> may_follow(const RedirectPolicy& policy, const Url& from, const Url& to) {
  if (to.origin() == policy.registry) return {};
  const std::string text =
      policy.registry.authority() + " redirects to " + printable(to.origin().to_string(), 200);
  if (to.origin().scheme != "https" &&
      (from.origin().scheme == "https" || policy.registry.scheme == "https"))
    return fail(Errc::upstream_nonsense, text + ", which is not TLS; that is never followed");
  const std::string& host = to.origin().host;
  if (!is_configured(policy, host) && !is_known_of_public_registry(policy, host) &&
      !is_azure_data_host(policy, host))
    return fail(Errc::upstream_nonsense,
                text +
                    ", a host that is not known to hold its blobs; if it does, add it to "
                    "data_hosts of this [[registry]]");
  return {};
}

HostNamedBy named_by(const RedirectPolicy& policy, std::string_view host) {
  const bool ours = host == policy.registry.host || is_configured(policy, host) ||
                    is_azure_data_host(policy, host);
  return ours ? HostNamedBy::configuration : HostNamedBy::upstream;
}

}  // namespace staithe::proxy
