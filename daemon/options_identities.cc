// [identity.NAME]: each key of it is judged by its kind.
#include <algorithm>
#include <utility>

#include "cache/escape.h"
#include "daemon/options_reader.h"
#include "daemon/values.h"

namespace staithe::daemon {
namespace {

// True if `word` is one of the words of `text`, which have one space between them.
bool has_word(std::string_view text, std::string_view word) {
  while (!text.empty()) {
    const std::size_t end = std::min(text.find(' '), text.size());
    if (text.substr(0, end) == word) return true;
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return false;
}

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
}

void OptionsReader::read_identity(const std::string& name, const toml::table& in,
                                  const std::string& path) {
  proxy::IdentitySettings identity;
  const Target target{.config = &config_, .identity = &identity};
  store_defaults("identity", target);
  const Given given = read_table(in, "identity", path, target);
  const Option& kind_option = *find_option("identity", "kind");
  if (!given.contains("kind")) {
    fault(line_of(in.source()), path + ".kind", "missing; accepted: " + accepted(kind_option));
    return;
  }
  const std::string kind = in["kind"].value_or(std::string());
  if (std::ranges::find(kind_option.words, kind, &Word::text) == kind_option.words.end())
    return;  // already a fault
  for (const auto& [key, line] : given) {
    const std::string_view kinds = find_option("identity", key)->kinds;
    if (kinds.empty() || has_word(kinds, kind)) continue;
    fault(line, (path + ".").append(key),
          "this key does not belong to the kind \"" + kind + "\" but to " + std::string(kinds));
  }
  const bool several = (identity.client_id.empty() ? 0 : 1) + (identity.object_id.empty() ? 0 : 1) +
                           (identity.resource_id.empty() ? 0 : 1) >
                       1;
  if (several) {
    fault(line_of(in.source()), path,
          "client_id, object_id and resource_id each name an identity; accepted: at most one of "
          "them");
  }
  config_.proxy.identities[name] = std::move(identity);
}

}  // namespace staithe::daemon
