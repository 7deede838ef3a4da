// What the helpers and `staithe token` ask the daemon: a registry's credential, over the control
// socket. Blocking; see control_client.h for the limits.
#pragma once

#include <chrono>
#include <cstdint>
#include <expected>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "daemon/control_client.h"
#include "proxy/auth/secret.h"

namespace staithe::daemon {

// The pod's identity as kubelet hands it over; all three are set.
struct ServiceAccount {
  proxy::auth::Secret token;
  std::string client_id;
  std::string tenant_id;
};

struct CredentialRequest {
  std::string registry;      // as image names write it; Docker Hub is "docker.io"
  std::string repository{};  // empty: the registry as a whole
  bool expose_token = false;
  const ServiceAccount* service_account = nullptr;  // not owned
};

struct Credential {
  std::string username;
  proxy::auth::Secret password;
  bool identity_token = false;                     // a refresh token of the distribution spec
  std::optional<std::chrono::seconds> expires_in;  // none: no end is known
};

// Nothing if the daemon has no credential for this registry: then it is anybody else's matter.
std::expected<std::optional<Credential>, ControlError> ask_credential(
    const std::filesystem::path& socket, const CredentialRequest& request,
    std::chrono::milliseconds timeout = kCredentialPatience);

struct ManagedRegistry {
  std::string registry;
  std::string username;
};
// The registries that the daemon has a credential for, as far as it knows their names.
std::expected<std::vector<ManagedRegistry>, ControlError> list_credentials(
    const std::filesystem::path& socket, std::chrono::milliseconds timeout);

// True if the daemon knows the registry as its own and it is the identity that fails, not the
// caller or the daemon.
bool identity_failed(const ControlError& error);

}  // namespace staithe::daemon
