// The configuration: what staithe.toml may say, checked, as values.
//
// Every key is declared once, in the table of option_table.cc; the reader, its messages, --help,
// the sample in etc/ and the effective configuration come from that table. Everything here is pure:
// the environment is handed in, files are read by load_config() alone.
#pragma once

#include <boost/json/object.hpp>
#include <chrono>
#include <cstddef>
#include <expected>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "cache/log.h"
#include "cache/settings.h"
#include "daemon/environment.h"
#include "proxy/settings.h"

namespace staithe::daemon {

inline constexpr const char* kDefaultConfigFile = "/etc/staithe/staithe.toml";
inline constexpr std::size_t kMaxConfigBytes = 1 << 20;

// [azure] cloud: decides which registry host suffixes are Azure's.
enum class Cloud { public_cloud, china, us_government };

// [warm]
struct WarmSettings {
  std::vector<std::string> images;  // as parse_image_name() takes them, of configured registries
  std::string platform;             // as parse_platform_choice() takes it

  bool operator==(const WarmSettings&) const = default;
};

struct Config {
  // Listen addresses as the file gives them ("127.0.0.1:5050", "[::1]:5050", "unix:/path"; see
  // parse_listen_address in values.h). Registries in the order of the file, each with its
  // freshness, upstream filled in (empty for "*.suffix": it follows from the name asked for).
  proxy::ProxySettings proxy;
  cache::Settings cache;
  std::filesystem::path control_socket;
  std::string metrics_address;             // empty: none
  std::vector<std::string> tls_addresses;  // as those of proxy.listen, without sockets
  std::filesystem::path tls_file;          // PEM: key and certificate; empty: none
  bool status_page = false;                // served there
  std::chrono::milliseconds drain_timeout{30'000};
  log::Settings log;
  proxy::Freshness freshness;  // of every registry that does not override it
  WarmSettings warm;
  // What proxy.azure.acr_suffixes was made of.
  Cloud cloud = Cloud::public_cloud;
  std::vector<std::string> extra_acr_suffixes;
};

// One thing wrong with the configuration.
struct Fault {
  std::string file;
  std::size_t line = 0;  // 0: the file as a whole
  std::string key;       // "limits.idle_timeout", "registry[\"docker.io\"].upstream"; may be empty
  std::string what;      // what is wrong and what is accepted, without line feeds

  // "file:line: key: what"
  std::string to_string() const;
};
// In the order of the file. Never empty where it stands for a failure.
using Faults = std::vector<Fault>;

// `file` only names the text in faults. The empty text gives the built-in defaults.
std::expected<Config, Faults> parse_config(std::string_view toml, const std::string& file,
                                           const Environment& environment);

// Reads `file`, or kDefaultConfigFile if none is given; an absent default file is an empty one.
std::expected<Config, Faults> load_config(const std::optional<std::filesystem::path>& file,
                                          const Environment& environment);

// Moves what a running daemon takes over without a restart into the configuration in force; where
// the two still differ then, the rest waits for one. docs/configuration.md says which keys those
// are.
void take_over(Config& running, const Config& read);

// The effective configuration, for `staithe config`. to_toml() parses to the same Config.
std::string to_toml(const Config& config);
boost::json::object to_json(const Config& config);

// etc/staithe.toml: every key with its default, as comments.
std::string sample_config();

// Every key with its default in one line each, for staithed --help.
std::string options_help();

}  // namespace staithe::daemon
