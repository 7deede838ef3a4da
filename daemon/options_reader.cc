// The walk through tables and values.
#include "daemon/options_reader.h"

#include <array>
#include <cstdint>
#include <tuple>
#include <utility>

#include "cache/escape.h"
#include "daemon/image_name.h"
#include "daemon/platform.h"
#include "daemon/values.h"
#include "proxy/registries.h"

namespace staithe::daemon {
namespace {

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

// Where azure-protocol.md section 2 puts each cloud. The public cloud names the others' suffixes
// too, because a machine of it may be federated with them, and because it stands for the clouds
// that have no word of their own (Germany, and the sovereign ones, whose authority the file then
// names).
struct CloudHosts {
  std::string_view authority;
  std::vector<std::string> acr_suffixes;
};
CloudHosts hosts_of(Cloud cloud) {
  switch (cloud) {
    case Cloud::public_cloud:
      return {"https://login.microsoftonline.com",
              {"azurecr.io", "azurecr.cn", "azurecr.us", "azurecr.de", "azurecr.sovcloud-azure.fr",
               "azurecr.sovcloud-azure.de"}};
    case Cloud::china:
      return {"https://login.partner.microsoftonline.cn", {"azurecr.cn"}};
    case Cloud::us_government:
      return {"https://login.microsoftonline.us", {"azurecr.us"}};
  }
  std::unreachable();
}

// By these a host of managed identities or of workload identities says where they are.
constexpr std::array<const char*, 10> kAzureVariables{"IDENTITY_ENDPOINT",
                                                      "IDENTITY_HEADER",
                                                      "IDENTITY_SERVER_THUMBPRINT",
                                                      "IMDS_ENDPOINT",
                                                      "MSI_ENDPOINT",
                                                      "MSI_SECRET",
                                                      "AZURE_KUBERNETES_TOKEN_PROXY",
                                                      "AZURE_KUBERNETES_SNI_NAME",
                                                      "AZURE_KUBERNETES_CA_FILE",
                                                      "AZURE_KUBERNETES_CA_DATA"};

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
    case Grammar::upstream_url:
      return parse_upstream_url(text);
    case Grammar::authority:
      return parse_authority(text);
    case Grammar::audience:
      return parse_audience(text);
    case Grammar::repository_prefix:
      return parse_repository_prefix(text);
    case Grammar::image: {
      const auto image = parse_image_name(text);
      if (!image) return std::unexpected(image.error().detail);
      return std::string(text);
    }
    case Grammar::platform: {
      const auto choice = parse_platform_choice(text);
      if (!choice) return std::unexpected(choice.error().detail);
      return choice->to_string();
    }
    case Grammar::identity_name:
      return parse_identity_name(text);
    case Grammar::account:
      return parse_account(text);
    case Grammar::guid:
      return parse_guid(text);
    case Grammar::azure_resource_id:
      return parse_azure_resource_id(text);
    case Grammar::helper_name:
      return parse_helper_name(text);
    case Grammar::plain_text:
      return parse_plain_text(text);
    case Grammar::flag:
    case Grammar::count:
    case Grammar::duration:
    case Grammar::size:
    case Grammar::word:
    case Grammar::date:
      break;
  }
  std::unreachable();
}

bool is_table_name(std::string_view name) {
  return std::ranges::find(tables(), name, &Table::name) != tables().end();
}

}  // namespace

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

void OptionsReader::fault(std::size_t line, std::string key, std::string what) {
  faults_.push_back({file_, line, std::move(key), std::move(what)});
}

void OptionsReader::fault_unknown(const toml::key& key, std::string_view table,
                                  const std::string& path) {
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
    } else if (option.key == name) {
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

void OptionsReader::store_defaults(std::string_view table, const Target& target) {
  for (const Option& option : options()) {
    if (option.table != table || option.standard.empty()) continue;
    const toml::table line = toml::parse("value = " + std::string(option.standard));
    read_option(option, *line.get("value"), std::string(option.key), target);
  }
}

std::expected<Config, Faults> OptionsReader::read(std::string_view text) {
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

void OptionsReader::read_root(const toml::table& root) {
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
  proxy::AzureSettings& azure = config_.proxy.azure;
  azure.acr_suffixes = hosts_of(config_.cloud).acr_suffixes;
  for (const std::string& suffix : config_.extra_acr_suffixes) {
    if (!contains(azure.acr_suffixes, suffix)) azure.acr_suffixes.push_back(suffix);
  }
  for (const char* name : kAzureVariables) {
    if (const std::string_view value = environment_.get(name); !value.empty())
      azure.variables[name] = value;
  }
  read_identities(root);
  // After the identities, since $AZURE_AUTHORITY_HOST speaks for a workload identity.
  if (azure.authority.empty()) azure.authority = hosts_of(config_.cloud).authority;
  read_registries(root);
  check_warm(given_["warm"]);
}

const toml::table* OptionsReader::as_table(const toml::node& node, const std::string& path) {
  if (const toml::table* table = node.as_table()) return table;
  std::string what = "this is " + std::string(type_name(node));
  if (const toml::array* array = node.as_array(); array && array->is_array_of_tables()) {
    what = "this table stands there once, in single brackets";
  }
  fault(line_of(node.source()), path, what + "; accepted: a table, [" + path + "]");
  return nullptr;
}

Given OptionsReader::read_table(const toml::table& in, std::string_view table,
                                const std::string& path, const Target& target) {
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

void OptionsReader::read_option(const Option& option, const toml::node& node,
                                const std::string& path, const Target& target) {
  std::optional<OptionValue> value = read_value(option, node, path);
  if (!value) return;
  store(option, target, std::move(*value));
}

std::optional<OptionValue> OptionsReader::read_value(const Option& option, const toml::node& node,
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
    case Grammar::date: {
      const auto* date = node.as_date();
      if (!date) return wrong_type("a date");
      const auto day = check_date(date->get().year, date->get().month, date->get().day);
      if (!day) {
        fault(line, path, day.error());
        return std::nullopt;
      }
      return std::optional(*day);
    }
    default:
      break;
  }
  std::optional<std::string> text = read_text(option, node, path);
  if (!text) return std::nullopt;
  return OptionValue(std::move(*text));
}

std::optional<OptionValue> OptionsReader::read_word(const Option& option, const toml::node& node,
                                                    const std::string& path) {
  const auto* text = node.as_string();
  if (!text) {
    fault(line_of(node.source()), path,
          "this is " + std::string(type_name(node)) + "; accepted: " + accepted(option));
    return std::nullopt;
  }
  const auto word = std::ranges::find(option.words, text->get());
  if (word != option.words.end())
    return WordIndex{static_cast<std::size_t>(word - option.words.begin())};
  std::string what = shown(text->get()) + " is not known";
  const std::vector<std::string_view> words(option.words.begin(), option.words.end());
  if (const std::string_view near = nearest(text->get(), words); !near.empty())
    what += "; did you mean \"" + std::string(near) + "\"?";
  fault(line_of(node.source()), path, what + "; accepted: " + accepted(option));
  return std::nullopt;
}

std::optional<std::string> OptionsReader::read_text(const Option& option, const toml::node& node,
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

std::optional<OptionValue> OptionsReader::read_list(const Option& option, const toml::node& node,
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

void OptionsReader::check_listen(const Given& given) {
  if (given.contains("registry") && config_.proxy.listen.empty()) {
    fault(given.at("registry"), "listen.registry",
          "the list is empty, so that no client could connect; accepted: " +
              accepted(*find_option("listen", "registry")));
  }
  for (const std::string& address : config_.tls_addresses) {
    if (address.starts_with("unix:")) {
      fault(given.at("tls"), "listen.tls",
            shown(address) +
                " is a Unix socket, which needs no TLS; accepted: a loopback address "
                "with a port, \"127.0.0.1:5443\"");
    } else if (contains(config_.proxy.listen, address)) {
      fault(given.at("tls"), "listen.tls",
            shown(address) + " stands in listen.registry too; accepted: another port");
    }
  }
  if (!config_.tls_addresses.empty() && config_.tls_file.empty()) {
    fault(given.at("tls"), "listen.tls_file",
          "missing, as listen.tls has addresses; accepted: a PEM file with a private key and its "
          "certificate, which staithe setup --tls --apply makes");
  }
  if (config_.control_socket.native().size() > kMaxSocketPath) {
    const auto line = given.find("control");
    fault(line == given.end() ? 0 : line->second, "listen.control",
          shown(config_.control_socket.native()) +
              " is longer than the 107 bytes that a Unix socket's path has");
  }
}

// Once the registries are known.
void OptionsReader::check_warm(const Given& given) {
  for (const std::string& text : config_.warm.images) {
    const auto image = parse_image_name(text);
    if (!image || proxy::match_registry(config_.proxy.registries, image->registry)) continue;
    fault(given.at("images"), "warm.images",
          shown(text) + " is an image of " + image->registry +
              ", which is not configured; accepted: images of registries that have a [[registry]]");
  }
}

std::expected<Config, Faults> parse_config(std::string_view toml, const std::string& file,
                                           const Environment& environment) {
  return OptionsReader(file, environment).read(toml);
}

}  // namespace staithe::daemon
