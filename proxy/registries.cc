#include "proxy/registries.h"

#include <algorithm>

#include "cache/escape.h"

namespace staithe::proxy {

namespace {

// A wildcard makes one registry per name that a client invents; each is a few KiB.
constexpr std::size_t max_registries = 1'000;

// Whom a registry is for is asked of the configuration in force, never of what was made of an older
// one.
bool same_but_for_access(const RegistrySettings& now, const RegistrySettings& before) {
  RegistrySettings like_before = now;
  like_before.access = before.access;
  return like_before == before;
}

}  // namespace

std::string Registry::canonical(const std::string& repository) const {
  if (name_ == "docker.io" && repository.find('/') == std::string::npos)
    return "library/" + repository;
  return repository;
}

UpstreamList& Registry::upstream(const std::string& repository) {
  std::vector<std::string> identities;
  for (const UpstreamEntry& entry : entries_) identities.push_back(identity_for(entry, repository));
  const auto found = upstreams_.find(identities);
  if (found != upstreams_.end()) return *found->second;
  std::vector<UpstreamList::Member> members;
  for (std::size_t i = 0; i < entries_.size(); ++i) {
    const UpstreamEntry& entry = entries_[i];
    members.push_back({.url = entry.url,
                       .upstream = make_upstream_(entry.registry, entry.settings, identities[i])});
  }
  auto list = std::make_unique<UpstreamList>(name_, std::move(members));
  return *upstreams_.emplace(std::move(identities), std::move(list)).first->second;
}

RegistryPtr Registries::find(const std::string& name) {
  const RegistrySettings* settings = entry(name);
  if (!settings) {
    std::string known;
    for (const RegistrySettings& entry : configured_)
      known.append(known.empty() ? "" : ", ").append(entry.name);
    throw Failure(
        Errc::registry_unknown,
        (name.empty() ? std::string("the request names no registry and none is the default")
                      : "the registry " + printable(name, 100) + " is not configured here") +
            "; configured: " + (known.empty() ? "none" : known) +
            " ([[registry]] in staithe.toml)");
  }
  const std::string& own_name = name.empty() ? settings->name : name;
  auto& registry = registries_[own_name];
  if (!registry) {
    if (registries_.size() > max_registries) {
      registries_.erase(own_name);
      throw Failure(Errc::registry_unknown,
                    "more than " + std::to_string(max_registries) +
                        " registries were asked for since start; name those that you use in "
                        "[[registry]] instead of a wildcard");
    }
    registry = std::make_shared<Registry>(
        own_name, *settings, upstream_entries(own_name, *settings, configured_, identities_),
        make_upstream_);
  }
  return registry;
}

void Registries::use_identity(const std::string& name, const std::string& identity) {
  if (identity.empty()) {
    identities_.erase(name);
  } else {
    identities_[find(name)->name()] = identity;
  }
  // Requests under way hold theirs and end as they began.
  std::erase_if(registries_, [&](const auto& used) {
    const std::vector<UpstreamEntry>& entries = used.second->entries();
    return std::ranges::find(entries, name, &UpstreamEntry::registry) != entries.end();
  });
  if (on_change_) on_change_();
}

void Registries::replace(std::vector<RegistrySettings> configured, bool keep) {
  configured_ = std::move(configured);
  std::erase_if(registries_, [&](const auto& used) {
    const auto& [name, registry] = used;
    const RegistrySettings* settings = match_registry(configured_, name);
    return !keep || !settings || !same_but_for_access(*settings, registry->settings()) ||
           upstream_entries(name, *settings, configured_, identities_) != registry->entries();
  });
  if (on_change_) on_change_();
}

}  // namespace staithe::proxy
