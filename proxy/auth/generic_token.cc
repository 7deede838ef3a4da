#include "proxy/auth/generic_token.h"

#include <optional>

#include "cache/escape.h"
#include "proxy/auth/base64.h"
#include "proxy/auth/bearer.h"
#include "proxy/auth/json.h"
#include "proxy/auth/jwt.h"
#include "proxy/auth/token_call.h"
#include "proxy/auth/trust.h"

namespace staithe::proxy::auth {
namespace {

// How the token server may know us in its log (distribution spec: client_id is required).
constexpr std::string_view client_id = "staithe";
// Both passwords of an identity, or what a helper says and what it says next. More is guessing.
constexpr int most_passwords = 2;

// realm?service=S&scope=A; a realm may have a query of its own.
Url token_url(const Demand& demand, std::string_view scope) {
  std::string target = demand.realm.target();
  target += target.contains('?') ? '&' : '?';
  if (!demand.service.empty()) target += "service=" + percent_encode(demand.service) + "&";
  target += "scope=" + percent_encode(scope);
  return demand.realm.with_target(std::move(target));
}

std::unique_ptr<Authorizer> make_authorizer(Environment environment, const Origin& registry,
                                            const std::string& ca_file, RealmRule rule,
                                            std::vector<std::string> token_hosts,
                                            std::shared_ptr<Passwords> passwords, Endings endings) {
  const std::string name = registry.authority();
  auto demand = std::make_shared<Keeper<Demand>>(
      "challenge of " + name, Kind::demand,
      std::make_unique<DemandSource>(environment, registry, ca_file, rule), environment);
  auto server = std::make_shared<TokenServer>(environment, ca_file);
  auto access = std::make_shared<ScopedTokens>(
      name,
      [registry, token_hosts = std::move(token_hosts), demand, server,
       passwords](const std::string& repository) {
        return std::make_unique<GenericTokenSource>(registry, token_hosts, demand, server,
                                                    passwords, repository);
      },
      environment);
  return std::make_unique<BearerAuthorizer>(
      environment, BearerAuthorizer::Parts{.registry = registry,
                                           .rule = std::move(rule),
                                           .demand = std::move(demand),
                                           .access = std::move(access),
                                           .behind = {},
                                           .refresh = nullptr,
                                           .given = nullptr,
                                           .passwords = std::move(passwords),
                                           .endings = std::move(endings)});
}

// What is asked of a token server: what it is in messages, what to do when it is refused, for what,
// and who has named the server's host.
struct TokenQuestion {
  std::string step;
  std::string remedy;
  std::string scope;
  HostNamedBy host_named_by;
};

std::string step_of(const Origin& registry, const Demand& demand, const std::string& repository,
                    bool with_password) {
  return std::string("getting ") + (with_password ? "a" : "an anonymous") + " token for " +
         registry.authority() + "/" + printable(repository) + " from " + demand.realm.printable();
}

asio::awaitable<Answer> ask_server(TokenServer& server, const Demand& demand,
                                   const Password* password, const TokenQuestion& question) {
  HttpRequest request;
  request.host_named_by = question.host_named_by;
  if (password && password->identity_token) {
    Form form;
    form.add("grant_type", "refresh_token");
    form.add("service", demand.service);
    form.add("client_id", client_id);
    form.add("scope", question.scope);
    form.add("refresh_token", password->secret.reveal());
    request.url = demand.realm;
    co_return co_await server.post(std::move(request), std::move(form), question.step);
  }
  request.url = token_url(demand, question.scope);
  if (password)
    request.headers.add("Authorization", std::string(basic_authorization(*password).reveal()));
  co_return co_await server.get(std::move(request), question.step);
}

Token read_token(const Answer& answer, const TokenQuestion& question) {
  const std::string& step = question.step;
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
  if (claims && claims->access && claims->access->empty())
    throw Failure(Errc::denied, step + ": it grants nothing. " + question.remedy);
  const Result<Life> life = life_of(answer, text, *expires_in);
  if (!life) throw Failure(life.error().code, step + ": " + life.error().detail);
  return Token{.secret = Secret("Bearer ", text), .life = *life, .scope = question.scope};
}

[[noreturn]] void refuse(const Answer& answer, const Password* password,
                         const TokenQuestion& question) {
  const bool refused = answer.status == 401 || answer.status == 403;
  std::vector<std::string_view> sent;
  Secret header;
  if (password) {
    header = basic_authorization(*password);
    sent = {password->secret.reveal(), header.reveal().substr(std::string_view("Basic ").size())};
  }
  throw_refused(answer, question.step, refused ? question.remedy : "", sent);
}

}  // namespace

GenericTokenSource::GenericTokenSource(Origin registry, std::vector<std::string> token_hosts,
                                       std::shared_ptr<Keeper<Demand>> demand,
                                       std::shared_ptr<TokenServer> server,
                                       std::shared_ptr<Passwords> passwords, std::string repository)
    : registry_(std::move(registry)),
      token_hosts_(std::move(token_hosts)),
      demand_(std::move(demand)),
      server_(std::move(server)),
      passwords_(std::move(passwords)),
      repository_(std::move(repository)) {}

asio::awaitable<Token> GenericTokenSource::fetch() {
  const std::shared_ptr<const Demand> demand = co_await demand_->get();
  const TokenQuestion question{
      .step = step_of(registry_, *demand, repository_, passwords_ != nullptr),
      .remedy =
          passwords_
              ? "Correct the user name or password of this registry's identity, or give it the "
                "right to pull this repository"
              : "There is no such repository, or it is not for everyone: then configure an "
                "identity for this registry",
      .scope = pull_scope(repository_),
      .host_named_by = realm_named_by(registry_, demand->realm.origin(), token_hosts_)};
  if (demand->kind != Demand::Kind::bearer)
    throw Failure(Errc::upstream_nonsense, question.step + ": the registry demands none any more");
  std::optional<Passwords::Pick> pick;
  if (passwords_) pick = co_await passwords_->get();
  for (int tries = 1;; ++tries) {
    const Password* password = pick ? pick->password.get() : nullptr;
    const Answer answer = co_await ask_server(*server_, *demand, password, question);
    if (answer.status == 200) {
      if (pick) passwords_->accepted(*pick);
      co_return read_token(answer, question);
    }
    std::optional<Passwords::Pick> other;
    if (answer.status == 401 && pick) {
      passwords_->refused(*pick);
      try {
        if (tries < most_passwords) other = co_await passwords_->get();
        if (other && other->password->secret == pick->password->secret) other.reset();
      } catch (const Failure&) {
        // There is none; what the registry said is the news.
        other.reset();
      }
    }
    if (!other) refuse(answer, password, question);
    pick = std::move(other);
  }
}

asio::awaitable<Token> fetch_pull_token(Origin registry, std::vector<std::string> token_hosts,
                                        std::shared_ptr<const Demand> demand,
                                        std::shared_ptr<TokenServer> server,
                                        std::shared_ptr<const Password> password,
                                        std::string repository, std::string remedy) {
  const TokenQuestion question{
      .step = step_of(registry, *demand, repository, password != nullptr),
      .remedy = std::move(remedy),
      .scope = pull_scope(repository),
      .host_named_by = realm_named_by(registry, demand->realm.origin(), token_hosts)};
  const Answer answer = co_await ask_server(*server, *demand, password.get(), question);
  if (answer.status != 200) refuse(answer, password.get(), question);
  co_return read_token(answer, question);
}

std::unique_ptr<Authorizer> make_anonymous_authorizer(Environment environment,
                                                      const Origin& registry,
                                                      const std::string& ca_file,
                                                      std::vector<std::string> token_hosts) {
  RealmRule rule = [registry](std::string_view realm) {
    return check_anonymous_realm(registry, realm);
  };
  return make_authorizer(environment, registry, ca_file, std::move(rule), std::move(token_hosts),
                         nullptr, {});
}

std::unique_ptr<Authorizer> make_password_authorizer(
    Environment environment, const Origin& registry, const std::string& ca_file, RealmRule rule,
    std::vector<std::string> token_hosts, std::shared_ptr<Passwords> passwords, Endings endings) {
  return make_authorizer(environment, registry, ca_file, std::move(rule), std::move(token_hosts),
                         std::move(passwords), std::move(endings));
}

Secret basic_authorization(const Password& password) {
  std::string pair;
  pair.reserve(password.username.size() + 1 + password.secret.size_bytes());
  pair += password.username;
  pair += ':';
  pair += password.secret.reveal();
  std::string encoded = encode_base64(pair);
  wipe(pair);
  Secret value("Basic ", encoded);
  wipe(encoded);
  return value;
}

}  // namespace staithe::proxy::auth
