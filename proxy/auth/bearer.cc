#include "proxy/auth/bearer.h"

#include <algorithm>

#include "cache/escape.h"
#include "proxy/auth/challenge.h"
#include "proxy/auth/generic_token.h"

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

std::string in_words(const Demand& demand) {
  switch (demand.kind) {
    case Demand::Kind::nothing:
      return "it asks for no credentials";
    case Demand::Kind::basic:
      return "it asks for a user name and password (Basic)";
    case Demand::Kind::bearer:
      break;
  }
  return "it asks for a Bearer token from " + demand.realm.printable();
}

std::string life_in_words(std::string what, const Token& token, Instant now) {
  const auto left = std::chrono::duration_cast<std::chrono::minutes>(token.life.end() - now);
  return what + ", good for " + std::to_string(std::max<std::int64_t>(left.count(), 0)) +
         " more minutes";
}

}  // namespace

asio::awaitable<Authorization> BearerAuthorizer::for_pull(std::string repository) {
  const Parts parts = parts_;  // Whoever waits here may outlive this object.
  const std::shared_ptr<Basic> basic = basic_;
  const std::shared_ptr<const Demand> demand = co_await parts.demand->get();
  switch (demand->kind) {
    case Demand::Kind::nothing:
      co_return nullptr;
    case Demand::Kind::basic: {
      const std::string registry = parts.registry.authority();
      if (!parts.passwords) {
        throw Failure(Errc::unauthorized,
                      registry +
                          " asks for a user name and password (Basic) and gives no tokens: "
                          "configure an identity of kind \"basic\", \"helper\" or "
                          "\"docker-config\" for it");
      }
      Passwords::Pick pick = co_await parts.passwords->get();
      if (pick.password->identity_token)
        throw Failure(Errc::unauthorized, registry +
                                              " asks for a user name and password (Basic), and "
                                              "the identity holds an identity token: log in "
                                              "with a password");
      if (pick.password != basic->pick.password) {
        basic->header = std::make_shared<const Secret>(basic_authorization(*pick.password));
        basic->pick = std::move(pick);
      }
      co_return basic->header;
    }
    case Demand::Kind::bearer:
      break;
  }
  const std::shared_ptr<TokenKeeper> keeper = parts.access->at(repository);
  const std::shared_ptr<const Token> token = co_await keeper->get();
  co_return Authorization(token, &token->secret);
}

bool BearerAuthorizer::refused(const std::string& repository, const Authorization& used,
                               const Headers& response) {
  if (learns_from(response)) return true;
  if (!used) {
    // Sent before we knew better: another request may have learnt it meanwhile.
    const std::shared_ptr<const Demand> demand = parts_.demand->current();
    return demand && demand->kind != Demand::Kind::nothing;
  }
  if (used->reveal().starts_with("Basic ")) {
    if (used != basic_->header) return true;
    parts_.passwords->refused(basic_->pick);
    *basic_ = Basic();
    return true;  // The next one, a changed one, or the sentence that there is none.
  }
  TokenKeeper* keeper = parts_.access->find(repository);
  const std::shared_ptr<const Token> current = keeper ? keeper->current() : nullptr;
  if (!current || &current->secret != used.get()) return true;
  if (is_insufficient_scope(response)) return false;
  return keeper->discard(current.get());
}

bool BearerAuthorizer::forbidden(const Authorization& used) {
  if (!parts_.passwords || !used || used != basic_->header) return false;
  if (!parts_.passwords->ended(basic_->pick)) return false;
  *basic_ = Basic();
  return true;
}

asio::awaitable<Login> BearerAuthorizer::login() {
  const Parts parts = parts_;
  const Clock& clock = environment_.clock;
  if (parts.refresh) {
    const std::shared_ptr<const Token> token = co_await parts.refresh->get();
    co_return Login{.username = std::string(null_guid),
                    .secret = std::shared_ptr<const Secret>(token, &token->secret),
                    .identity_token = false,
                    .renewable = parts.renewable,
                    .expires_in = std::max(
                        std::chrono::floor<std::chrono::seconds>(token->life.end() - clock.now()),
                        std::chrono::seconds(0))};
  }
  if (parts.passwords) {
    const Passwords::Pick pick = co_await parts.passwords->get();
    co_return Login{.username = pick.password->username,
                    .secret = std::shared_ptr<const Secret>(pick.password, &pick.password->secret),
                    .identity_token = pick.password->identity_token,
                    .renewable = parts.passwords->renewable(),
                    .expires_in = std::nullopt};
  }
  throw Failure(Errc::not_found,
                parts.registry.authority() + " is used anonymously: there is no login for it");
}

std::string BearerAuthorizer::login_name() const {
  if (parts_.refresh) return std::string(null_guid);
  return parts_.passwords ? parts_.passwords->username() : std::string();
}

asio::awaitable<void> BearerAuthorizer::renew() {
  const Parts parts = parts_;
  if (parts.passwords) {
    co_await parts.passwords->renew();
    // Access tokens are made with the password: the next pull shows whether the new one is good.
    parts.access->clear();
  }
  if (parts.given) co_await parts.given->renew();
  for (const auto& keeper : parts.behind) co_await keeper->renew();
}

asio::awaitable<std::string> BearerAuthorizer::probe(Part part, std::string repository) {
  const Parts parts = parts_;  // As in for_pull().
  const Clock& clock = environment_.clock;
  switch (part) {
    case Part::identity: {
      if (parts.passwords) {
        const Passwords::Pick pick = co_await parts.passwords->get();
        co_return pick.password->identity_token
            ? "an identity token"
            : "a password for the user " + printable(pick.password->username, 80);
      }
      const auto keeper = parts.given            ? parts.given
                          : parts.behind.empty() ? nullptr
                                                 : parts.behind.front();
      if (!keeper) co_return "";
      const std::shared_ptr<const Token> token = co_await keeper->get();
      co_return life_in_words(parts.given ? "the token that was given" : "an Entra token", *token,
                              clock.now());
    }
    case Part::challenge: {
      const std::shared_ptr<const Demand> demand = co_await parts.demand->get();
      co_return in_words(*demand);
    }
    case Part::exchange: {
      if (!parts.refresh) co_return "";
      const std::shared_ptr<const Token> token = co_await parts.refresh->get();
      co_return life_in_words("a refresh token", *token, clock.now());
    }
    case Part::access:
      break;
  }
  const Authorization authorization = co_await for_pull(repository);
  if (!authorization) co_return "none is needed";
  if (authorization->reveal().starts_with("Basic ")) co_return "the password is sent as it is";
  TokenKeeper* keeper = parts.access->find(repository);
  const std::shared_ptr<const Token> token = keeper ? keeper->current() : nullptr;
  if (!token) co_return "an access token";
  co_return life_in_words("an access token for " + pull_scope(printable(repository)), *token,
                          clock.now());
}

bool BearerAuthorizer::learns_from(const Headers& response) {
  const std::shared_ptr<const Demand> known = parts_.demand->current();
  if (!known) return false;
  Result<Demand> now = read_demand(response, parts_.rule);
  if (!now || now->same_as(*known)) return false;
  // Basic after Bearer is how ACR answers wrong credentials, not what it demands.
  if (now->kind == Demand::Kind::basic && known->kind == Demand::Kind::bearer) return false;
  if (!parts_.demand->discard(known.get())) return false;  // It changes its mind all the time.
  now->life = Life{.since = environment_.clock.now(),
                   .wall_since = environment_.clock.wall(),
                   .lasts = demand_life,
                   .refresh_in = {}};
  parts_.demand->keep(std::move(*now));
  parts_.access->clear();
  return true;
}

std::vector<TokenStatus> BearerAuthorizer::tokens() const {
  std::vector<TokenStatus> tokens;
  for (const auto& keeper : parts_.behind) {
    if (auto status = keeper->status()) {
      if (!parts_.renewable) status->renews_in.reset();
      tokens.push_back(std::move(*status));
    }
  }
  parts_.access->append_status(tokens);
  return tokens;
}

std::vector<Ending> BearerAuthorizer::endings() const {
  return parts_.endings ? parts_.endings() : std::vector<Ending>();
}

std::optional<Error> BearerAuthorizer::last_error() const {
  if (parts_.given && parts_.given->last_error()) return parts_.given->last_error();
  for (const auto& keeper : parts_.behind) {
    if (keeper->last_error()) return keeper->last_error();
  }
  if (parts_.passwords) {
    if (auto error = parts_.passwords->last_error()) return error;
  }
  return parts_.demand->last_error();
}

std::string pull_scope(std::string_view repository) {
  return "repository:" + std::string(repository) + ":pull";
}

}  // namespace staithe::proxy::auth
