// What the proxy is told at start: checked values, no text to parse. The daemon's option table
// fills these; interface.md section 2 gives names and defaults.
#pragma once

#include <chrono>
#include <cstddef>
#include <map>
#include <string>
#include <vector>

namespace staithe::proxy {

// [freshness], and [registry.freshness] over it.
struct Freshness {
  std::chrono::milliseconds tag_ttl{0};  // 0: every pull by tag asks upstream
  std::chrono::milliseconds serve_stale = std::chrono::hours(7 * 24);  // 0: never

  bool operator==(const Freshness&) const = default;
};

// [[registry.identity_for]]: another identity below a repository prefix.
struct IdentityFor {
  std::string prefix;
  std::string identity;

  bool operator==(const IdentityFor&) const = default;
};

// [[registry]]
struct RegistrySettings {
  std::string name;                   // "contoso.azurecr.io" or "*.azurecr.io"
  std::string identity;               // key into identities; empty = anonymous
  std::vector<std::string> upstream;  // URLs; empty = "https://<name>"
  std::string prefix;                 // put before the repository upstream
  std::string ca_file;
  std::vector<std::string> data_hosts;  // extra hosts that blob redirects may name; "*.suffix" too
  bool is_default = false;
  std::size_t max_connections = 16;
  Freshness freshness;
  std::vector<IdentityFor> identity_for;

  bool operator==(const RegistrySettings&) const = default;
};

// [identity.NAME]
enum class IdentityKind { anonymous, managed_identity };
enum class ManagedIdentitySource { automatic, imds };
struct IdentitySettings {
  IdentityKind kind = IdentityKind::anonymous;
  ManagedIdentitySource source = ManagedIdentitySource::automatic;
  std::string client_id, object_id, resource_id;  // at most one is set

  bool operator==(const IdentitySettings&) const = default;
};

// [azure], with the cloud's own values filled in.
struct AzureSettings {
  std::string audience = "https://containerregistry.azure.net";
  std::string imds_endpoint = "http://169.254.169.254";
  // Registry host suffixes of this cloud and those configured, without a leading dot.
  std::vector<std::string> acr_suffixes = {"azurecr.io", "azurecr.cn", "azurecr.us"};
};

// [limits]
struct Limits {
  std::size_t connections = 10'000;
  std::chrono::milliseconds header_timeout{10'000};
  std::chrono::milliseconds idle_timeout{150'000};
  std::chrono::milliseconds upstream_connect{5'000};
  std::chrono::milliseconds upstream_first_byte{20'000};
  std::chrono::milliseconds upstream_stall{15'000};
};

struct ProxySettings {
  std::vector<std::string> listen = {"127.0.0.1:5050"};
  std::vector<std::string>
      hosts;  // accepted Host values besides the listen addresses and localhost
  Limits limits;
  AzureSettings azure;
  std::map<std::string, IdentitySettings> identities;
  std::vector<RegistrySettings> registries;  // in the order of the file
};

}  // namespace staithe::proxy
