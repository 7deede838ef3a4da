// Whom a registry's content is asked from, as whom and under which name: pure.
//
// A credential belongs to one origin. The registry's own identity goes to the origin of the last
// upstream of its list and to no other; a mirror is asked with the identity of the [[registry]]
// whose own origin it is, and anonymously where there is none (threats T6, T7).
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "proxy/settings.h"

namespace staithe::proxy {

// One upstream of a registry's list.
struct UpstreamEntry {
  std::string url = {};  // as configured, for people
  // The registry whose identity, certificates and data hosts apply, and which its credentials name.
  std::string registry = {};
  // As if that registry had this upstream alone: `upstream` is at most one origin, without a path,
  // and `prefix` is what stands before a repository there. Without `access`: who may ask is judged
  // by the registry that was asked for, wherever its content comes from.
  RegistrySettings settings = {};
  std::string identity = {};  // instead of the configured ones, for every repository, unless empty
  bool own = false;           // asked with the registry's own identity

  bool operator==(const UpstreamEntry&) const = default;
};

// The upstreams of the registry `name` in their order, at least one; `settings` is its entry in
// `configured`. `identities`: by registry, what stands in place of configured identities.
std::vector<UpstreamEntry> upstream_entries(const std::string& name,
                                            const RegistrySettings& settings,
                                            const std::vector<RegistrySettings>& configured,
                                            const std::map<std::string, std::string>& identities);

// The identity with which `entry` is asked for `repository`, a canonical name of the registry that
// the list is for. Empty = anonymous.
const std::string& identity_for(const UpstreamEntry& entry, const std::string& repository);

}  // namespace staithe::proxy
