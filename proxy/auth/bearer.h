// Authorization by Bearer tokens, one per repository: what ACR and the registries of the
// distribution spec have in common. They differ in where the tokens come from.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <memory>
#include <string>
#include <vector>

#include "proxy/auth/authorizer.h"
#include "proxy/auth/demand.h"
#include "proxy/auth/environment.h"
#include "proxy/auth/keeper.h"
#include "proxy/auth/scoped_tokens.h"

namespace staithe::proxy::auth {

// May be destroyed while requests wait in for_pull(): they hold what they need.
class BearerAuthorizer final : public Authorizer {
 public:
  // `behind` are the tokens that access tokens are made from, for status: Entra, refresh.
  BearerAuthorizer(Environment environment, Origin registry, RealmRule rule,
                   std::shared_ptr<Keeper<Demand>> demand, std::shared_ptr<ScopedTokens> access,
                   std::vector<std::shared_ptr<TokenKeeper>> behind);

  asio::awaitable<Authorization> for_pull(std::string repository) override;
  bool refused(const std::string& repository, const Authorization& used,
               const Headers& response) override;
  std::vector<TokenStatus> tokens() const override;

 private:
  // True if the 401 demands something else than what was known.
  bool learns_from(const Headers& response);

  Environment environment_;
  Origin registry_;
  RealmRule rule_;
  std::shared_ptr<Keeper<Demand>> demand_;
  std::shared_ptr<ScopedTokens> access_;
  std::vector<std::shared_ptr<TokenKeeper>> behind_;
};

// "repository:app/web:pull"
std::string pull_scope(std::string_view repository);

}  // namespace staithe::proxy::auth
