#include "proxy/auth/bearer.h"

#include <algorithm>

#include "proxy/auth/challenge.h"

namespace staithe::proxy::auth {
namespace {

// The token is good, but not for this; another one like it would not help.
bool is_insufficient_scope(const Headers& response) {
  const Result<std::vector<Challenge>> challenges =
      parse_challenges(response.all("www-authenticate"));
  return challenges && std::ranges::any_of(*challenges, [](const Challenge& challenge) {
           const std::string* error = challenge.param("error");
           return error && *error == "insufficient_scope";
         });
}

}  // namespace

BearerAuthorizer::BearerAuthorizer(Environment environment, Origin registry, RealmRule rule,
                                   std::shared_ptr<Keeper<Demand>> demand,
                                   std::shared_ptr<ScopedTokens> access,
                                   std::vector<std::shared_ptr<TokenKeeper>> behind)
    : environment_(environment),
      registry_(std::move(registry)),
      rule_(std::move(rule)),
      demand_(std::move(demand)),
      access_(std::move(access)),
      behind_(std::move(behind)) {}

asio::awaitable<Authorization> BearerAuthorizer::for_pull(std::string repository) {
  const std::shared_ptr<ScopedTokens> access = access_;
  const std::string registry = registry_.authority();
  const std::shared_ptr<const Demand> demand = co_await demand_->get();
  switch (demand->kind) {
    case Demand::Kind::nothing:
      co_return nullptr;
    case Demand::Kind::basic:
      throw Failure(Errc::unauthorized,
                    registry +
                        " asks for a user name and password (Basic) and gives no tokens: "
                        "configure an identity of kind \"basic\" for it");
    case Demand::Kind::bearer:
      break;
  }
  const std::shared_ptr<TokenKeeper> keeper = access->at(repository);
  const std::shared_ptr<const Token> token = co_await keeper->get();
  co_return Authorization(token, &token->secret);
}

bool BearerAuthorizer::refused(const std::string& repository, const Authorization& used,
                               const Headers& response) {
  if (learns_from(response)) return true;
  if (!used) {
    // Sent before we knew better: another request may have learnt it meanwhile.
    const std::shared_ptr<const Demand> demand = demand_->current();
    return demand && demand->kind == Demand::Kind::bearer;
  }
  TokenKeeper* keeper = access_->find(repository);
  const std::shared_ptr<const Token> current = keeper ? keeper->current() : nullptr;
  if (!current || &current->secret != used.get()) return true;
  if (is_insufficient_scope(response)) return false;
  return keeper->discard(current.get());
}

bool BearerAuthorizer::learns_from(const Headers& response) {
  const std::shared_ptr<const Demand> known = demand_->current();
  if (!known) return false;
  Result<Demand> now = read_demand(response, rule_);
  if (!now || now->same_as(*known)) return false;
  // Basic after Bearer is how ACR answers wrong credentials, not what it demands.
  if (now->kind == Demand::Kind::basic && known->kind == Demand::Kind::bearer) return false;
  if (!demand_->discard(known.get())) return false;  // It changes its mind all the time.
  now->life = Life{.since = environment_.clock.now(),
                   .wall_since = environment_.clock.wall(),
                   .lasts = demand_life,
                   .refresh_in = {}};
  demand_->keep(std::move(*now));
  access_->clear();
  return true;
}

std::vector<TokenStatus> BearerAuthorizer::tokens() const {
  std::vector<TokenStatus> tokens;
  for (const auto& keeper : behind_) {
    if (auto status = keeper->status()) tokens.push_back(std::move(*status));
  }
  access_->append_status(tokens);
  return tokens;
}

std::string pull_scope(std::string_view repository) {
  return "repository:" + std::string(repository) + ":pull";
}

}  // namespace staithe::proxy::auth
