// From the configuration to authorizers: who pulls from where, as whom.
//
// Registries that are used with the same managed identity share its one Entra token. Lives on the
// loop, and may go before the authorizers it made.
#pragma once

#include <map>
#include <memory>
#include <string>

#include "proxy/auth/authorizer.h"
#include "proxy/auth/environment.h"
#include "proxy/auth/keeper.h"
#include "proxy/auth/managed_identity.h"
#include "proxy/settings.h"

namespace staithe::proxy::auth {

class Identities {
 public:
  // Throws Failure(config) if azure.imds_endpoint is not a URL.
  Identities(AzureSettings azure, Environment environment);

  // `upstream` is the origin that the authorizer's tokens are for, and the only one that may be
  // sent them; `ca_file` is trusted for it and its token server. Throws Failure(config) if the
  // identity cannot be used there.
  std::unique_ptr<Authorizer> make_authorizer(const Origin& upstream, const std::string& ca_file,
                                              const IdentitySettings& identity);

 private:
  std::shared_ptr<TokenKeeper> entra_token(const IdentitySettings& identity);

  AzureSettings azure_;
  Environment environment_;
  std::shared_ptr<MetadataService> metadata_service_;
  std::map<std::string, std::shared_ptr<TokenKeeper>> entra_tokens_;  // by selector
};

}  // namespace staithe::proxy::auth
