// The one Authorizer: Bearer tokens, one per repository, or Basic authentication where a registry
// gives none. Registries differ in what it is made of: where the tokens come from, and whether
// there is a password.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "proxy/auth/authorizer.h"
#include "proxy/auth/demand.h"
#include "proxy/auth/environment.h"
#include "proxy/auth/keeper.h"
#include "proxy/auth/password.h"
#include "proxy/auth/scoped_tokens.h"

namespace staithe::proxy::auth {

// May be destroyed while requests wait in for_pull(): they hold what they need.
class BearerAuthorizer final : public Authorizer {
 public:
  struct Parts {
    Origin registry;
    RealmRule rule;
    std::shared_ptr<Keeper<Demand>> demand;
    std::shared_ptr<ScopedTokens> access;
    // What access tokens are made from, the deepest first, for status and renew(): Entra, refresh.
    std::vector<std::shared_ptr<TokenKeeper>> behind;
    std::shared_ptr<TokenKeeper> refresh;  // ACR's refresh token, which login() gives; or null
    // What a person has brought, in place of an Entra token of our own; or null.
    std::shared_ptr<TokenKeeper> given;
    std::shared_ptr<Passwords> passwords;  // or null
    Endings endings;                       // or empty
    bool renewable = true;                 // false: `behind` comes from a person
  };
  BearerAuthorizer(Environment environment, Parts parts)
      : environment_(environment), parts_(std::move(parts)) {}

  asio::awaitable<Authorization> for_pull(std::string repository) override;
  bool refused(const std::string& repository, const Authorization& used,
               const Headers& response) override;
  bool forbidden(const Authorization& used) override;
  asio::awaitable<Login> login() override;
  std::string login_name() const override;
  asio::awaitable<void> renew() override;
  asio::awaitable<std::string> probe(Part part, std::string repository) override;
  std::vector<TokenStatus> tokens() const override;
  std::vector<Ending> endings() const override;
  std::optional<Error> last_error() const override;

 private:
  // True if the 401 demands something else than what was known.
  bool learns_from(const Headers& response);

  // The header that was last made of a password.
  struct Basic {
    Passwords::Pick pick;
    Authorization header;
  };

  Environment environment_;
  Parts parts_;
  std::shared_ptr<Basic> basic_ = std::make_shared<Basic>();
};

// The user name beside an ACR refresh token (azure-protocol.md section 4.3).
inline constexpr std::string_view null_guid = "00000000-0000-0000-0000-000000000000";

// "repository:app/web:pull"
std::string pull_scope(std::string_view repository);

}  // namespace staithe::proxy::auth
