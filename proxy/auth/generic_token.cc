#include "proxy/auth/generic_token.h"

#include "cache/escape.h"
#include "proxy/auth/bearer.h"
#include "proxy/auth/json.h"
#include "proxy/auth/jwt.h"
#include "proxy/auth/scoped_tokens.h"
#include "proxy/auth/trust.h"

namespace staithe::proxy::auth {
namespace {

// realm?service=S&scope=A; a realm may have a query of its own.
Url token_url(const Demand& demand, std::string_view scope) {
  std::string target = demand.realm.target();
  target += target.contains('?') ? '&' : '?';
  if (!demand.service.empty()) target += "service=" + percent_encode(demand.service) + "&";
  target += "scope=" + percent_encode(scope);
  return demand.realm.with_target(std::move(target));
}

}  // namespace

GenericTokenSource::GenericTokenSource(Origin registry, std::shared_ptr<Keeper<Demand>> demand,
                                       std::shared_ptr<TokenServer> server, std::string repository)
    : registry_(std::move(registry)),
      demand_(std::move(demand)),
      server_(std::move(server)),
      repository_(std::move(repository)) {}

asio::awaitable<Token> GenericTokenSource::fetch() {
  const std::shared_ptr<const Demand> demand = co_await demand_->get();
  const std::string step = "getting an anonymous token for " + registry_.authority() + "/" +
                           printable(repository_) + " from " + demand->realm.printable();
  if (demand->kind != Demand::Kind::bearer)
    throw Failure(Errc::upstream_nonsense, step + ": the registry demands none any more");
  const std::string scope = pull_scope(repository_);
  const Answer answer = co_await server_->get(token_url(*demand, scope), Headers(), step);
  if (answer.status != 200) {
    const bool refused = answer.status == 401 || answer.status == 403;
    throw_refused(answer, step,
                  refused
                      ? "There is no such repository, or it is not for everyone: then configure "
                        "an identity for this registry"
                      : "");
  }
  const Result<json::value> parsed = parse_json_object(answer.body.reveal());
  if (!parsed) throw Failure(parsed.error().code, step + ": " + parsed.error().detail);
  const json::object& object = parsed->get_object();
  const auto token = text_field(object, "token");
  const auto access_token = text_field(object, "access_token");
  const auto expires_in = number_field(object, "expires_in");
  if (!token) throw Failure(token.error().code, step + ": " + token.error().detail);
  if (!access_token)
    throw Failure(access_token.error().code, step + ": " + access_token.error().detail);
  if (!expires_in) throw Failure(expires_in.error().code, step + ": " + expires_in.error().detail);
  const std::string_view text = token->empty() ? *access_token : *token;
  if (!is_token_text(text))
    throw Failure(Errc::upstream_nonsense, step + ": the answer holds no token");
  const Result<Claims> claims = read_jwt(text);
  // Only "nothing at all" is sure here: some registries grant under other names than asked.
  if (claims && claims->access && claims->access->empty()) {
    throw Failure(Errc::denied,
                  step +
                      ": it grants nothing. There is no such repository, or it is "
                      "not for everyone: then configure an identity for this registry");
  }
  const Result<Life> life = life_of(answer, text, *expires_in);
  if (!life) throw Failure(life.error().code, step + ": " + life.error().detail);
  co_return Token{.secret = Secret("Bearer ", text), .life = *life, .scope = scope};
}

std::unique_ptr<Authorizer> make_anonymous_authorizer(Environment environment,
                                                      const Origin& registry,
                                                      const std::string& ca_file) {
  const std::string name = registry.authority();
  const RealmRule rule = [registry](std::string_view realm) {
    return check_anonymous_realm(registry, realm);
  };
  auto demand = std::make_shared<Keeper<Demand>>(
      "challenge of " + name, Kind::demand,
      std::make_unique<DemandSource>(environment, registry, ca_file, rule), environment);
  auto server = std::make_shared<TokenServer>(environment, ca_file);
  auto access = std::make_shared<ScopedTokens>(
      name,
      [registry, demand, server](const std::string& repository) {
        return std::make_unique<GenericTokenSource>(registry, demand, server, repository);
      },
      environment);
  return std::make_unique<BearerAuthorizer>(environment, registry, rule, demand, std::move(access),
                                            std::vector<std::shared_ptr<TokenKeeper>>{});
}

}  // namespace staithe::proxy::auth
