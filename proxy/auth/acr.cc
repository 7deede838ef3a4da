#include "proxy/auth/acr.h"

#include "cache/escape.h"
#include "proxy/auth/bearer.h"
#include "proxy/auth/json.h"
#include "proxy/auth/jwt.h"
#include "proxy/auth/scoped_tokens.h"
#include "proxy/auth/trust.h"

namespace staithe::proxy::auth {
namespace {

using namespace std::chrono_literals;

// An Entra token that is refused although it is younger is refused for what it is, not for its age;
// the platform would only hand the same one out again.
constexpr std::chrono::minutes worth_replacing = 5min;

// By this name its refresh tokens say who has issued them.
constexpr std::string_view acr_issuer = "Azure Container Registry";
// How soon a token from a file or a sign-in is looked at again, for a newer one.
constexpr std::chrono::seconds given_rest = 30s;

constexpr std::string_view network_remedy =
    "Let this machine through the registry's network rules (public access, firewall, private "
    "endpoint); the tokens are kept";

// The token in a 200, in the one field that has to be there.
Result<std::string_view> token_in(const json::value& parsed, std::string_view field) {
  const Result<std::string_view> text = text_field(parsed.get_object(), field);
  if (!text) return text;
  if (!is_token_text(*text))
    return fail(Errc::upstream_nonsense, "the answer's '" + std::string(field) + "' is no token");
  return text;
}

// Why a call to the registry was refused, with the mend that fits the status.
[[noreturn]] void refuse(const Answer& answer, const std::string& step,
                         std::string_view unauthorized_remedy,
                         const std::vector<std::string_view>& sent) {
  std::string_view remedy;
  if (answer.status == 401) remedy = unauthorized_remedy;
  if (answer.status == 403) remedy = network_remedy;
  if (answer.status == 404) remedy = "Is this an Azure Container Registry?";
  throw_refused(answer, step, remedy, sent);
}

asio::awaitable<std::string> service_of(AcrRegistry registry) {
  const std::shared_ptr<const Demand> demand = co_await registry.demand->get();
  if (demand->kind != Demand::Kind::bearer || demand->service.empty()) {
    throw Failure(Errc::upstream_nonsense, registry.origin.authority() +
                                               " does not ask for a Bearer token with a service "
                                               "name, as an Azure Container Registry does");
  }
  co_return demand->service;
}

// To the registry itself, which is configured.
HttpRequest request_to(const Origin& registry, std::string path) {
  HttpRequest request;
  request.url = Url::parse(registry.to_string() + "/").value().with_target(std::move(path));
  request.host_named_by = HostNamedBy::configuration;
  return request;
}

std::string actions_in_words(const std::optional<std::vector<Access>>& access) {
  std::string words;
  if (access) {
    for (const Access& granted : *access) {
      for (const std::string& action : granted.actions)
        words += (words.empty() ? "" : ", ") + granted.name + ":" + action;
    }
  }
  return words.empty() ? "nothing" : printable(words, 120);
}

}  // namespace

bool is_acr_refresh_token(std::string_view token) {
  const Result<Claims> claims = read_jwt(token);
  return claims && claims->issuer == acr_issuer;
}

Result<void> check_refresh_audience(std::string_view token, const Origin& registry,
                                    const std::vector<std::string>& suffixes) {
  const Result<Claims> claims = read_jwt(token);
  if (!claims) return std::unexpected(claims.error());
  const auto here = parse_acr_host(registry.host, suffixes);
  const bool ours = std::ranges::any_of(claims->audience, [&](const std::string& audience) {
    if (audience == registry.host || audience == registry.authority()) return true;
    const auto there = parse_acr_host(audience, suffixes);
    return here && there && here->name == there->name && here->suffix == there->suffix;
  });
  if (ours) return {};
  return fail(Errc::unauthorized,
              "is a refresh token of " + (claims->audience.empty()
                                              ? std::string("no registry")
                                              : printable(claims->audience.front(), 100)));
}

AcrExchange::AcrExchange(Environment environment, AcrRegistry registry, AcrIdentity identity,
                         std::vector<std::string> suffixes)
    : environment_(environment),
      registry_(std::move(registry)),
      identity_(std::move(identity)),
      suffixes_(std::move(suffixes)) {}

std::optional<Token> AcrExchange::as_refresh_token(const Token& given,
                                                   const std::string& step) const {
  const Result<Claims> claims = read_jwt(given.secret.reveal());
  if (!claims || claims->issuer != acr_issuer) return std::nullopt;
  if (const auto ours = check_refresh_audience(given.secret.reveal(), registry_.origin, suffixes_);
      !ours)
    throw Failure(ours.error().code, step + ": the token that was given " + ours.error().detail +
                                         ". " + identity_.remedy);
  // What is left of its life begins now: counted from when the token was read, the next look would
  // be due at once, again and again, while a bad file keeps the old token in use.
  const Instant now = environment_.clock.now();
  const Life life{.since = now,
                  .wall_since = given.life.wall_since + (now - given.life.since),
                  .lasts = std::max<std::chrono::nanoseconds>(given.life.end() - now, 1ms),
                  .refresh_in = given_rest};
  return Token{.secret = Secret(given.secret.reveal()), .life = life, .scope = {}};
}

asio::awaitable<Token> AcrExchange::fetch() {
  const std::string step =
      "exchanging the Entra token for a refresh token at " + registry_.origin.authority();
  const std::shared_ptr<TokenKeeper> keeper = identity_.entra;
  std::shared_ptr<const Token> entra = co_await keeper->get();
  if (identity_.given) {
    if (std::optional<Token> refresh = as_refresh_token(*entra, step))
      co_return std::move(*refresh);
  }
  const std::string service = co_await service_of(registry_);
  for (bool replaced = false;; replaced = true) {
    Form form;
    form.add("grant_type", "access_token");
    form.add("service", service);
    if (!identity_.tenant.empty()) form.add("tenant", identity_.tenant);
    form.add("access_token", entra->secret.reveal());
    const Answer answer = co_await registry_.server->post(
        request_to(registry_.origin, "/oauth2/exchange"), std::move(form), step);
    if (answer.status == 200) {
      const Result<json::value> parsed = parse_json_object(answer.body.reveal());
      if (!parsed) throw Failure(parsed.error().code, step + ": " + parsed.error().detail);
      const Result<std::string_view> token = token_in(*parsed, "refresh_token");
      if (!token) throw Failure(token.error().code, step + ": " + token.error().detail);
      const Result<Life> life = life_of(answer, *token, std::nullopt);
      if (!life) throw Failure(life.error().code, step + ": " + life.error().detail);
      co_return Token{.secret = Secret(*token), .life = *life, .scope = {}};
    }
    std::shared_ptr<const Token> other;
    if (answer.status == 401 && !replaced &&
        environment_.clock.now() - entra->life.since >= worth_replacing) {
      try {
        other = co_await keeper->get_other_than(entra);
      } catch (const Failure&) {
        // What the registry said is the news; the Entra token itself has not ended.
        other = nullptr;
      }
    }
    if (!other) {
      refuse(answer, step, identity_.remedy, {entra->secret.reveal()});
    }
    entra = std::move(other);
  }
}

AcrAccess::AcrAccess(AcrRegistry registry, std::shared_ptr<TokenKeeper> refresh,
                     std::string repository)
    : registry_(std::move(registry)),
      refresh_(std::move(refresh)),
      repository_(std::move(repository)) {}

asio::awaitable<Token> AcrAccess::fetch() {
  const std::string step =
      "getting an access token for " + registry_.origin.authority() + "/" + printable(repository_);
  const std::string scope = pull_scope(repository_);
  for (bool replaced = false;; replaced = true) {
    const std::shared_ptr<const Token> refresh = co_await refresh_->get();
    const std::string service = co_await service_of(registry_);
    Form form;
    form.add("grant_type", "refresh_token");
    form.add("service", service);
    form.add("scope", scope);
    form.add("refresh_token", refresh->secret.reveal());
    const Answer answer = co_await registry_.server->post(
        request_to(registry_.origin, "/oauth2/token"), std::move(form), step);
    if (answer.status == 401 && !replaced && refresh_->discard(refresh.get())) continue;
    if (answer.status == 401) {
      // It contradicts itself, which is no answer about rights, and may be over in a moment.
      throw Failure(Errc::upstream_nonsense,
                    step + ": " + describe(answer, {refresh->secret.reveal()}) +
                        ". The registry refuses the refresh token that it has just given out");
    }
    if (answer.status != 200) refuse(answer, step, "", {refresh->secret.reveal()});
    const Result<json::value> parsed = parse_json_object(answer.body.reveal());
    if (!parsed) throw Failure(parsed.error().code, step + ": " + parsed.error().detail);
    const Result<std::string_view> token = token_in(*parsed, "access_token");
    if (!token) throw Failure(token.error().code, step + ": " + token.error().detail);
    const Result<std::optional<std::int64_t>> expires_in =
        number_field(parsed->get_object(), "expires_in");
    if (!expires_in)
      throw Failure(expires_in.error().code, step + ": " + expires_in.error().detail);
    if (const Result<Claims> claims = read_jwt(*token);
        claims && !claims->may_grant(repository_, "pull")) {
      throw Failure(Errc::denied,
                    step + ": it grants " + actions_in_words(claims->access) +
                        ". Give the identity the role AcrPull, or Container Registry Repository "
                        "Reader for this repository where the registry uses ABAC");
    }
    const Result<Life> life = life_of(answer, *token, *expires_in);
    if (!life) throw Failure(life.error().code, step + ": " + life.error().detail);
    co_return Token{.secret = Secret("Bearer ", *token), .life = *life, .scope = scope};
  }
}

std::unique_ptr<Authorizer> make_acr_authorizer(Environment environment, const Origin& registry,
                                                const std::string& ca_file,
                                                const std::vector<std::string>& suffixes,
                                                AcrIdentity identity) {
  const std::string name = registry.authority();
  const RealmRule rule = [registry, suffixes](std::string_view realm) {
    return check_acr_realm(registry, realm, suffixes);
  };
  AcrRegistry shared{
      .origin = registry,
      .demand = std::make_shared<Keeper<Demand>>(
          "challenge of " + name, Kind::demand,
          std::make_unique<DemandSource>(environment, registry, ca_file, rule), environment),
      .server =
          std::make_shared<TokenServer>(environment, ca_file, RateLimit(RateLimit::acr_tokens))};
  auto refresh = std::make_shared<TokenKeeper>(
      "refresh token of " + name, Kind::refresh,
      std::make_unique<AcrExchange>(environment, shared, identity, suffixes), environment);
  auto access = std::make_shared<ScopedTokens>(
      name,
      [shared, refresh](const std::string& repository) {
        return std::make_unique<AcrAccess>(shared, refresh, repository);
      },
      environment);
  std::vector<std::shared_ptr<TokenKeeper>> behind;
  // What a person has given is shown among the endings, as what it is.
  if (!identity.given) behind.push_back(identity.entra);
  const std::shared_ptr<TokenKeeper> given = identity.given ? identity.entra : nullptr;
  behind.push_back(refresh);
  return std::make_unique<BearerAuthorizer>(
      environment, BearerAuthorizer::Parts{.registry = registry,
                                           .rule = rule,
                                           .demand = shared.demand,
                                           .access = std::move(access),
                                           .behind = std::move(behind),
                                           .refresh = refresh,
                                           .given = given,
                                           .passwords = nullptr,
                                           .endings = std::move(identity.endings),
                                           .renewable = !identity.given});
}

}  // namespace staithe::proxy::auth
