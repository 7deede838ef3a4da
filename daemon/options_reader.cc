// The reader: TOML to Config, by the option table, with every fault and not only the first.

#include <toml++/toml.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <set>
#include <tuple>
#include <utility>

#include "cache/escape.h"
#include "daemon/option_table.h"
#include "daemon/options.h"
#include "daemon/values.h"
#include "proxy/auth/trust.h"
#include "proxy/url.h"

namespace staithe::daemon {
namespace {

constexpr std::size_t kMaxRegistries = 1000;
constexpr std::size_t kMaxListEntries = 1000;

constexpr std::string_view kNotAvailable = "not available in this version";

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

// Keys that people put secrets under, and what they should use.
struct SecretKey {
  std::string_view key;
  std::string_view instead;
};
constexpr std::array<SecretKey, 15> kSecretKeys{{{"password", "password_file"},
                                                 {"password1", "password_file"},
                                                 {"password2", "password2_file"},
                                                 {"passwd", "password_file"},
                                                 {"client_secret", "client_secret_file"},
                                                 {"secret", "client_secret_file"},
                                                 {"certificate", "certificate_file"},
                                                 {"private_key", "certificate_file"},
                                                 {"token", "token_file"},
                                                 {"access_token", "token_file"},
                                                 {"refresh_token", "token_file"},
                                                 {"identity_token", "token_file"},
                                                 {"identitytoken", "token_file"},
                                                 {"registrytoken", "token_file"},
                                                 {"auth", "file"}}};

// Registry host suffixes of each cloud. Azure's public cloud names all three, because a machine of
// it may be federated with the others (interface.md, built-in defaults).
std::vector<std::string> suffixes_of(Cloud cloud) {
  switch (cloud) {
    case Cloud::public_cloud:
      return {"azurecr.io", "azurecr.cn", "azurecr.us"};
    case Cloud::china:
      return {"azurecr.cn"};
    case Cloud::us_government:
      return {"azurecr.us"};
  }
  std::unreachable();
}

std::string_view type_name(const toml::node& node) {
  switch (node.type()) {
    case toml::node_type::none:
      return "nothing";
    case toml::node_type::table:
      return "a table";
    case toml::node_type::array:
      return "a list";
    case toml::node_type::string:
      return "a string";
    case toml::node_type::integer:
      return "a whole number";
    case toml::node_type::floating_point:
      return "a number with a fraction";
    case toml::node_type::boolean:
      return "true or false without quotes";
    case toml::node_type::date:
    case toml::node_type::time:
    case toml::node_type::date_time:
      return "a date or time";
  }
  return "something else";
}

std::size_t line_of(const toml::source_region& region) { return region.begin.line; }

// What the option's grammar makes of the text.
Parsed<std::string> parse_text(const Option& option, std::string_view text,
                               const Environment& environment) {
  switch (option.grammar) {
    case Grammar::path:
      return parse_path(text, environment.get("CREDENTIALS_DIRECTORY"));
    case Grammar::listen_address:
      return parse_listen_address(text);
    case Grammar::host:
      return parse_host(text);
    case Grammar::host_pattern:
      return parse_host_pattern(text);
    case Grammar::host_suffix:
      return parse_host_suffix(text);
    case Grammar::registry_name:
      return parse_registry_name(text);
    case Grammar::origin_url:
      return parse_origin_url(text);
    case Grammar::https_origin:
      return parse_https_origin(text);
    case Grammar::audience:
      return parse_audience(text);
    case Grammar::repository_prefix:
      return parse_repository_prefix(text);
    case Grammar::identity_name:
      return parse_identity_name(text);
    case Grammar::account:
      return parse_account(text);
    case Grammar::guid:
      return parse_guid(text);
    case Grammar::azure_resource_id:
      return parse_azure_resource_id(text);
    case Grammar::plain_text:
      return parse_plain_text(text);
    case Grammar::flag:
    case Grammar::count:
    case Grammar::duration:
    case Grammar::size:
    case Grammar::word:
      break;
  }
  std::unreachable();
}

bool contains(const auto& range, const auto& value) {
  return std::ranges::find(range, value) != std::ranges::end(range);
}

// True if `word` is one of the words of `text`, which have one space between them.
bool has_word(std::string_view text, std::string_view word) {
  while (!text.empty()) {
    const std::size_t end = std::min(text.find(' '), text.size());
    if (text.substr(0, end) == word) return true;
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return false;
}

bool is_table_name(std::string_view name) {
  return std::ranges::find(tables(), name, &Table::name) != tables().end();
}

// Writes out the upstream that an exact name implies.
void fill_upstream(proxy::RegistrySettings& registry) {
  if (!registry.upstream.empty() || registry.name.empty() || registry.name.starts_with("*."))
    return;
  // Docker Hub is docker.io in image names and answers elsewhere.
  const std::string host = registry.name == "docker.io" ? "registry-1.docker.io" : registry.name;
  registry.upstream = {"https://" + host};
}

// The keys that a table gave, well or not, and where.
using Given = std::map<std::string, std::size_t, std::less<>>;

class Reader {
 public:
  Reader(std::string file, const Environment& environment)
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
  void read_registries(const toml::table& root);
  void read_registry(const toml::table& in, std::size_t number);
  void use_built_in_registries();

  void check_listen(const Given& given);
  void check_registry(const Registry& at, proxy::RegistrySettings& registry);
  void check_names();
  void check_identity_reference(const std::string& label, const Given& given,
                                const std::string& identity);
  void check_token_goes_to_acr(const proxy::RegistrySettings& registry, const std::string& label,
                               const Given& given, const std::string& identity);

  const std::string file_;
  const Environment& environment_;
  Config config_;
  Faults faults_;
  std::map<std::string, Given, std::less<>> given_;    // by table, for the single ones
  std::map<std::string, std::size_t> identity_lines_;  // every [identity.NAME], well or not
  std::vector<Registry> registries_;                   // as config_.proxy.registries
};

void Reader::fault(std::size_t line, std::string key, std::string what) {
  faults_.push_back({file_, line, std::move(key), std::move(what)});
}

void Reader::fault_unknown(const toml::key& key, std::string_view table, const std::string& path) {
  const std::string_view name = key.str();
  const std::string where = (path.empty() ? "" : path + ".") + printable(name, 80);
  const auto secret = std::ranges::find(kSecretKeys, name, &SecretKey::key);
  if (secret != kSecretKeys.end()) {
    fault(line_of(key.source()), where,
          "a secret does not belong into this file: put it into a file of its own that only the "
          "daemon can read, or a systemd credential, and name that file with " +
              std::string(secret->instead));
    return;
  }
  std::vector<std::string_view> here;
  std::string elsewhere;
  for (const Option& option : options()) {
    if (option.table == table) {
      here.push_back(option.key);
    } else if (option.key == name && option.availability == Availability::now) {
      elsewhere = option.table;
    }
  }
  for (const Table& other : tables()) {
    if (table.empty() && other.name.find('.') == other.name.npos) here.push_back(other.name);
    if (other.name.starts_with(std::string(table) + ".")) {
      here.push_back(other.name.substr(table.size() + 1));
    }
  }
  std::string what = table.empty() ? "unknown table or key" : "unknown key";
  if (const std::string_view near = nearest(name, here); !near.empty()) {
    what += "; did you mean \"" + std::string(near) + "\"?";
  } else if (!elsewhere.empty()) {
    what += " here; it belongs to [" + elsewhere + "]";
  } else {
    what += "; accepted: ";
    for (std::size_t i = 0; i < here.size(); ++i) what += (i ? ", " : "") + std::string(here[i]);
  }
  fault(line_of(key.source()), where, std::move(what));
}

void Reader::store_defaults(std::string_view table, const Target& target) {
  for (const Option& option : options()) {
    if (option.table != table || option.standard.empty()) continue;
    if (std::holds_alternative<std::monostate>(option.slot)) continue;
    const toml::table line = toml::parse("value = " + std::string(option.standard));
    read_option(option, *line.get("value"), std::string(option.key), target);
  }
}

std::expected<Config, Faults> Reader::read(std::string_view text) {
  for (const Table& table : tables()) {
    if (table.shape == Shape::single && table.name.find('.') == table.name.npos) {
      store_defaults(table.name, {.config = &config_});
    }
  }
  config_.control_socket = default_control_socket(environment_);
  config_.cache.directory = default_cache_directory(environment_);
  // A default that is not well is a fault of the table, found by the tests.
  if (!faults_.empty()) return std::unexpected(std::move(faults_));

  try {
    read_root(toml::parse(text, file_));
  } catch (const toml::parse_error& error) {
    // The parser stops at its first error, so this is the only fault.
    fault(line_of(error.source()), "", "not TOML: " + printable(error.description(), 300));
  }
  if (faults_.empty()) return std::move(config_);
  std::ranges::sort(faults_, {}, [](const Fault& f) { return std::tie(f.line, f.key, f.what); });
  return std::unexpected(std::move(faults_));
}

void Reader::read_root(const toml::table& root) {
  for (const auto& [key, node] : root) {
    if (!is_table_name(key.str())) fault_unknown(key, "", "");
  }
  for (const Table& table : tables()) {
    if (table.shape != Shape::single || !root.contains(table.name)) continue;
    const std::string name(table.name);
    if (const toml::table* in = as_table(*root.get(name), name)) {
      given_[name] = read_table(*in, name, name, {.config = &config_});
    }
  }
  check_listen(given_["listen"]);
  if (config_.cache.directory.empty() && !given_["cache"].contains("directory")) {
    fault(0, "cache.directory",
          "neither $CACHE_DIRECTORY, $XDG_CACHE_HOME nor $HOME is set, so there is no place for "
          "the cache; set this key to an absolute path");
  }
  auto& suffixes = config_.proxy.azure.acr_suffixes;
  suffixes = suffixes_of(config_.cloud);
  for (const std::string& suffix : config_.extra_acr_suffixes) {
    if (!contains(suffixes, suffix)) suffixes.push_back(suffix);
  }
  read_identities(root);
  read_registries(root);
}

const toml::table* Reader::as_table(const toml::node& node, const std::string& path) {
  if (const toml::table* table = node.as_table()) return table;
  std::string what = "this is " + std::string(type_name(node));
  if (const toml::array* array = node.as_array(); array && array->is_array_of_tables()) {
    what = "this table stands there once, in single brackets";
  }
  fault(line_of(node.source()), path, what + "; accepted: a table, [" + path + "]");
  return nullptr;
}

Given Reader::read_table(const toml::table& in, std::string_view table, const std::string& path,
                         const Target& target) {
  Given given;
  for (const auto& [key, node] : in) {
    const std::string name(key.str());
    if (is_table_name(std::string(table) + "." + name)) continue;  // the caller reads it
    const Option* option = find_option(table, name);
    if (!option) {
      fault_unknown(key, table, path);
      continue;
    }
    given[name] = line_of(key.source());
    read_option(*option, node, (path + ".").append(name), target);
  }
  return given;
}

void Reader::read_option(const Option& option, const toml::node& node, const std::string& path,
                         const Target& target) {
  std::optional<OptionValue> value = read_value(option, node, path);
  if (!value) return;
  // Keys of an identity are judged by its kind, in read_identity().
  if (option.availability == Availability::later && option.table != "identity" &&
      (option.off.empty() || toml_text(option, *value) != option.off)) {
    fault(line_of(node.source()), path,
          std::string(kNotAvailable) + "; accepted: " +
              (option.off.empty() ? "" : std::string(option.off) + ", or ") + "leave the key out");
    return;
  }
  store(option, target, std::move(*value));
}

std::optional<OptionValue> Reader::read_value(const Option& option, const toml::node& node,
                                              const std::string& path) {
  if (option.list) return read_list(option, node, path);
  const std::size_t line = line_of(node.source());
  const auto wrong_type = [&](std::string_view wanted) {
    fault(line, path,
          "this is " + std::string(type_name(node)) + "; accepted: " + std::string(wanted) + " (" +
              accepted(option) + ")");
    return std::nullopt;
  };
  const auto out_of_range = [&](const std::string& value) {
    fault(line, path, value + " is out of range; accepted: " + accepted(option));
    return std::nullopt;
  };
  switch (option.grammar) {
    case Grammar::flag: {
      const auto* flag = node.as_boolean();
      if (!flag) return wrong_type("a boolean without quotes");
      return flag->get();
    }
    case Grammar::count: {
      const auto* number = node.as_integer();
      if (!number) return wrong_type("a whole number without quotes");
      if (number->get() < option.least || number->get() > option.most) {
        return out_of_range(std::to_string(number->get()));
      }
      return static_cast<std::size_t>(number->get());
    }
    case Grammar::duration: {
      const auto* text = node.as_string();
      if (!text) return wrong_type("a string with a unit, such as \"30s\"");
      const auto duration = parse_duration(text->get());
      if (!duration) {
        fault(line, path, duration.error());
        return std::nullopt;
      }
      if (duration->count() < option.least || duration->count() > option.most) {
        return out_of_range(shown(text->get()));
      }
      return *duration;
    }
    case Grammar::size: {
      std::string text;
      if (const auto* number = node.as_integer()) {
        text = std::to_string(number->get());
      } else if (const auto* string = node.as_string()) {
        text = string->get();
      } else {
        return wrong_type("a number of bytes, or a string such as \"10GiB\" or \"80%\"");
      }
      const auto size = parse_size(text);
      if (!size) {
        fault(line, path, size.error());
        return std::nullopt;
      }
      const bool is_share = text.ends_with('%');
      const double percent = size->share * 100;
      const bool in_range =
          is_share ? percent > option.least_percent - 0.5 && percent < option.most_percent + 0.5
                   : std::cmp_greater_equal(size->bytes, option.least) &&
                         std::cmp_less_equal(size->bytes, option.most);
      if (!in_range) return out_of_range(shown(text));
      return *size;
    }
    case Grammar::word:
      return read_word(option, node, path);
    default:
      break;
  }
  std::optional<std::string> text = read_text(option, node, path);
  if (!text) return std::nullopt;
  return OptionValue(std::move(*text));
}

std::optional<OptionValue> Reader::read_word(const Option& option, const toml::node& node,
                                             const std::string& path) {
  const auto* text = node.as_string();
  if (!text) {
    fault(line_of(node.source()), path,
          "this is " + std::string(type_name(node)) + "; accepted: " + accepted(option));
    return std::nullopt;
  }
  const auto word = std::ranges::find(option.words, text->get(), &Word::text);
  if (word != option.words.end() && word->available) {
    return WordIndex{static_cast<std::size_t>(word - option.words.begin())};
  }
  std::string what = shown(text->get());
  if (word != option.words.end()) {
    what += " is " + std::string(kNotAvailable);
  } else {
    std::vector<std::string_view> words;
    for (const Word& known : option.words) words.push_back(known.text);
    what += " is not known";
    if (const std::string_view near = nearest(text->get(), words); !near.empty()) {
      what += "; did you mean \"" + std::string(near) + "\"?";
    }
  }
  fault(line_of(node.source()), path, what + "; accepted: " + accepted(option));
  return std::nullopt;
}

std::optional<std::string> Reader::read_text(const Option& option, const toml::node& node,
                                             const std::string& path) {
  const auto* text = node.as_string();
  if (!text) {
    if (const auto* number = node.as_integer(); number && option.grammar == Grammar::account) {
      const auto account = parse_account(std::to_string(number->get()));
      if (account) return *account;
      fault(line_of(node.source()), path, account.error());
      return std::nullopt;
    }
    fault(line_of(node.source()), path,
          "this is " + std::string(type_name(node)) + "; accepted: a string (" + accepted(option) +
              ")");
    return std::nullopt;
  }
  // The default of an optional text means "none" and is not of its grammar.
  if (text->get().empty() && option.standard == "\"\"") return std::string();
  if (option.grammar != Grammar::path && text->get().find("${") != std::string::npos) {
    fault(line_of(node.source()), path,
          "${...} is put in for paths only; accepted: " + accepted(option));
    return std::nullopt;
  }
  auto value = parse_text(option, text->get(), environment_);
  if (!value) {
    fault(line_of(node.source()), path, value.error());
    return std::nullopt;
  }
  return std::move(*value);
}

std::optional<OptionValue> Reader::read_list(const Option& option, const toml::node& node,
                                             const std::string& path) {
  const toml::array* array = node.as_array();
  if (!array) {
    fault(line_of(node.source()), path,
          "this is " + std::string(type_name(node)) + "; accepted: a list in brackets (" +
              accepted(option) + ")");
    return std::nullopt;
  }
  if (array->size() > kMaxListEntries) {
    fault(line_of(node.source()), path, "a list has at most 1000 entries");
    return std::nullopt;
  }
  std::vector<std::string> list;
  bool good = true;
  for (const toml::node& element : *array) {
    std::optional<std::string> text = read_text(option, element, path);
    if (!text) {
      good = false;
    } else if (contains(list, *text)) {
      fault(line_of(element.source()), path, shown(*text) + " stands there twice");
      good = false;
    } else {
      list.push_back(std::move(*text));
    }
  }
  if (!good) return std::nullopt;
  return OptionValue(std::move(list));
}

void Reader::check_listen(const Given& given) {
  if (given.contains("registry") && config_.proxy.listen.empty()) {
    fault(given.at("registry"), "listen.registry",
          "the list is empty, so that no client could connect; accepted: " +
              accepted(*find_option("listen", "registry")));
  }
  if (config_.control_socket.native().size() > kMaxSocketPath) {
    const auto line = given.find("control");
    fault(line == given.end() ? 0 : line->second, "listen.control",
          shown(config_.control_socket.native()) +
              " is longer than the 107 bytes that a Unix socket's path has");
  }
}

void Reader::read_identities(const toml::table& root) {
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

void Reader::read_identity(const std::string& name, const toml::table& in,
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

void Reader::read_registries(const toml::table& root) {
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
  check_names();
}

void Reader::read_registry(const toml::table& in, std::size_t number) {
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
      read_table(*table, "registry." + std::string(sub), path, target);
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

void Reader::check_registry(const Registry& at, proxy::RegistrySettings& registry) {
  const bool is_wildcard = registry.name.starts_with("*.");
  if (!at.given.contains("name")) {
    fault(at.line, at.label + ".name",
          "missing; accepted: " + accepted(*find_option("registry", "name")));
  }
  if (is_wildcard && !registry.upstream.empty()) {
    fault(at.given.at("upstream"), at.label + ".upstream",
          "a wildcard has no upstream of its own: content comes from the very registry that the "
          "client names; to send one elsewhere, write a [[registry]] with its exact name");
  } else if (registry.upstream.size() > 1) {
    fault(at.given.at("upstream"), at.label + ".upstream",
          "more than one upstream is " + std::string(kNotAvailable) + "; accepted: one URL");
  }
  if (is_wildcard && registry.is_default) {
    fault(at.given.at("default"), at.label + ".default",
          "a wildcard names no registry that could answer for requests without one; accepted: "
          "true in one [[registry]] with an exact name");
  }
  fill_upstream(registry);
  if (!registry.ca_file.empty() && environment_.why_unreadable) {
    if (const std::string why = environment_.why_unreadable(registry.ca_file); !why.empty()) {
      fault(at.given.at("ca_file"), at.label + ".ca_file",
            shown(registry.ca_file) + " cannot be read (" + printable(why) +
                "); accepted: a PEM file that the daemon's user may read");
    }
  }
  check_identity_reference(at.label, at.given, registry.identity);
  check_token_goes_to_acr(registry, at.label, at.given, registry.identity);
  std::set<std::string> prefixes;
  for (std::size_t i = 0; i < registry.identity_for.size(); ++i) {
    const proxy::IdentityFor& below = registry.identity_for[i];
    const Registry::Below& where = at.identity_for[i];
    check_identity_reference(where.label, where.given, below.identity);
    check_token_goes_to_acr(registry, where.label, where.given, below.identity);
    if (!below.prefix.empty() && !prefixes.insert(below.prefix).second) {
      fault(where.given.at("prefix"), where.label + ".prefix",
            shown(below.prefix) +
                " is already given for this registry; accepted: each prefix "
                "once");
    }
  }
}

// Across registries: no name twice, one default.
void Reader::check_names() {
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

void Reader::check_identity_reference(const std::string& label, const Given& given,
                                      const std::string& identity) {
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
  fault(given.at("identity"), label + ".identity", std::move(what));
}

// An Entra token works on every registry of a tenant, so it is given to Azure's registries only: a
// slip in a name must not hand it to a stranger (threat T6).
void Reader::check_token_goes_to_acr(const proxy::RegistrySettings& registry,
                                     const std::string& label, const Given& given,
                                     const std::string& identity) {
  const auto found = config_.proxy.identities.find(identity);
  if (registry.name.empty() || found == config_.proxy.identities.end() ||
      found->second.kind != proxy::IdentityKind::managed_identity) {
    return;
  }
  const std::vector<std::string>& suffixes = config_.proxy.azure.acr_suffixes;
  if (registry.name.starts_with("*.")) {
    // What the "*" stands for is judged when it is known; the rest must be Azure's already.
    const std::string_view suffix = std::string_view(registry.name).substr(2);
    const auto is_above = [&](const std::string& acr) { return proxy::host_under(suffix, acr); };
    if (std::ranges::any_of(suffixes, is_above)) return;
    fault(given.at("identity"), label + ".identity",
          "a managed identity is for Azure Container Registry, and " + shown(registry.name) +
              " takes in other hosts; if these are its login servers, add their suffix to "
              "azure.acr_suffixes");
    return;
  }
  for (const std::string& text : registry.upstream) {
    const auto url = proxy::Url::parse(text);
    if (!url) {
      fault(given.at("identity"), label + ".identity", url.error().detail);
    } else if (const auto usable = proxy::auth::check_acr_origin(url->origin(), suffixes);
               !usable) {
      fault(given.at("identity"), label + ".identity", usable.error().detail);
    }
  }
}

void Reader::use_built_in_registries() {
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
    add("*." + suffix).identity = kBuiltInIdentity;
  }
  for (const BuiltIn& built_in : kPublicRegistries) {
    proxy::RegistrySettings& registry = add(std::string(built_in.name));
    registry.is_default = built_in.is_default;
    fill_upstream(registry);
  }
}

}  // namespace

std::expected<Config, Faults> parse_config(std::string_view toml, const std::string& file,
                                           const Environment& environment) {
  return Reader(file, environment).read(toml);
}

}  // namespace staithe::daemon
