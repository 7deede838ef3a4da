#include "proxy/auth/managed_identity.h"

#include <algorithm>
#include <boost/asio/this_coro.hpp>
#include <cassert>

#include "cache/escape.h"
#include "proxy/auth/json.h"

namespace staithe::proxy::auth {
namespace {

using namespace std::chrono_literals;

constexpr std::string_view path =
    "/metadata/identity/oauth2/token?api-version=2018-02-01&resource=";

// The service is one hop away, in the host of the VM; who does not connect at once never will.
constexpr std::chrono::milliseconds connect_limit{2'000};

constexpr int most_tries = 5;
constexpr int most_silences = 3;                  // no answer at all
constexpr std::chrono::seconds gone_limit{70};    // how long 410 may last
constexpr std::chrono::seconds longest_wait{60};  // between two tries, whatever is asked for
constexpr std::chrono::seconds fetch_limit{100};  // no try begins later than this after the first

// Before the second, third, ... try: at 2, 6, 14, 30 s, and every 16 s from then on.
std::chrono::seconds wait_before(int tries) { return 1s * (1 << std::min(tries, 4)); }

constexpr SelectorNames selector_names = {
    .client_id = "client_id", .object_id = "object_id", .resource_id = "msi_res_id"};

// "07/12/2026 14:05:00 +00:00" and its older form with AM and PM: how the first generation of
// these services wrote an end.
std::optional<std::int64_t> parse_date_text(std::string_view text) {
  if (text.size() > 40) return std::nullopt;
  const std::string terminated(text);
  for (const char* format : {"%m/%d/%Y %H:%M:%S +00:00", "%m/%d/%Y %I:%M:%S %p +00:00"}) {
    tm parts{};
    const char* end = ::strptime(terminated.c_str(), format, &parts);
    if (end && *end == '\0') return ::timegm(&parts);
  }
  return std::nullopt;
}

// Something else than the metadata service has its address (Docker Desktop's proxy, for one).
bool is_another_program(const Answer& answer) {
  if (answer.status == 403) return answer.body.reveal().contains("unreachable");
  return answer.status == 200 ? !parse_json_object(answer.body.reveal()) : answer.status < 400;
}

bool is_passing(int status) { return status == 404 || status == 429 || status >= 500; }

// Ends a fetch for a reason that is the service's own and passes: whatever its status says.
[[noreturn]] void give_up(const Answer& answer, const std::string& step, std::string_view why) {
  const Errc code = answer.status == 429 ? Errc::throttled : Errc::upstream_failed;
  std::string detail = step + ": " + describe(answer) + ". ";
  detail += why;
  if (const auto retry = answer.retry_after()) throw Postponed(code, std::move(detail), *retry);
  throw Failure(code, std::move(detail));
}

}  // namespace

std::string selector_of(const IdentitySettings& identity, const SelectorNames& names) {
  const auto pair = [](std::string_view name, const std::string& value) {
    return "&" + std::string(name) + "=" + percent_encode(value);
  };
  if (!identity.client_id.empty()) return pair(names.client_id, identity.client_id);
  if (!identity.object_id.empty()) return pair(names.object_id, identity.object_id);
  if (!identity.resource_id.empty()) return pair(names.resource_id, identity.resource_id);
  return {};
}

std::string in_words(const IdentitySettings& identity) {
  if (!identity.client_id.empty()) return "the identity with client id " + identity.client_id;
  if (!identity.object_id.empty()) return "the identity with object id " + identity.object_id;
  if (!identity.resource_id.empty()) return "the identity " + identity.resource_id;
  return "this machine's identity";
}

std::string remedy_for(const IdentitySettings& identity) {
  return selector_of(identity, selector_names).empty()
             ? "Switch the VM's system-assigned identity on (az vm identity assign), or name one "
               "of its user-assigned identities by client_id; it needs the role AcrPull"
             : "Assign this identity to the VM (az vm identity assign --identities) and give it "
               "the role AcrPull, or correct the id in [identity]";
}

asio::awaitable<Answer> MetadataService::ask(std::string target, std::string step) {
  if (!freed_) freed_.emplace(co_await asio::this_coro::executor);
  while (busy_) co_await freed_->wait();
  struct Turn {
    explicit Turn(MetadataService& of) : service(of) { service.busy_ = true; }
    ~Turn() {
      service.busy_ = false;
      service.freed_->notify_all();
    }
    MetadataService& service;
  } turn(*this);
  HttpRequest request;
  request.url = endpoint_.with_target(std::move(target));
  request.host_named_by = HostNamedBy::identity_host;
  request.headers.add("Metadata", "true");
  request.limits = environment_.limits;
  request.limits.connect = std::min(request.limits.connect, connect_limit);
  co_return co_await auth::ask(environment_, std::move(request), std::move(step));
}

ImdsTokenSource::ImdsTokenSource(Environment environment, std::shared_ptr<MetadataService> service,
                                 std::string audience, const IdentitySettings& identity)
    : environment_(environment),
      service_(std::move(service)),
      audience_(std::move(audience)),
      identity_(identity),
      target_(std::string(path) + percent_encode(audience_) +
              selector_of(identity, selector_names)) {
  step_ = "getting an Entra token for " + printable(in_words(identity)) +
          " from the metadata service at " + service_->endpoint().origin().to_string();
}

asio::awaitable<Token> ImdsTokenSource::fetch() {
  const Instant started = environment_.clock.now();
  std::optional<Instant> gone_since;  // of the first 410
  int silences = 0;
  for (int tries = 1;; ++tries) {
    std::optional<Answer> answer;
    std::optional<Error> silence;
    try {
      answer.emplace(co_await service_->ask(target_, step_));
    } catch (const Failure& failure) {
      silence = failure.error();
    }
    const Instant now = environment_.clock.now();
    std::chrono::nanoseconds wait = wait_before(tries);
    if (answer && is_another_program(*answer)) {
      throw Failure(Errc::upstream_nonsense,
                    step_ + ": " + describe(*answer) +
                        ". Another program than the metadata service answers there");
    } else if (answer && answer->status == 200) {
      Result<Token> token = read_managed_token(*answer, audience_, identity_, false);
      if (!token) throw Failure(token.error().code, step_ + ": " + token.error().detail);
      co_return std::move(*token);
    } else if (answer && answer->status == 410) {
      if (!gone_since) gone_since = now;
      const std::chrono::nanoseconds left = *gone_since + gone_limit - now;
      if (left <= 0s)
        give_up(*answer, step_, "The metadata service has been updating for over a minute");
      wait = std::min(wait, left);
    } else if (answer && is_passing(answer->status)) {
      if (tries >= most_tries) give_up(*answer, step_, "The metadata service is not well");
      wait = std::clamp<std::chrono::nanoseconds>(answer->retry_after().value_or(0s), wait,
                                                  longest_wait);
    } else if (answer) {
      throw Failure(answer->status == 400 ? Errc::identity_missing : Errc::unauthorized,
                    step_ + ": " + describe(*answer) + ". " + remedy_for(identity_));
    } else if (silence->code == Errc::upstream_nonsense) {
      throw Failure(silence->code, silence->detail + ". Another program answers there");
    } else if (++silences == most_silences) {
      throw Failure(silence->code,
                    silence->detail +
                        (silences == tries
                             ? ". There is no metadata service here: is this an Azure VM, and may "
                               "this process reach that address (firewall, network namespace)?"
                             : ". The metadata service is not well"));
    }
    if (now + wait - started > fetch_limit) {
      if (answer) give_up(*answer, step_, "The metadata service is not well");
      throw Failure(silence->code, silence->detail + ". The metadata service is not well");
    }
    co_await environment_.clock.sleep_for(wait);
  }
}

Result<Token> read_managed_token(const Answer& answer, const std::string& audience,
                                 const IdentitySettings& identity, bool must_echo) {
  const Result<json::value> parsed = parse_json_object(answer.body.reveal());
  if (!parsed) return std::unexpected(parsed.error());
  const json::object& object = parsed->get_object();
  const auto text = text_field(object, "access_token");
  const auto type = text_field(object, "token_type");
  const auto client_id = text_field(object, "client_id");
  const auto object_id = text_field(object, "object_id");
  const auto resource_id = text_field(object, "msi_res_id");
  for (const auto* field : {&text, &type, &client_id, &object_id, &resource_id}) {
    if (!*field) return std::unexpected(field->error());
  }
  const auto expires_in = number_field(object, "expires_in");
  auto expires_on = number_field(object, "expires_on");
  if (!expires_on) {
    if (const auto date = text_field(object, "expires_on"); date && parse_date_text(*date))
      expires_on = parse_date_text(*date);
  }
  const auto refresh_in = number_field(object, "refresh_in");
  if (!expires_in) return std::unexpected(expires_in.error());
  if (!expires_on) return std::unexpected(expires_on.error());
  if (!refresh_in) return std::unexpected(refresh_in.error());
  if (!is_token_text(*text))
    return fail(Errc::upstream_nonsense, "the answer's 'access_token' is no token");
  if (!type->empty() && !iequals(*type, "bearer"))
    return fail(Errc::upstream_nonsense, "the answer's 'token_type' is not Bearer");
  const struct {
    std::string_view what;
    const std::string& asked;
    std::string_view answered;
  } echoes[] = {{"client id", identity.client_id, *client_id},
                {"object id", identity.object_id, *object_id},
                {"resource id", identity.resource_id, *resource_id}};
  for (const auto& echo : echoes) {
    if (echo.asked.empty() || iequals(echo.answered, echo.asked)) continue;
    if (!echo.answered.empty())
      return fail(Errc::upstream_nonsense, "the answer is for another identity, with " +
                                               std::string(echo.what) + " " +
                                               printable(echo.answered, 200));
    if (must_echo)
      return fail(Errc::upstream_nonsense,
                  "the answer does not say which identity it is for: this agent knows only the "
                  "machine's own; update it, or remove the " +
                      std::string(echo.what) + " from [identity]");
  }
  Result<Life> life = life_of(answer, *text, *expires_in, *expires_on);
  if (!life) return std::unexpected(std::move(life.error()));
  if (*refresh_in && **refresh_in > 0)
    life->refresh_in =
        std::min(std::chrono::seconds(**refresh_in), std::chrono::seconds(longest_life));
  return Token{.secret = Secret(*text), .life = *life, .scope = audience};
}

}  // namespace staithe::proxy::auth
