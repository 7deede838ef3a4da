#include "proxy/upstream_entries.h"

#include "proxy/registries.h"
#include "proxy/url.h"

namespace staithe::proxy {

namespace {

// "docker-hub/" of "https://contoso.azurecr.io/docker-hub"; empty if the URL has no path.
std::string prefix_of(const Url& url) {
  std::string path(url.path().substr(1));
  if (!path.empty() && !path.ends_with('/')) path += '/';
  return path;
}

// The one origin that the registry's own identity is for.
Origin own_origin(const std::string& name, const RegistrySettings& settings) {
  const std::string text = settings.upstream.empty() ? "https://" + name : settings.upstream.back();
  return value_or_throw(Url::parse(text)).origin();
}

std::string other_identity(const std::map<std::string, std::string>& identities,
                           const std::string& registry) {
  const auto other = identities.find(registry);
  return other == identities.end() ? std::string() : other->second;
}

}  // namespace

std::vector<UpstreamEntry> upstream_entries(const std::string& name,
                                            const RegistrySettings& settings,
                                            const std::vector<RegistrySettings>& configured,
                                            const std::map<std::string, std::string>& identities) {
  if (settings.upstream.empty()) {
    UpstreamEntry entry{.url = "https://" + name,
                        .registry = name,
                        .settings = settings,
                        .identity = other_identity(identities, name),
                        .own = true};
    entry.settings.access.reset();
    return {std::move(entry)};
  }
  std::vector<UpstreamEntry> entries;
  const Origin ours = own_origin(name, settings);
  for (const std::string& text : settings.upstream) {
    const Url url = value_or_throw(Url::parse(text));
    UpstreamEntry entry{.url = text, .registry = name, .settings = settings};
    const std::string host = url.origin().authority();
    const RegistrySettings* other = match_registry(configured, host);
    if (url.origin() == ours) {
      entry.own = true;
      entry.identity = other_identity(identities, name);
    } else if (other && own_origin(host, *other) == url.origin()) {
      entry.registry = host;
      entry.settings = *other;
      entry.identity = other_identity(identities, host);
    } else {
      entry.registry = host;
      entry.settings.identity.clear();
      entry.settings.identity_for.clear();
      entry.settings.token_hosts.clear();
    }
    const std::string prefix = prefix_of(url);
    entry.settings.name = entry.registry;
    entry.settings.access.reset();
    entry.settings.upstream = {url.origin().to_string()};
    entry.settings.prefix = prefix.empty() ? settings.prefix : prefix;
    entries.push_back(std::move(entry));
  }
  return entries;
}

const std::string& identity_for(const UpstreamEntry& entry, const std::string& repository) {
  if (!entry.identity.empty()) return entry.identity;
  // A mirror's identities are for the names that repositories have there.
  return identity_for(entry.settings, entry.own ? repository : entry.settings.prefix + repository);
}

}  // namespace staithe::proxy
