// Answers of token servers, as the whole way of each question reads them: ACR's exchange and access
// tokens, its challenge, the distribution spec's token server, and the metadata service. What comes
// of one is a token that can be sent and that ends, or a sentence without what was sent; and nobody
// else is asked (threats T7, T17; faults F20, F21).
//
// The first line is the question and the status, then come header fields, an empty line and a body.
#include <charconv>

#include "proxy/auth/acr.h"
#include "proxy/auth/generic_token.h"
#include "proxy/auth/managed_identity.h"
#include "proxy/auth/trust.h"
#include "tests/fuzz/played.h"

namespace staithe::fuzz {

namespace {

namespace auth = proxy::auth;
using namespace std::chrono_literals;

constexpr std::string_view secret = "Xq7vKm2pZr9sWd4t";
const proxy::Origin contoso{"https", "contoso.azurecr.io", 443};
constexpr std::string_view token_server = "https://auth.example/token";

fake::Reply read_reply(Input& input, std::string_view status) {
  fake::Reply reply;
  std::from_chars(status.data(), status.data() + status.size(), reply.status);
  reply.status = std::clamp(reply.status, 100, 999);
  while (!input.empty()) {
    const std::string_view line = input.line();
    if (line.empty()) break;
    const std::size_t colon = std::min(line.find(':'), line.size());
    std::string_view value = line.substr(std::min(colon + 1, line.size()));
    if (value.starts_with(' ')) value.remove_prefix(1);
    reply.headers.emplace_back(line.substr(0, colon), value);
  }
  reply.body = std::string(input.rest());
  return reply;
}

auth::Life an_hour(Played& played) {
  return {.since = played.clock.now(), .wall_since = played.clock.wall(), .lasts = 1h};
}

std::shared_ptr<auth::TokenKeeper> given_token(Played& played, auth::Kind kind) {
  return std::make_shared<auth::TokenKeeper>(
      "a token", kind, std::make_unique<MadeBy<auth::Token>>([&played] {
        return auth::Token{.secret = auth::Secret(secret), .life = an_hour(played), .scope = {}};
      }),
      played.environment());
}

std::shared_ptr<auth::Keeper<auth::Demand>> given_demand(Played& played, std::string_view realm) {
  return std::make_shared<auth::Keeper<auth::Demand>>(
      "a demand", auth::Kind::demand,
      std::make_unique<MadeBy<auth::Demand>>([&played, url = *proxy::Url::parse(realm)] {
        return auth::Demand{.kind = auth::Demand::Kind::bearer,
                            .realm = url,
                            .service = "contoso.azurecr.io",
                            .life = an_hour(played)};
      }),
      played.environment());
}

void check_token(const Result<auth::Token>& token, std::string_view prefix, bool secret_sent) {
  if (!token) {
    check(is_printable(token.error().detail) && !token.error().detail.empty());
    // What was not sent may be shown.
    check(!secret_sent || !token.error().detail.contains(secret));
    return;
  }
  std::string_view text = token->secret.reveal();
  check(text.starts_with(prefix));
  text.remove_prefix(prefix.size());
  check(auth::is_token_text(text));
  check(token->life.lasts.count() > 0 && token->life.lasts <= auth::longest_life);
}

void ask_acr(Played& played, bool exchange) {
  const auth::AcrRegistry registry{
      .origin = contoso,
      .demand = given_demand(played, "https://contoso.azurecr.io/oauth2/token"),
      .server = std::make_shared<auth::TokenServer>(played.environment(), "")};
  if (exchange) {
    auth::AcrExchange source(played.environment(), registry,
                             {.entra = given_token(played, auth::Kind::entra),
                              .tenant = "",
                              .remedy = "Give the identity the role AcrPull"},
                             {"azurecr.io"});
    check_token(played.run(source.fetch()), "", true);
  } else {
    auth::AcrAccess source(registry, given_token(played, auth::Kind::refresh), "team/app");
    check_token(played.run(source.fetch()), "Bearer ", true);
  }
}

void ask_generic(Played& played) {
  auth::GenericTokenSource source(
      {"https", "quay.example", 443}, {}, given_demand(played, token_server),
      std::make_shared<auth::TokenServer>(played.environment(), ""), nullptr, "team/app");
  check_token(played.run(source.fetch()), "Bearer ", false);
}

void ask_how(Played& played) {
  auth::DemandSource source(played.environment(), contoso, "", [](std::string_view realm) {
    return auth::check_acr_realm(contoso, realm, {"azurecr.io"});
  });
  const auto demand = played.run(source.fetch());
  if (!demand) {
    check(is_printable(demand.error().detail));
  } else if (demand->kind == auth::Demand::Kind::bearer) {
    check(demand->realm.origin().scheme == "https");
    check(proxy::host_below(demand->realm.origin().host, "azurecr.io"));
  }
}

void ask_metadata(Played& played) {
  auth::ImdsTokenSource source(
      played.environment(),
      std::make_shared<auth::MetadataService>(played.environment(),
                                              *proxy::Url::parse("http://169.254.169.254")),
      "https://containerregistry.azure.net", {.kind = proxy::IdentityKind::managed_identity});
  check_token(played.run(source.fetch()), "", false);
}

}  // namespace

void one(std::string_view bytes) {
  Input input(bytes);
  const std::string_view first = input.line();
  if (first.size() < 2) return;
  Played played;
  const fake::Reply reply = read_reply(input, first.substr(1));
  for (const char* place :
       {"https://contoso.azurecr.io", "https://auth.example", "http://169.254.169.254"})
    played.http.on(place, [&](const fake::Asked&) { return reply; });
  std::string_view owner = "https://contoso.azurecr.io";
  switch (first.front()) {
    case 'e':
      ask_acr(played, true);
      break;
    case 'a':
      ask_acr(played, false);
      break;
    case 'd':
      ask_how(played);
      break;
    case 'g':
      owner = "https://auth.example";
      ask_generic(played);
      break;
    case 'm':
      owner = "http://169.254.169.254";
      ask_metadata(played);
      break;
    default:
      return;
  }
  for (const fake::Asked& asked : played.http.asked()) check(asked.origin.to_string() == owner);
}

}  // namespace staithe::fuzz
