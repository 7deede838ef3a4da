#include "proxy/auth/given_token.h"

#include "cache/escape.h"
#include "proxy/auth/json.h"
#include "proxy/auth/jwt.h"
#include "proxy/auth/token_call.h"

namespace staithe::proxy::auth {
namespace {

using namespace std::chrono_literals;

constexpr std::chrono::seconds file_rest = 30s;
// They live an hour to three: time enough to fetch a new one.
constexpr std::chrono::minutes warned_ahead = 30min;

std::unexpected<Error> refuse(std::string_view why) {
  return fail(Errc::identity_missing, std::string(why));
}

}  // namespace

Result<Token> read_given_token(std::string_view text, Instant now, WallTime wall) {
  while (text.ends_with('\n') || text.ends_with('\r') || text.ends_with(' ')) text.remove_suffix(1);
  std::optional<json::value> parsed;
  std::string_view token = text;
  if (text.starts_with('{')) {
    Result<json::value> object = parse_json_object(text);
    if (!object) return refuse("it is neither a token nor az's JSON with one");
    parsed.emplace(std::move(*object));
    token = text_field(parsed->get_object(), "accessToken").value_or("");
    if (token.empty()) return refuse("az's JSON has no accessToken in it");
  }
  if (!is_token_text(token)) return refuse("it is no token");
  const Result<Claims> claims = read_jwt(token);
  if (!claims) return refuse("it is no token by Entra or an Azure Container Registry (no JWT)");
  if (!claims->expires) return refuse("it does not say when it ends (no exp)");
  // Rounded up: read again and again in one second, it must not end later each time.
  const auto wall_seconds = std::chrono::ceil<std::chrono::seconds>(wall).time_since_epoch();
  const std::chrono::seconds left(remaining_seconds(*claims->expires, wall_seconds.count()));
  if (left <= 0s)
    return refuse("it has ended " +
                  std::to_string(std::chrono::floor<std::chrono::minutes>(-left).count()) +
                  " minutes ago");
  return Token{.secret = Secret(token),
               .life = {.since = now,
                        .wall_since = wall,
                        .lasts = std::min<std::chrono::seconds>(left, longest_life),
                        .refresh_in = file_rest},
               .scope = {}};
}

asio::awaitable<Token> TokenFile::fetch() {
  const std::string step = "the token in " + printable(path_.native());
  const Secret text = co_await environment_.files.read(path_, FileRules{});
  Result<Token> token =
      read_given_token(text.reveal(), environment_.clock.now(), environment_.clock.wall());
  if (!token)
    throw Failure(token.error().code,
                  step + ": " + token.error().detail +
                      ". Write a new one there (az acr login --name NAME --expose-token), or use "
                      "an identity that renews itself");
  co_return std::move(*token);
}

asio::awaitable<Token> TokenInMemory::fetch() {
  Result<Token> token =
      read_given_token(text_.reveal(), environment_.clock.now(), environment_.clock.wall());
  if (!token)
    throw Failure(token.error().code,
                  "the token of the sign-in: " + token.error().detail + ". " + remedy_);
  co_return std::move(*token);
}

Endings endings_of_given(std::string what, std::shared_ptr<TokenKeeper> keeper,
                         Environment environment) {
  return [what = std::move(what), keeper = std::move(keeper), environment] {
    std::vector<Ending> endings;
    if (const auto token = keeper->current()) {
      endings.push_back({.what = what,
                         .expires_in = std::chrono::floor<std::chrono::seconds>(
                             token->life.end() - environment.clock.now()),
                         .warns_ahead = warned_ahead});
    }
    return endings;
  };
}

}  // namespace staithe::proxy::auth
