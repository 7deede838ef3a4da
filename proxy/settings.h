// What the proxy is told at start: checked values, no text to parse. The daemon's option table
// fills these; interface.md section 2 gives names and defaults.
#pragma once

#include <chrono>
#include <cstddef>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace staithe::proxy {

// [freshness], and [registry.freshness] over it.
struct Freshness {
  std::chrono::milliseconds tag_ttl{0};  // 0: every pull by tag asks upstream
  std::chrono::milliseconds serve_stale = std::chrono::hours(7 * 24);  // 0: never
  std::chrono::milliseconds serve_gone{0};                             // 0: never

  bool operator==(const Freshness&) const = default;
};

// [access]: who may use this machine's identity. Names or numbers; both empty = every local user.
struct AccessSettings {
  std::vector<std::string> users, groups;

  bool empty() const { return users.empty() && groups.empty(); }
  bool operator==(const AccessSettings&) const = default;
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
  std::vector<std::string> data_hosts;   // extra hosts that blob redirects may name; "*.suffix" too
  std::vector<std::string> token_hosts;  // extra hosts that may be sent this registry's password
  bool is_default = false;
  std::size_t max_connections = 16;
  std::size_t segments = 4;  // of one large blob, on as many connections
  bool verify_callers = false;
  Freshness freshness;
  std::optional<AccessSettings> access;  // [registry.access]: for this one in place of [access]
  std::vector<IdentityFor> identity_for;

  bool operator==(const RegistrySettings&) const = default;
};

// [identity.NAME]
enum class IdentityKind {
  anonymous,
  managed_identity,
  service_principal,
  workload_identity,
  basic,
  token,
  helper,
  docker_config,
};
enum class ManagedIdentitySource { automatic, imds, arc, app_service };
struct IdentitySettings {
  IdentityKind kind = IdentityKind::anonymous;
  // managed-identity
  ManagedIdentitySource source = ManagedIdentitySource::automatic;
  std::string client_id = {}, object_id = {},
              resource_id = {};  // at most one is set; of the others: client_id
  // service-principal and workload-identity
  std::string tenant_id = {};
  std::filesystem::path client_secret_file = {};  // one of the two
  std::filesystem::path certificate_file = {};    // PEM: key and certificate
  // workload-identity: the assertion's file, or the managed identity (a key into identities) that
  // is the app's federated credential. token: the token's file.
  std::filesystem::path token_file = {};
  std::string federated_identity = {};
  // basic
  std::string username = {};
  std::filesystem::path password_file = {}, password2_file = {};
  // helper: "ecr-login" for docker-credential-ecr-login
  std::string helper = {};
  // docker-config
  std::filesystem::path file = {};
  // service-principal and basic: when the secret ends, which only its issuer knows.
  std::optional<std::chrono::sys_days> secret_expires = {};

  bool operator==(const IdentitySettings&) const = default;
};

// The name of a kind as the configuration writes it: "managed-identity".
const char* to_string(IdentityKind kind);

// [azure], with the cloud's own values filled in.
struct AzureSettings {
  std::string authority = "https://login.microsoftonline.com";  // Entra, without a trailing slash
  std::string audience = "https://containerregistry.azure.net";
  std::string imds_endpoint = "http://169.254.169.254";
  // Registry host suffixes of this cloud and those configured, without a leading dot.
  std::vector<std::string> acr_suffixes = {"azurecr.io",
                                           "azurecr.cn",
                                           "azurecr.us",
                                           "azurecr.de",
                                           "azurecr.sovcloud-azure.fr",
                                           "azurecr.sovcloud-azure.de"};
  // Azure Arc's agent: where its program and its challenge files are (azure-protocol.md
  // section 6.6).
  std::filesystem::path arc_agent = "/opt/azcmagent/bin/himds";
  std::filesystem::path arc_tokens = "/var/opt/azcmagent/tokens";
  // The variables by which a host of managed identities or of workload identities tells where they
  // are (azure-protocol.md sections 6.5 to 6.7), those of them that are set: IDENTITY_ENDPOINT,
  // IDENTITY_HEADER, IDENTITY_SERVER_THUMBPRINT, IMDS_ENDPOINT, MSI_ENDPOINT, MSI_SECRET,
  // AZURE_KUBERNETES_TOKEN_PROXY, AZURE_KUBERNETES_SNI_NAME, AZURE_KUBERNETES_CA_FILE,
  // AZURE_KUBERNETES_CA_DATA.
  std::map<std::string, std::string> variables;
};

// [limits]
struct Limits {
  std::size_t connections = 10'000;
  std::size_t connections_per_user = 2'000;
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
  AccessSettings access;
  Limits limits;
  AzureSettings azure;
  std::map<std::string, IdentitySettings> identities;
  std::vector<RegistrySettings> registries;  // in the order of the file
};

}  // namespace staithe::proxy
