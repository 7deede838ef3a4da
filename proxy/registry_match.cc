// What a name and a repository mean by the configuration: the pure part of registries.h, apart so
// that programs which only read a configuration hold no more of this than they use.
#include <algorithm>

#include "proxy/registries.h"

namespace staithe::proxy {

const RegistrySettings* match_registry(const std::vector<RegistrySettings>& registries,
                                       std::string_view name) {
  const auto exact = std::ranges::find(registries, name, &RegistrySettings::name);
  if (exact != registries.end()) return &*exact;
  const auto wildcard = std::ranges::find_if(registries, [&](const RegistrySettings& entry) {
    return entry.name.starts_with("*.") && host_below(name, std::string_view(entry.name).substr(2));
  });
  return wildcard == registries.end() ? nullptr : &*wildcard;
}

const RegistrySettings* default_registry(const std::vector<RegistrySettings>& registries) {
  const auto it = std::ranges::find_if(registries, &RegistrySettings::is_default);
  return it == registries.end() ? nullptr : &*it;
}

const std::string& identity_for(const RegistrySettings& registry, std::string_view repository) {
  const IdentityFor* best = nullptr;
  for (const IdentityFor& entry : registry.identity_for) {
    if (repository.starts_with(entry.prefix) &&
        (!best || entry.prefix.size() > best->prefix.size()))
      best = &entry;
  }
  return best ? best->identity : registry.identity;
}

}  // namespace staithe::proxy
