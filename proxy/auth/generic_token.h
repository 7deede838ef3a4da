// The token flow of the distribution spec: Docker Hub, GHCR, quay.io, GitLab, Harbor and every
// registry that gives tokens to anyone, or to who has a password (azure-protocol.md section 8). ACR
// has it too, for the admin user, repository-scoped tokens and anonymous pulls (section 4.3).
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "proxy/auth/authorizer.h"
#include "proxy/auth/demand.h"
#include "proxy/auth/environment.h"
#include "proxy/auth/keeper.h"
#include "proxy/auth/password.h"
#include "proxy/auth/source.h"
#include "proxy/auth/token_server.h"
#include "proxy/url.h"

namespace staithe::proxy::auth {

// Access tokens for pulling from one repository, at the challenge's realm: by GET, with Basic
// authentication if there is a password; by POST if that is an identity token.
class GenericTokenSource final : public TokenSource {
 public:
  // `passwords` may be null: anonymous. `token_hosts` are the configured ones.
  GenericTokenSource(Origin registry, std::vector<std::string> token_hosts,
                     std::shared_ptr<Keeper<Demand>> demand, std::shared_ptr<TokenServer> server,
                     std::shared_ptr<Passwords> passwords, std::string repository);
  asio::awaitable<Token> fetch() override;

 private:
  Origin registry_;
  std::vector<std::string> token_hosts_;
  std::shared_ptr<Keeper<Demand>> demand_;
  std::shared_ptr<TokenServer> server_;
  std::shared_ptr<Passwords> passwords_;
  std::string repository_;
};

// One token for pulling from `repository` where `demand` is for Bearer tokens, asked for once and
// kept nowhere: with a credential that is not this machine's, or (null) with none. The caller has
// checked that the realm may be sent it. Throws Failure; what is refused ends with `remedy`.
asio::awaitable<Token> fetch_pull_token(Origin registry, std::vector<std::string> token_hosts,
                                        std::shared_ptr<const Demand> demand,
                                        std::shared_ptr<TokenServer> server,
                                        std::shared_ptr<const Password> password,
                                        std::string repository, std::string remedy);

// `token_hosts` are those whose addresses may be private (realm_named_by() in trust.h).
std::unique_ptr<Authorizer> make_anonymous_authorizer(Environment environment,
                                                      const Origin& registry,
                                                      const std::string& ca_file,
                                                      std::vector<std::string> token_hosts = {});

// `rule` says which realms may be sent the password (trust.h); `endings` are shown in status.
std::unique_ptr<Authorizer> make_password_authorizer(
    Environment environment, const Origin& registry, const std::string& ca_file, RealmRule rule,
    std::vector<std::string> token_hosts, std::shared_ptr<Passwords> passwords, Endings endings);

// "Basic ..." (RFC 7617).
Secret basic_authorization(const Password& password);

}  // namespace staithe::proxy::auth
