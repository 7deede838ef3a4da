// The reader of staithe.toml: TOML to Config, by the option table, with every fault and not only
// the first. Private to daemon/options_*.cc; options.h is the door.
//
// options_reader.cc walks tables and values, options_identities.cc and options_registries.cc judge
// what only makes sense together.
#pragma once

#include <toml++/toml.h>

#include <algorithm>
#include <cstddef>
#include <expected>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "daemon/option_table.h"
#include "daemon/options.h"

namespace staithe::daemon {

inline constexpr std::size_t kMaxListEntries = 1000;

// What a node is, in the words of a fault: "a whole number".
std::string_view type_name(const toml::node& node);

inline std::size_t line_of(const toml::source_region& region) { return region.begin.line; }

bool contains(const auto& range, const auto& value) {
  return std::ranges::find(range, value) != std::ranges::end(range);
}

// The keys that a table gave, well or not, and where.
using Given = std::map<std::string, std::size_t, std::less<>>;

class OptionsReader {
 public:
  OptionsReader(std::string file, const Environment& environment)
      : file_(std::move(file)), environment_(environment) {}

  std::expected<Config, Faults> read(std::string_view text);

 private:
  // A [[registry]] on its way, with what its checks need.
  struct Registry {
    std::string label;  // registry["docker.io"]
    std::size_t line;
    Given given;
    struct Below {
      std::string label;
      Given given;
    };
    std::vector<Below> identity_for;
  };

  void fault(std::size_t line, std::string key, std::string what);
  // True if the value of this key has been refused already.
  bool has_fault(std::string_view key) const {
    return std::ranges::find(faults_, key, &Fault::key) != faults_.end();
  }
  void fault_unknown(const toml::key& key, std::string_view table, const std::string& path);

  void store_defaults(std::string_view table, const Target& target);
  void read_root(const toml::table& root);
  Given read_table(const toml::table& in, std::string_view table, const std::string& path,
                   const Target& target);
  // Null, with a fault, if it is not a table.
  const toml::table* as_table(const toml::node& node, const std::string& path);
  void read_option(const Option& option, const toml::node& node, const std::string& path,
                   const Target& target);
  std::optional<OptionValue> read_value(const Option& option, const toml::node& node,
                                        const std::string& path);
  std::optional<OptionValue> read_word(const Option& option, const toml::node& node,
                                       const std::string& path);
  std::optional<std::string> read_text(const Option& option, const toml::node& node,
                                       const std::string& path);
  std::optional<OptionValue> read_list(const Option& option, const toml::node& node,
                                       const std::string& path);

  void read_identities(const toml::table& root);
  void read_identity(const std::string& name, const toml::table& in, const std::string& path);
  // What a workload identity leaves out stands in the environment (the webhook's injection).
  void fill_workload_identity(proxy::IdentitySettings& identity, const Given& given,
                              std::size_t line, const std::string& path);
  void check_identity(proxy::IdentitySettings& identity, const Given& given, std::size_t line,
                      const std::string& path);
  void check_federation();
  void read_registries(const toml::table& root);
  void read_registry(const toml::table& in, std::size_t number);
  void use_built_in_registries();

  void check_listen(const Given& given);
  void check_warm(const Given& given);
  void check_registry(const Registry& at, proxy::RegistrySettings& registry);
  void check_upstreams(const Registry& at, proxy::RegistrySettings& registry);
  void check_callers(const Registry& at, const proxy::RegistrySettings& registry);
  void check_mirrors(const Registry& at, const proxy::RegistrySettings& registry);
  void check_names();
  // `key` of the table `label` names an identity; there must be one.
  void check_identity_reference(const std::string& label, std::string_view key, const Given& given,
                                const std::string& identity);
  void check_token_goes_to_acr(const proxy::RegistrySettings& registry, const std::string& label,
                               const Given& given, const std::string& identity);

  const std::string file_;
  const Environment& environment_;
  Config config_;
  Faults faults_;
  std::map<std::string, Given, std::less<>> given_;    // by table, for the single ones
  std::map<std::string, std::size_t> identity_lines_;  // every [identity.NAME], well or not
  std::map<std::string, Given> identity_given_;        // of those that are in proxy.identities
  std::vector<Registry> registries_;                   // as config_.proxy.registries
};

}  // namespace staithe::daemon
