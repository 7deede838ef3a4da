// The token flow of the distribution spec, without credentials: Docker Hub, GHCR, quay.io and every
// registry that lets anyone pull once they hold a token (azure-protocol.md section 8).
#pragma once

#include <memory>
#include <string>

#include "proxy/auth/authorizer.h"
#include "proxy/auth/demand.h"
#include "proxy/auth/environment.h"
#include "proxy/auth/keeper.h"
#include "proxy/auth/source.h"
#include "proxy/auth/token_server.h"
#include "proxy/url.h"

namespace staithe::proxy::auth {

// Access tokens for pulling from one repository, by GET at the challenge's realm. What a user name
// and password will add is one header of this request, and a stricter rule for the realm.
class GenericTokenSource final : public TokenSource {
 public:
  GenericTokenSource(Origin registry, std::shared_ptr<Keeper<Demand>> demand,
                     std::shared_ptr<TokenServer> server, std::string repository);
  asio::awaitable<Token> fetch() override;

 private:
  Origin registry_;
  std::shared_ptr<Keeper<Demand>> demand_;
  std::shared_ptr<TokenServer> server_;
  std::string repository_;
};

std::unique_ptr<Authorizer> make_anonymous_authorizer(Environment environment,
                                                      const Origin& registry,
                                                      const std::string& ca_file);

}  // namespace staithe::proxy::auth
