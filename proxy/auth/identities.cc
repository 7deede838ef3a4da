#include "proxy/auth/identities.h"

#include "proxy/auth/acr.h"
#include "proxy/auth/generic_token.h"
#include "proxy/auth/trust.h"

namespace staithe::proxy::auth {

Identities::Identities(AzureSettings azure, Environment environment)
    : azure_(std::move(azure)), environment_(environment) {
  Result<Url> endpoint = Url::parse(azure_.imds_endpoint);
  if (!endpoint) throw Failure(Errc::config, "azure.imds_endpoint: " + endpoint.error().detail);
  metadata_service_ = std::make_shared<MetadataService>(environment_, std::move(*endpoint));
}

std::unique_ptr<Authorizer> Identities::make_authorizer(const Origin& upstream,
                                                        const std::string& ca_file,
                                                        const IdentitySettings& identity) {
  switch (identity.kind) {
    case IdentityKind::anonymous:
      break;
    case IdentityKind::managed_identity:
      if (auto usable = check_acr_origin(upstream, azure_.acr_suffixes); !usable)
        throw Failure(std::move(usable.error()));
      return make_acr_authorizer(environment_, upstream, ca_file, azure_.acr_suffixes,
                                 entra_token(identity));
  }
  return make_anonymous_authorizer(environment_, upstream, ca_file);
}

std::shared_ptr<TokenKeeper> Identities::entra_token(const IdentitySettings& identity) {
  // At most one of the three is set; the separator occurs in none of them.
  const std::string selector =
      identity.client_id + '\n' + identity.object_id + '\n' + identity.resource_id;
  std::shared_ptr<TokenKeeper>& keeper = entra_tokens_[selector];
  if (!keeper) {
    keeper = std::make_shared<TokenKeeper>(
        "Entra token of the managed identity", Kind::entra,
        std::make_unique<ImdsTokenSource>(environment_, metadata_service_, azure_.audience,
                                          identity),
        environment_);
  }
  return keeper;
}

}  // namespace staithe::proxy::auth
