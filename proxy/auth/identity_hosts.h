// Managed identities outside the VM's metadata service: Azure Arc, App Service and its relatives
// (azure-protocol.md sections 6.5 and 6.6).
//
// Which host this is follows from environment variables that the host sets; `source` in [identity]
// overrides it. Requests are built from these variables, constants and the configuration.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <filesystem>
#include <memory>
#include <string>

#include "proxy/auth/environment.h"
#include "proxy/auth/managed_identity.h"
#include "proxy/auth/source.h"
#include "proxy/auth/token_call.h"
#include "proxy/settings.h"
#include "proxy/url.h"

namespace staithe::proxy::auth {

enum class IdentityHost { service_fabric, app_service, azure_ml, cloud_shell, arc, imds };

// In the order of azure-protocol.md section 6.5; `source` other than automatic decides alone.
// `arc_agent_installed`: whether AzureSettings::arc_agent exists.
IdentityHost detect_identity_host(const AzureSettings& azure, ManagedIdentitySource source,
                                  bool arc_agent_installed);

// Tokens for `audience` by `identity`, from the host that `source` and the variables say. `imds`
// serves the last of them. Throws Failure(config) if a variable is missing or is no URL.
std::unique_ptr<TokenSource> make_managed_identity_source(Environment environment,
                                                          const AzureSettings& azure,
                                                          std::shared_ptr<MetadataService> imds,
                                                          const std::string& audience,
                                                          const IdentitySettings& identity);

// The file that an Arc challenge names, if it is one of the agent's: directly in its directory of
// tokens, named *.key. Pure. Fails with upstream_nonsense.
Result<std::filesystem::path> arc_key_file(const Headers& response,
                                           const std::filesystem::path& directory);

}  // namespace staithe::proxy::auth
