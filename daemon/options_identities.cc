// [identity.NAME]: each key of it is judged by its kind.
#include <algorithm>
#include <array>
#include <utility>

#include "cache/escape.h"
#include "daemon/options_reader.h"
#include "daemon/values.h"

namespace staithe::daemon {
namespace {

// What an identity of a kind cannot do without. Either of two is checked by hand.
struct Required {
  proxy::IdentityKind kind;
  std::string_view key;
};
constexpr std::array<Required, 7> kRequired{{{proxy::IdentityKind::service_principal, "tenant_id"},
                                             {proxy::IdentityKind::service_principal, "client_id"},
                                             {proxy::IdentityKind::basic, "username"},
                                             {proxy::IdentityKind::basic, "password_file"},
                                             {proxy::IdentityKind::token, "token_file"},
                                             {proxy::IdentityKind::helper, "helper"},
                                             {proxy::IdentityKind::docker_config, "file"}}};

}  // namespace

void OptionsReader::read_identities(const toml::table& root) {
  const toml::node* node = root.get("identity");
  if (!node) return;
  const toml::table* in = node->as_table();
  if (!in) {
    fault(line_of(node->source()), "identity",
          "this is " + std::string(type_name(*node)) + "; accepted: one [identity.NAME] each");
    return;
  }
  for (const auto& [key, entry] : *in) {
    const std::string name(key.str());
    const std::string path = "identity." + printable(name, 80);
    identity_lines_[name] = line_of(key.source());
    if (!entry.is_table()) {
      const bool is_key = find_option("identity", name) != nullptr;
      fault(line_of(key.source()), path,
            is_key ? "this key belongs to an identity, and the identity has no name here; "
                     "accepted: [identity.NAME], as in [identity.vm]"
                   : "this is " + std::string(type_name(entry)) + "; accepted: a table, [" + path +
                         "]");
      continue;
    }
    if (const auto good = parse_identity_name(name); !good) {
      fault(line_of(key.source()), path, good.error());
    }
    read_identity(name, *entry.as_table(), path);
  }
  check_federation();
}

void OptionsReader::read_identity(const std::string& name, const toml::table& in,
                                  const std::string& path) {
  proxy::IdentitySettings identity;
  const Target target{.config = &config_, .identity = &identity};
  store_defaults("identity", target);
  Given given = read_table(in, "identity", path, target);
  const Option& kind_option = *find_option("identity", "kind");
  const std::size_t line = line_of(in.source());
  if (!given.contains("kind")) {
    fault(line, path + ".kind", "missing; accepted: " + accepted(kind_option));
    return;
  }
  const std::string kind = in["kind"].value_or(std::string());
  if (std::ranges::find(kind_option.words, kind) == kind_option.words.end())
    return;  // already a fault
  for (const auto& [key, key_line] : given) {
    const Option& option = *find_option("identity", key);
    if (belongs_to(option, kind)) continue;
    fault(key_line, (path + ".").append(key),
          "this key does not belong to the kind \"" + kind + "\" but to " +
              std::string(option.kinds));
  }
  if (identity.kind == proxy::IdentityKind::workload_identity)
    fill_workload_identity(identity, given, line, path);
  check_identity(identity, given, line, path);
  identity_given_[name] = std::move(given);
  config_.proxy.identities[name] = std::move(identity);
}

void OptionsReader::fill_workload_identity(proxy::IdentitySettings& identity, const Given& given,
                                           std::size_t line, const std::string& path) {
  const auto fill = [&](std::string_view key, std::string_view variable, const auto& grammar,
                        auto& value) {
    const std::string where = (path + ".").append(key);
    if (!value.empty() || has_fault(where)) return;
    const std::string_view text = environment_.get(variable);
    if (text.empty()) {
      fault(line, where,
            "missing, and $" + std::string(variable) +
                " is not set, from which it would be taken (in Kubernetes the workload identity "
                "webhook sets it); accepted: " +
                accepted(*find_option("identity", key)));
      return;
    }
    auto parsed = grammar(text);
    if (!parsed) {
      fault(line, where, "taken from $" + std::string(variable) + ": " + parsed.error());
      return;
    }
    value = std::move(*parsed);
  };
  fill("tenant_id", "AZURE_TENANT_ID", parse_guid, identity.tenant_id);
  fill("client_id", "AZURE_CLIENT_ID", parse_guid, identity.client_id);
  if (!given.contains("federated_identity")) {
    fill(
        "token_file", "AZURE_FEDERATED_TOKEN_FILE",
        [](std::string_view text) { return parse_path(text, ""); }, identity.token_file);
  }
  std::string& authority = config_.proxy.azure.authority;
  if (!authority.empty() || given_["azure"].contains("authority")) return;
  const std::string_view host = environment_.get("AZURE_AUTHORITY_HOST");
  if (host.empty()) return;  // the cloud's own
  auto parsed = parse_authority(host);
  if (parsed) {
    authority = std::move(*parsed);
  } else {
    fault(line, path,
          "$AZURE_AUTHORITY_HOST: " + parsed.error() + "; azure.authority overrides the variable");
  }
}

void OptionsReader::check_identity(proxy::IdentitySettings& identity, const Given& given,
                                   std::size_t line, const std::string& path) {
  for (const Required& required : kRequired) {
    if (required.kind != identity.kind) continue;
    const Option& option = *find_option("identity", required.key);
    const std::string where = (path + ".").append(required.key);
    const OptionValue value = fetch(option, {.config = &config_, .identity = &identity});
    if (std::get<std::string>(value).empty() && !has_fault(where))
      fault(line, where, "missing; accepted: " + accepted(option));
  }
  switch (identity.kind) {
    case proxy::IdentityKind::managed_identity: {
      const int selectors =
          !identity.client_id.empty() + !identity.object_id.empty() + !identity.resource_id.empty();
      if (selectors > 1) {
        fault(line, path,
              "client_id, object_id and resource_id each name an identity; accepted: at most one "
              "of them");
      }
      break;
    }
    case proxy::IdentityKind::service_principal:
      if (given.contains("client_secret_file") == given.contains("certificate_file")) {
        fault(line, path,
              "a service principal proves itself by a secret or by a certificate; accepted: either "
              "client_secret_file or certificate_file");
      }
      break;
    case proxy::IdentityKind::workload_identity:
      if (given.contains("token_file") && given.contains("federated_identity")) {
        fault(line, path,
              "token_file and federated_identity each name the proof; accepted: one of them");
      }
      break;
    default:
      break;
  }
}

void OptionsReader::check_federation() {
  for (const auto& [name, identity] : config_.proxy.identities) {
    if (identity.federated_identity.empty()) continue;
    const std::string path = "identity." + printable(name, 80);
    const Given& given = identity_given_[name];
    if (!identity_lines_.contains(identity.federated_identity)) {
      check_identity_reference(path, "federated_identity", given, identity.federated_identity);
      continue;
    }
    const auto other = config_.proxy.identities.find(identity.federated_identity);
    if (other == config_.proxy.identities.end()) continue;  // it has a fault of its own
    if (other->second.kind != proxy::IdentityKind::managed_identity) {
      fault(given.at("federated_identity"), path + ".federated_identity",
            shown(identity.federated_identity) + " is of the kind \"" +
                to_string(other->second.kind) +
                "\"; accepted: the NAME of an identity of the kind \"managed-identity\"");
    }
  }
}

}  // namespace staithe::daemon
