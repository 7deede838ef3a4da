// The registries that clients may ask for: a closed list from the configuration, never a dial
// target that a client names (threat T10).
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "proxy/settings.h"
#include "proxy/upstream_entries.h"
#include "proxy/upstream_list.h"

namespace staithe::proxy {

// The entry that answers to `name`: exact names before wildcards, then the first in the file.
// "*.suffix" matches names below the suffix, by whole labels. Null if none does.
const RegistrySettings* match_registry(const std::vector<RegistrySettings>& registries,
                                       std::string_view name);
// The entry that answers requests that name no registry, or null.
const RegistrySettings* default_registry(const std::vector<RegistrySettings>& registries);
// The identity for a repository: that of the longest prefix in identity_for, else the registry's.
// Empty = anonymous.
const std::string& identity_for(const RegistrySettings& registry, std::string_view repository);

// One registry that has been asked for: its settings, and its upstreams for each identity used.
// Shared with the requests and fills that use it, which outlive a reload.
class Registry {
 public:
  // The upstream of one UpstreamEntry: that of the registry `name` as `settings` describe it, which
  // name at most one URL.
  using MakeUpstream = std::function<std::unique_ptr<Upstream>(
      const std::string& name, const RegistrySettings& settings, const std::string& identity)>;
  // By the identity of each upstream, in the order of the list; the registry's own is the last.
  using Lists = std::map<std::vector<std::string>, std::unique_ptr<UpstreamList>>;

  Registry(std::string name, RegistrySettings settings, std::vector<UpstreamEntry> entries,
           MakeUpstream make_upstream)
      : name_(std::move(name)),
        settings_(std::move(settings)),
        entries_(std::move(entries)),
        make_upstream_(std::move(make_upstream)) {}

  const std::string& name() const { return name_; }
  const RegistrySettings& settings() const { return settings_; }
  const std::vector<UpstreamEntry>& entries() const { return entries_; }
  // The name under which upstream knows a repository: Docker Hub's official images have one part
  // for people and "library/" before it for the registry.
  std::string canonical(const std::string& repository) const;
  // For a canonical repository. Throws Failure(config) if its identity cannot serve this registry.
  UpstreamList& upstream(const std::string& repository);

  const Lists& upstreams() const { return upstreams_; }

 private:
  std::string name_;
  const RegistrySettings settings_;
  const std::vector<UpstreamEntry> entries_;
  MakeUpstream make_upstream_;
  Lists upstreams_;
};

using RegistryPtr = std::shared_ptr<Registry>;

class Registries {
 public:
  Registries(std::vector<RegistrySettings> configured, Registry::MakeUpstream make_upstream)
      : configured_(std::move(configured)), make_upstream_(std::move(make_upstream)) {}

  // The registry called `name`, or the default one if it is empty. Throws Failure(registry_unknown)
  // with the names that are configured, so that a client falls back and a person understands.
  RegistryPtr find(const std::string& name);

  // The entry of the configuration that answers to `name`, or to requests that name none if it is
  // empty; null if none does. Makes no registry.
  const RegistrySettings* entry(std::string_view name) const {
    return name.empty() ? default_registry(configured_) : match_registry(configured_, name);
  }

  // A reload. Registries whose settings, and whose mirrors' settings, did not change but for
  // whom they are for keep their upstreams and tokens, unless `keep` is false (what their
  // identities mean has changed); requests under way end as they began.
  void replace(std::vector<RegistrySettings> configured, bool keep);

  // From now on requests for `name`, a registry's own name, use `identity` for all its
  // repositories; throws as find() then. Or, if that is empty, what is configured; a reload may
  // have taken the registry away meanwhile.
  void use_identity(const std::string& name, const std::string& identity);

  // The identity that pulls from this canonical repository of `name` use, to which `entry` answers:
  // what use_identity() said, else what is configured. Makes no registry.
  const std::string& identity_of(const std::string& name, const RegistrySettings& entry,
                                 std::string_view repository) const {
    const auto other = identities_.find(name);
    return other == identities_.end() ? identity_for(entry, repository) : other->second;
  }

  // Told when what a name means may have changed, before the call that changes it returns.
  void on_change(std::function<void()> tell) { on_change_ = std::move(tell); }

  const std::map<std::string, RegistryPtr>& used() const { return registries_; }
  const std::vector<RegistrySettings>& configured() const { return configured_; }

 private:
  std::vector<RegistrySettings> configured_;
  Registry::MakeUpstream make_upstream_;
  std::map<std::string, RegistryPtr> registries_;
  std::function<void()> on_change_;
  std::map<std::string, std::string> identities_;  // by registry: see use_identity()
};

}  // namespace staithe::proxy
