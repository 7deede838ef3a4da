// [[registry]]: what several of them, and the identities that they name, must be to each other.
#include <algorithm>
#include <array>
#include <set>
#include <utility>

#include "cache/escape.h"
#include "daemon/options_reader.h"
#include "daemon/values.h"
#include "proxy/auth/trust.h"
#include "proxy/upstream_entries.h"
#include "proxy/url.h"

namespace staithe::daemon {
namespace {

constexpr std::size_t kMaxRegistries = 1000;
constexpr std::size_t kMaxUpstreams = 8;

// The registries that answer while the file has none, besides the cloud's own.
struct BuiltIn {
  std::string_view name;
  bool is_default;
};
constexpr std::array<BuiltIn, 5> kPublicRegistries{{{"docker.io", true},
                                                    {"ghcr.io", false},
                                                    {"quay.io", false},
                                                    {"mcr.microsoft.com", false},
                                                    {"registry.k8s.io", false}}};
constexpr const char* kBuiltInIdentity = "vm";

// The kinds whose credential is, or is made from, an Entra token.
bool is_for_azure(proxy::IdentityKind kind) {
  switch (kind) {
    case proxy::IdentityKind::managed_identity:
    case proxy::IdentityKind::service_principal:
    case proxy::IdentityKind::workload_identity:
    case proxy::IdentityKind::token:
      return true;
    case proxy::IdentityKind::anonymous:
    case proxy::IdentityKind::basic:
    case proxy::IdentityKind::helper:
    case proxy::IdentityKind::docker_config:
      return false;
  }
  std::unreachable();
}

// The suffixes that have a wildcard of their own while the file has no [[registry]]: those of the
// interface contract. An operator writes the rest out.
constexpr std::array<std::string_view, 3> kBuiltInSuffixes{"azurecr.io", "azurecr.cn",
                                                           "azurecr.us"};

// Writes out the upstream that an exact name implies.
void fill_upstream(proxy::RegistrySettings& registry) {
  if (!registry.upstream.empty() || registry.name.empty() || registry.name.starts_with("*."))
    return;
  // Docker Hub is docker.io in image names and answers elsewhere.
  const std::string host = registry.name == "docker.io" ? "registry-1.docker.io" : registry.name;
  registry.upstream = {"https://" + host};
}

}  // namespace

void OptionsReader::read_registries(const toml::table& root) {
  const toml::node* node = root.get("registry");
  if (!node) {
    use_built_in_registries();
    return;
  }
  const toml::array* array = node->as_array();
  if (!array || array->empty() || !array->is_array_of_tables()) {
    fault(line_of(node->source()), "registry",
          node->is_table()
              ? "there may be several, so each is written in double brackets; "
                "accepted: [[registry]]"
              : "this is " + std::string(type_name(*node)) + "; accepted: one [[registry]] each");
    return;
  }
  if (array->size() > kMaxRegistries) {
    fault(line_of(node->source()), "registry", "there are at most 1000 of them");
    return;
  }
  for (std::size_t i = 0; i < array->size(); ++i) {
    read_registry(*array->get(i)->as_table(), i + 1);
  }
  for (std::size_t i = 0; i < registries_.size(); ++i) {
    check_registry(registries_[i], config_.proxy.registries[i]);
  }
  for (std::size_t i = 0; i < registries_.size(); ++i) {
    check_mirrors(registries_[i], config_.proxy.registries[i]);
  }
  check_names();
}

void OptionsReader::read_registry(const toml::table& in, std::size_t number) {
  proxy::RegistrySettings registry;
  const Target target{.config = &config_, .registry = &registry};
  store_defaults("registry", target);
  registry.freshness = config_.freshness;

  Registry at;
  at.line = line_of(in.source());
  at.label = "registry[" + std::to_string(number) + "]";
  if (const auto name = in["name"].value<std::string>(); name && parse_registry_name(*name)) {
    at.label = "registry[\"" + *name + "\"]";
  }
  at.given = read_table(in, "registry", at.label, target);

  for (const std::string_view sub : {"freshness", "access"}) {
    const toml::node* node = in.get(sub);
    if (!node) continue;
    const std::string path = at.label + "." + std::string(sub);
    if (const toml::table* table = node->as_table()) {
      const Given given = read_table(*table, "registry." + std::string(sub), path, target);
      // What an empty table would mean, open or closed, is nothing to guess at.
      if (sub == "access" && given.empty() && table->empty())
        fault(line_of(node->source()), path,
              "it names neither users nor groups; accepted: one of them or both (two empty lists: "
              "every local user), or no [registry.access], where [access] is to decide");
    } else {
      fault(line_of(node->source()), path,
            "this is " + std::string(type_name(*node)) + "; accepted: a table, [registry." +
                std::string(sub) + "]");
    }
  }
  if (const toml::node* node = in.get("identity_for")) {
    const toml::array* array = node->as_array();
    if (!array || !array->is_array_of_tables() || array->size() > kMaxListEntries) {
      fault(line_of(node->source()), at.label + ".identity_for",
            "accepted: [[registry.identity_for]] in double brackets, at most 1000 of them");
    } else {
      for (std::size_t i = 0; i < array->size(); ++i) {
        proxy::IdentityFor below;
        const std::string label = at.label + ".identity_for[" + std::to_string(i + 1) + "]";
        const toml::table& entry = *array->get(i)->as_table();
        Given given = read_table(entry, "registry.identity_for", label,
                                 {.config = &config_, .registry = &registry, .below = &below});
        for (const std::string_view key : {"prefix", "identity"}) {
          if (given.contains(key)) continue;
          fault(line_of(entry.source()), label + "." + std::string(key),
                "missing; accepted: " + accepted(*find_option("registry.identity_for", key)));
        }
        at.identity_for.push_back({label, std::move(given)});
        registry.identity_for.push_back(std::move(below));
      }
    }
  }
  registries_.push_back(std::move(at));
  config_.proxy.registries.push_back(std::move(registry));
}

void OptionsReader::check_registry(const Registry& at, proxy::RegistrySettings& registry) {
  const bool is_wildcard = registry.name.starts_with("*.");
  if (!at.given.contains("name")) {
    fault(at.line, at.label + ".name",
          "missing; accepted: " + accepted(*find_option("registry", "name")));
  }
  if (is_wildcard && !registry.upstream.empty()) {
    fault(at.given.at("upstream"), at.label + ".upstream",
          "a wildcard has no upstream of its own: content comes from the very registry that the "
          "client names; to send one elsewhere, write a [[registry]] with its exact name");
  } else {
    check_upstreams(at, registry);
  }
  if (is_wildcard && registry.is_default) {
    fault(at.given.at("default"), at.label + ".default",
          "a wildcard names no registry that could answer for requests without one; accepted: "
          "true in one [[registry]] with an exact name");
  }
  fill_upstream(registry);
  check_callers(at, registry);
  if (!registry.ca_file.empty() && environment_.why_unreadable) {
    if (const std::string why = environment_.why_unreadable(registry.ca_file); !why.empty()) {
      fault(at.given.at("ca_file"), at.label + ".ca_file",
            shown(registry.ca_file) + " cannot be read (" + printable(why) +
                "); accepted: a PEM file that the daemon's user may read");
    }
  }
  check_identity_reference(at.label, "identity", at.given, registry.identity);
  check_token_goes_to_acr(registry, at.label, at.given, registry.identity);
  std::set<std::string> prefixes;
  for (std::size_t i = 0; i < registry.identity_for.size(); ++i) {
    const proxy::IdentityFor& below = registry.identity_for[i];
    const Registry::Below& where = at.identity_for[i];
    check_identity_reference(where.label, "identity", where.given, below.identity);
    check_token_goes_to_acr(registry, where.label, where.given, below.identity);
    if (!below.prefix.empty() && !prefixes.insert(below.prefix).second) {
      fault(where.given.at("prefix"), where.label + ".prefix",
            shown(below.prefix) +
                " is already given for this registry; accepted: each prefix "
                "once");
    }
  }
}

// What callers bring goes to the registry itself, as the machine's own passwords do.
void OptionsReader::check_callers(const Registry& at, const proxy::RegistrySettings& registry) {
  if (!registry.verify_callers || registry.upstream.empty()) return;
  const proxy::Url url = value_or_throw(proxy::Url::parse(registry.upstream.back()));
  if (proxy::auth::check_password_origin(url.origin())) return;
  fault(at.given.at("verify_callers"), at.label + ".verify_callers",
        "callers' passwords would go to " + shown(registry.upstream.back()) +
            " over plain http; accepted: true where the registry's own upstream is https or on "
            "this machine");
}

void OptionsReader::check_upstreams(const Registry& at, proxy::RegistrySettings& registry) {
  std::set<std::string> urls;
  std::string wrong;
  if (registry.upstream.size() > kMaxUpstreams) {
    wrong = "there are " + std::to_string(registry.upstream.size()) +
            "; accepted: at most 8, since a request may have to wait for each of them";
  }
  for (const std::string& text : registry.upstream) {
    const auto url = proxy::Url::parse(text);
    if (!url) {
      wrong = url.error().detail;
    } else if (!urls.insert(url->wire()).second) {
      wrong = shown(text) + " stands there twice; accepted: each URL once";
    }
  }
  if (wrong.empty()) return;
  fault(at.given.at("upstream"), at.label + ".upstream", std::move(wrong));
  registry.upstream.clear();
}

// A mirror may be a registry of this file, and is then asked with that one's identity. What a
// wildcard's "*" stands for is known here.
void OptionsReader::check_mirrors(const Registry& at, const proxy::RegistrySettings& registry) {
  if (registry.upstream.size() < 2) return;
  for (const proxy::UpstreamEntry& entry :
       proxy::upstream_entries(registry.name, registry, config_.proxy.registries, {})) {
    if (entry.own) continue;
    std::vector<std::string> identities{entry.settings.identity};
    for (const proxy::IdentityFor& below : entry.settings.identity_for)
      identities.push_back(below.identity);
    const bool for_azure = std::ranges::any_of(identities, [&](const std::string& identity) {
      const auto found = config_.proxy.identities.find(identity);
      return found != config_.proxy.identities.end() && is_for_azure(found->second.kind);
    });
    if (!for_azure) continue;
    const proxy::Url url = value_or_throw(proxy::Url::parse(entry.url));
    const auto usable =
        proxy::auth::check_acr_origin(url.origin(), config_.proxy.azure.acr_suffixes);
    if (!usable) {
      fault(at.given.at("upstream"), at.label + ".upstream",
            "a [[registry]] of this file gives " + shown(entry.url) +
                " an identity that is for Azure: " + usable.error().detail);
    }
  }
}

// Across registries: no name twice, one default.
void OptionsReader::check_names() {
  std::map<std::string, std::size_t> first_line;
  const Registry* first_default = nullptr;
  for (std::size_t i = 0; i < registries_.size(); ++i) {
    const Registry& at = registries_[i];
    const proxy::RegistrySettings& registry = config_.proxy.registries[i];
    if (!registry.name.empty()) {
      const auto [first, is_new] = first_line.emplace(registry.name, at.given.at("name"));
      if (!is_new) {
        fault(at.given.at("name"), at.label + ".name",
              shown(registry.name) + " is already configured in line " +
                  std::to_string(first->second) + "; accepted: each name once");
      }
    }
    if (registry.is_default && first_default) {
      fault(at.given.at("default"), at.label + ".default",
            first_default->label + " in line " + std::to_string(first_default->line) +
                " is the default already; accepted: true in one [[registry]]");
    } else if (registry.is_default) {
      first_default = &at;
    }
  }
}

void OptionsReader::check_identity_reference(const std::string& label, std::string_view key,
                                             const Given& given, const std::string& identity) {
  if (identity.empty() || identity_lines_.contains(identity)) return;
  std::string what = "there is no [identity." + identity + "]";
  std::vector<std::string_view> known;
  known.reserve(identity_lines_.size());
  for (const auto& [name, line] : identity_lines_) known.push_back(name);
  if (const std::string_view near = nearest(identity, known); !near.empty()) {
    what += "; did you mean " + shown(near) + "?";
  } else if (known.empty()) {
    what += "; for this machine's managed identity add: [identity." + identity +
            "] kind = \"managed-identity\"";
  } else {
    what += "; accepted:";
    for (const std::string_view name : known) what += " \"" + printable(name, 80) + "\"";
  }
  fault(given.find(key)->second, (label + ".").append(key), std::move(what));
}

// An Entra token works on every registry of a tenant, so it is given to Azure's registries only: a
// slip in a name must not hand it to a stranger (threat T6). Passwords are for whom the file says.
void OptionsReader::check_token_goes_to_acr(const proxy::RegistrySettings& registry,
                                            const std::string& label, const Given& given,
                                            const std::string& identity) {
  const auto found = config_.proxy.identities.find(identity);
  if (registry.name.empty() || found == config_.proxy.identities.end() ||
      !is_for_azure(found->second.kind)) {
    return;
  }
  const std::vector<std::string>& suffixes = config_.proxy.azure.acr_suffixes;
  if (registry.name.starts_with("*.")) {
    // What the "*" stands for is judged when it is known; the rest must be Azure's already.
    const std::string_view suffix = std::string_view(registry.name).substr(2);
    const auto is_above = [&](const std::string& acr) { return proxy::host_under(suffix, acr); };
    if (std::ranges::any_of(suffixes, is_above)) return;
    fault(given.at("identity"), label + ".identity",
          "the kind \"" + std::string(to_string(found->second.kind)) +
              "\" is for Azure Container Registry, and " + shown(registry.name) +
              " takes in other hosts; if these are its login servers, add their suffix to "
              "azure.acr_suffixes");
    return;
  }
  if (registry.upstream.empty()) return;
  // Mirrors are not sent it (check_mirrors).
  const proxy::Url url = value_or_throw(proxy::Url::parse(registry.upstream.back()));
  if (const auto usable = proxy::auth::check_acr_origin(url.origin(), suffixes); !usable) {
    fault(given.at("identity"), label + ".identity", usable.error().detail);
  }
}

void OptionsReader::use_built_in_registries() {
  auto& identities = config_.proxy.identities;
  if (!identity_lines_.contains(kBuiltInIdentity)) {
    proxy::IdentitySettings identity;
    store_defaults("identity", {.config = &config_, .identity = &identity});
    identity.kind = proxy::IdentityKind::managed_identity;
    identities[kBuiltInIdentity] = std::move(identity);
  }
  const auto add = [&](std::string name) -> proxy::RegistrySettings& {
    proxy::RegistrySettings registry;
    store_defaults("registry", {.config = &config_, .registry = &registry});
    registry.name = std::move(name);
    registry.freshness = config_.freshness;
    return config_.proxy.registries.emplace_back(std::move(registry));
  };
  for (const std::string& suffix : config_.proxy.azure.acr_suffixes) {
    if (!contains(kBuiltInSuffixes, suffix) && !contains(config_.extra_acr_suffixes, suffix))
      continue;
    add("*." + suffix).identity = kBuiltInIdentity;
  }
  for (const BuiltIn& built_in : kPublicRegistries) {
    proxy::RegistrySettings& registry = add(std::string(built_in.name));
    registry.is_default = built_in.is_default;
    fill_upstream(registry);
  }
}

}  // namespace staithe::daemon
