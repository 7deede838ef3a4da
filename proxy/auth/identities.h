// From the configuration to authorizers: who pulls from where, as whom.
//
// Registries that are used with the same identity share its one Entra token, for as long as one of
// them is in use. Lives on the loop, and may go before the authorizers it made.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "proxy/auth/acr.h"
#include "proxy/auth/authorizer.h"
#include "proxy/auth/client_credentials.h"
#include "proxy/auth/demand.h"
#include "proxy/auth/environment.h"
#include "proxy/auth/keeper.h"
#include "proxy/auth/managed_identity.h"
#include "proxy/settings.h"

namespace staithe::proxy::auth {

// A registry as the credentials' code sees it.
struct Place {
  std::string name;          // as in image names: "docker.io"
  Origin upstream;           // the only origin that its tokens are sent to
  std::string ca_file = {};  // trusted for it and its token server
  // Hosts besides it that may be sent its password, and have private addresses.
  std::vector<std::string> token_hosts = {};
  // Where its tokens are counted; a token that several registries share counts where it was first
  // asked for. Null: nowhere.
  std::shared_ptr<TokenMeter> meter = {};
};

// kubelet's service account mode: the pod's own token, and the application that trusts it.
struct ServiceAccount {
  std::string client_id, tenant_id;
  Secret token;
};

class Identities {
 public:
  // Throws Failure(config) if azure.imds_endpoint is not a URL.
  Identities(AzureSettings azure, std::map<std::string, IdentitySettings> identities,
             Environment environment);

  // After a reload. Authorizers that exist stay as they are.
  void replace(std::map<std::string, IdentitySettings> identities);

  std::unique_ptr<Authorizer> make_authorizer(const Place& place, const IdentitySettings& identity);
  // The authorizer for `identity`, a configured name, signed_in, or empty for anonymous. Throws
  // Failure(config) if that identity cannot be used there.
  std::unique_ptr<Authorizer> make_authorizer(const Place& place, const std::string& identity);

  // Which token servers may be sent a password for `place`.
  RealmRule password_rule(const Place& place) const;
  // Of these, the hosts that may have private addresses (realm_named_by() in trust.h).
  std::vector<std::string> token_hosts(const Place& place) const;

  // What the identity of a service account gives at `place`, which is an Azure Container Registry.
  // Kept for ten minutes for callers with the very same token. Throws Failure.
  asio::awaitable<Login> service_account_login(Place place, ServiceAccount account);

  // The name under which a sign-in stands beside the configured identities, whose names have no
  // parentheses.
  static constexpr std::string_view signed_in = "(sign-in)";
  struct SignIn {
    std::string kind;  // "refresh", "entra"
    std::chrono::seconds expires_in;
  };
  // Keeps a token that a person has brought for `place`, in memory, in place of an earlier one. For
  // make_authorizer(place, signed_in) from now on. Fails with bad_request if it is no token, has
  // ended, or `place` is not an Azure Container Registry.
  Result<SignIn> sign_in(const Place& place, Secret token);
  // True if there was one.
  bool sign_out(const std::string& name);
  bool is_signed_in(const std::string& name) const { return sign_ins_.contains(name); }
  // Drops sign-ins whose token has ended, and names them.
  std::vector<std::string> drop_ended_sign_ins();

 private:
  std::unique_ptr<Authorizer> make_password_authorizer_for(const Place& place,
                                                           const IdentitySettings& identity);
  // That of what belongs to `place`.
  Environment environment_of(const Place& place) const;
  AcrIdentity acr_identity(const Place& place, const IdentitySettings& identity);
  AcrIdentity given(const Place& place, std::string what, std::string name,
                    std::unique_ptr<TokenSource> source);
  std::shared_ptr<TokenKeeper> managed_token(const Place& place, const IdentitySettings& identity,
                                             const std::string& audience);
  // `key` is what tells this application, with its proof, from another.
  std::shared_ptr<TokenKeeper> application_token(const Place& place, const std::string& key,
                                                 const IdentitySettings& identity,
                                                 std::shared_ptr<ClientProof> proof, bool by_proxy);
  std::unique_ptr<Authorizer> make_acr(const Place& place, AcrIdentity identity);

  // The authorizers of service accounts, by the place, the application and the token's digest.
  // Shared with the tasks that forget them, which may outlive this.
  using ServiceAccounts = std::map<std::string, std::shared_ptr<Authorizer>>;
  static asio::awaitable<void> forget_later(std::weak_ptr<ServiceAccounts> from, std::string key,
                                            Environment environment);

  struct SignedIn {
    std::shared_ptr<TokenKeeper> keeper;
    Instant ends;
  };

  AzureSettings azure_;
  std::map<std::string, IdentitySettings> identities_;
  Environment environment_;
  std::shared_ptr<MetadataService> metadata_service_;
  // By all that tells one identity from another, and the audience.
  std::map<std::string, std::weak_ptr<TokenKeeper>> entra_tokens_;
  std::map<std::string, std::weak_ptr<ClientProof>> proofs_;
  std::map<std::string, SignedIn> sign_ins_;  // by registry
  std::shared_ptr<ServiceAccounts> service_accounts_ = std::make_shared<ServiceAccounts>();
};

}  // namespace staithe::proxy::auth
