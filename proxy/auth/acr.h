// Azure Container Registry: from an Entra token to access tokens (azure-protocol.md section 4).
//
//   Entra token    POST https://R/oauth2/exchange   ->  refresh token of R, about 3 h
//   refresh token  POST https://R/oauth2/token      ->  access token for one repository, about 75
//   min
//
// R is the registry's own origin, for both: a challenge gives the name of the service, and never
// the place where a token goes.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "proxy/auth/authorizer.h"
#include "proxy/auth/demand.h"
#include "proxy/auth/environment.h"
#include "proxy/auth/keeper.h"
#include "proxy/auth/source.h"
#include "proxy/auth/token_server.h"
#include "proxy/url.h"

namespace staithe::proxy::auth {

// What the sources of one registry share.
struct AcrRegistry {
  Origin origin;
  std::shared_ptr<Keeper<Demand>> demand;
  std::shared_ptr<TokenServer> server;
};

// Refresh tokens, each for the Entra token of the moment.
class AcrExchange final : public TokenSource {
 public:
  AcrExchange(Environment environment, AcrRegistry registry, std::shared_ptr<TokenKeeper> entra);
  asio::awaitable<Token> fetch() override;

 private:
  Environment environment_;
  AcrRegistry registry_;
  std::shared_ptr<TokenKeeper> entra_;
};

// Access tokens for pulling from one repository. Fails with denied if the token that comes grants
// nothing on it: that is an answer, and it is not asked again for half a minute. A refused refresh
// token is replaced once.
class AcrAccess final : public TokenSource {
 public:
  AcrAccess(AcrRegistry registry, std::shared_ptr<TokenKeeper> refresh, std::string repository);
  asio::awaitable<Token> fetch() override;

 private:
  AcrRegistry registry_;
  std::shared_ptr<TokenKeeper> refresh_;
  std::string repository_;
};

// `registry` has passed check_acr_origin(). `entra` may be shared with other registries.
std::unique_ptr<Authorizer> make_acr_authorizer(Environment environment, const Origin& registry,
                                                const std::string& ca_file,
                                                const std::vector<std::string>& suffixes,
                                                std::shared_ptr<TokenKeeper> entra);

}  // namespace staithe::proxy::auth
