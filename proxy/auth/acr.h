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

// Who asks, by an Entra token.
struct AcrIdentity {
  // May be shared with other registries. Of a token that a person has given (a file, a sign-in) it
  // may keep a refresh token of this registry instead, which is then used as it is.
  std::shared_ptr<TokenKeeper> entra;
  std::string tenant;  // sent with the exchange; empty = not known
  std::string remedy;  // what to do when the registry does not accept the token
  bool given = false;  // by a person: it ends, and cannot be renewed from here
  Endings endings = {};
};

// Refresh tokens, each for the Entra token of the moment.
class AcrExchange final : public TokenSource {
 public:
  AcrExchange(Environment environment, AcrRegistry registry, AcrIdentity identity,
              std::vector<std::string> suffixes);
  asio::awaitable<Token> fetch() override;

 private:
  // `given`, if it is a refresh token of this registry; nullopt if it is not a refresh token.
  std::optional<Token> as_refresh_token(const Token& given, const std::string& step) const;

  Environment environment_;
  AcrRegistry registry_;
  AcrIdentity identity_;
  std::vector<std::string> suffixes_;
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

// Is this the text of a refresh token by an Azure Container Registry? Its issuer says so
// (azure-protocol.md section 6.8).
bool is_acr_refresh_token(std::string_view token);

// Is a refresh token for `registry`? Global and regional names are one registry. Fails with
// unauthorized, naming the registry that it is for.
Result<void> check_refresh_audience(std::string_view token, const Origin& registry,
                                    const std::vector<std::string>& suffixes);

// `registry` has passed check_acr_origin().
std::unique_ptr<Authorizer> make_acr_authorizer(Environment environment, const Origin& registry,
                                                const std::string& ca_file,
                                                const std::vector<std::string>& suffixes,
                                                AcrIdentity identity);

}  // namespace staithe::proxy::auth
