#include "daemon/credentials.h"

#include <algorithm>
#include <array>
#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <boost/json/serialize.hpp>
#include <memory>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "cache/event.h"
#include "cache/log.h"
#include "daemon/values.h"
#include "proxy/auth/json.h"
#include "proxy/errors.h"
#include "proxy/reference.h"
#include "proxy/slots.h"

namespace staithe::daemon {

namespace json = boost::json;
namespace auth = proxy::auth;

namespace {

// Registries that are renewed at one time.
constexpr std::size_t most_renewals = 16;
constexpr std::string_view not_of_this_registry =
    "this user may not have credentials of this registry; root can add the user to users, or one "
    "of its groups to groups, of its [registry.access], or of [access] if it has none, in "
    "staithe.toml";
// A registry token is a few KiB.
constexpr std::size_t most_token_bytes = 48UL * 1024;

struct Endpoint {
  std::string_view path;
  std::string_view method;
  Right right;  // at least
};
constexpr std::array<Endpoint, 5> endpoints{{{"/v1/credential", "POST", Right::credential},
                                             {"/v1/credentials", "GET", Right::credential},
                                             {"/v1/renew", "POST", Right::credential},
                                             {"/v1/login", "POST", Right::own},
                                             {"/v1/logout", "POST", Right::own}}};

std::string_view path_of(const proxy::Request& request) {
  return request.target.substr(0, request.target.find('?'));
}

std::string describe(proxy::Peer caller) { return caller ? std::to_string(*caller) : "unknown"; }

// `text` as a JSON string, without a copy on the way.
void append_json(std::string& out, std::string_view text) {
  constexpr std::string_view hex = "0123456789abcdef";
  out += '"';
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (byte < ' ') {
      out.append("\\u00");
      out += hex[byte >> 4];
      out += hex[byte & 15];
    } else {
      out += c;
    }
  }
  out += '"';
}

json::value seconds_or_null(const std::optional<std::chrono::seconds>& seconds) {
  return seconds ? json::value(seconds->count()) : json::value(nullptr);
}

}  // namespace

struct Credentials::Reply {
  Reply(int with_status, std::string text) : status(with_status), body(std::move(text)) {}
  Reply(Reply&& other) noexcept : status(other.status), body(std::move(other.body)) {
    auth::wipe(other.body);  // a short text is copied by its move
  }
  Reply& operator=(Reply&&) = delete;
  ~Reply() { auth::wipe(body); }

  static Reply json(const json::value& value) { return {200, json::serialize(value) + "\n"}; }
  static Reply error(int status, std::string_view code, std::string_view message) {
    return {status, proxy::error_body(code, message)};
  }

  int status;
  std::string body;
};

bool Credentials::answers(std::string_view path) {
  return std::ranges::find(endpoints, path, &Endpoint::path) != endpoints.end();
}

bool Credentials::is_sign_in(const std::string& identity) {
  return identity == auth::Identities::signed_in;
}

bool Credentials::has_credential(const std::string& identity) const {
  if (identity.empty()) return false;
  const auto found = sources_.config.proxy.identities.find(identity);
  return found == sources_.config.proxy.identities.end()
             ? is_sign_in(identity)
             : found->second.kind != proxy::IdentityKind::anonymous;
}

asio::awaitable<void> Credentials::handle(proxy::Exchange& exchange) {
  const proxy::Request& request = exchange.request();
  const std::string_view path = path_of(request);
  const Endpoint& endpoint = *std::ranges::find(endpoints, path, &Endpoint::path);
  // Answers with secrets are kept by nobody.
  exchange.add("Cache-Control", "no-store");
  if (request.method != endpoint.method) {
    exchange.add("Allow", endpoint.method);
    co_await exchange.reply_error(
        405, "UNSUPPORTED", std::string(path) + " is asked with " + std::string(endpoint.method));
    co_return;
  }
  const proxy::Peer caller = exchange.peer();
  if (!co_await sources_.access.allows(endpoint.right, caller)) {
    co_await exchange.reply_error(
        403, "DENIED",
        endpoint.right == Right::own
            ? "only root and the daemon's own user may do this"
            : "this user may not have registry credentials; root can add the user to access.users, "
              "or one of its groups to access.groups, in staithe.toml");
    co_return;
  }
  std::optional<Error> failed;
  try {
    const Reply reply = co_await answer(request, path, caller);
    co_await exchange.reply(reply.status, "application/json", reply.body);
    co_return;
  } catch (const Failure& failure) {
    failed = failure.error();
  }
  if (exchange.answered()) throw Failure(*failed);
  switch (failed->code) {
    case Errc::registry_unknown:
    case Errc::not_found:
      co_await exchange.reply_error(404, "NOT_MANAGED", failed->detail);
      break;
    case Errc::bad_request:
    case Errc::name_invalid:
      co_await exchange.reply_error(400, "UNSUPPORTED", failed->detail);
      break;
    case Errc::unsupported:
      co_await exchange.reply_error(501, "UNSUPPORTED", failed->detail);
      break;
    case Errc::identity_missing:
    case Errc::throttled:
    case Errc::unreachable:
    case Errc::cancelled:
      co_await exchange.reply_error(503, "UNAVAILABLE", failed->detail);
      break;
    default:
      // Also what a registry calls unauthorized or denied: it is the identity that failed, and the
      // caller has nothing to mend.
      co_await exchange.reply_error(502, "UNAVAILABLE", failed->detail);
      break;
  }
}

asio::awaitable<Credentials::Reply> Credentials::answer(const proxy::Request& request,
                                                        std::string_view path, proxy::Peer caller) {
  if (path == "/v1/credentials") co_return co_await list(caller);
  if (path == "/v1/credential") {
    constexpr std::array<std::string_view, 6> fields{
        "registry", "repository", "purpose", "service_account_token", "client_id", "tenant_id"};
    co_return co_await credential(Asked::parse(request.body, fields), caller);
  }
  if (path == "/v1/login") {
    constexpr std::array<std::string_view, 2> fields{"registry", "token"};
    co_return co_await sign_in(Asked::parse(request.body, fields), caller);
  }
  constexpr std::array<std::string_view, 1> fields{"registry"};
  if (path == "/v1/renew") co_return co_await renew(Asked::parse(request.body, fields), caller);
  co_return co_await sign_out(Asked::parse(request.body, fields), caller);
}

proxy::RegistryPtr Credentials::registry(const Asked& asked) {
  const std::string_view text = asked["registry"];
  if (text.empty())
    throw Failure(Errc::bad_request, "the request names no registry: {\"registry\":\"HOST\"}");
  return sources_.registries.find(value_or_throw(proxy::parse_registry(text)));
}

asio::awaitable<proxy::RegistryPtr> Credentials::allowed_registry(const Asked& asked,
                                                                  proxy::Peer caller) {
  proxy::RegistryPtr found = registry(asked);
  const bool allowed =
      co_await sources_.access.allows(Right::credential, caller, found->settings().name);
  co_return allowed ? std::move(found) : nullptr;
}

asio::awaitable<Credentials::Reply> Credentials::credential(Asked asked, proxy::Peer caller) {
  const std::string_view purpose = asked["purpose"];
  const bool expose = purpose == "expose-token";
  if (asked.has("purpose") && !expose && purpose != "pull")
    throw Failure(Errc::bad_request, "the purpose is \"pull\" or \"expose-token\"");
  if (expose && !co_await sources_.access.allows(Right::own, caller))
    co_return Reply::error(403, "DENIED",
                           "a token is shown to root and the daemon's own user only");
  const int pod_fields =
      asked.has("service_account_token") + asked.has("client_id") + asked.has("tenant_id");
  if (pod_fields != 0 && (pod_fields != 3 || expose))
    throw Failure(
        Errc::bad_request,
        "service_account_token, client_id and tenant_id go together, and with the purpose "
        "\"pull\"");
  const std::string_view repository = asked["repository"];
  if (!repository.empty() && !proxy::is_repository(repository))
    throw Failure(Errc::name_invalid, "the repository is not the name of one");

  const proxy::RegistryPtr registry = co_await allowed_registry(asked, caller);
  if (!registry) co_return Reply::error(403, "DENIED", not_of_this_registry);
  auth::Login login;
  if (pod_fields == 3) {
    if (!sources_.doors.service_account)
      throw Failure(Errc::unsupported, "service accounts are not served here");
    const auto client = parse_guid(asked["client_id"]);
    const auto tenant = parse_guid(asked["tenant_id"]);
    const std::string_view token = asked["service_account_token"];
    if (!client || !tenant || token.empty() || token.size() > most_token_bytes)
      throw Failure(Errc::bad_request,
                    "client_id and tenant_id are GUIDs, and service_account_token is a token of at "
                    "most 48 KiB");
    login = co_await sources_.doors.service_account(
        registry, auth::ServiceAccount{
                      .client_id = *client, .tenant_id = *tenant, .token = auth::Secret(token)});
  } else {
    proxy::UpstreamList& upstream = registry->upstream(
        repository.empty() ? std::string() : registry->canonical(std::string(repository)));
    login = co_await upstream.authorizer().login();
  }
  if (!login.secret)
    throw Failure(Errc::not_found, "there is no credential for " + registry->name());

  if (expose) {
    log::info("registry token shown", {{"registry", registry->name()}, {"user", describe(caller)}});
  } else {
    log::debug("registry credential given",
               {{"registry", registry->name()}, {"user", describe(caller)}});
  }
  Reply reply(200, {});
  // One piece of memory, which is wiped: growing would leave pieces behind.
  reply.body.reserve(1024 + 6 * (login.username.size() + login.secret->size_bytes()));
  reply.body += "{\"registry\":";
  append_json(reply.body, registry->name());
  reply.body += ",\"username\":";
  append_json(reply.body, login.username);
  reply.body += ",\"password\":";
  append_json(reply.body, login.secret->reveal());
  reply.body += login.identity_token ? ",\"identity_token\":true" : ",\"identity_token\":false";
  reply.body += login.renewable ? ",\"renewable\":true" : ",\"renewable\":false";
  reply.body +=
      ",\"expires_in_seconds\":" + json::serialize(seconds_or_null(login.expires_in)) + "}\n";
  if (!auth::parse_json_object(reply.body))
    throw Failure(Errc::config, "the credential for " + registry->name() +
                                    " holds bytes that are no text (UTF-8), which no client could "
                                    "use: write its file anew");
  co_return reply;
}

// Every registry by name that has a login: those with a name of their own in the configuration, and
// of wildcards those that were used; of these, whose credentials the caller may have. Asks nobody.
asio::awaitable<Credentials::Reply> Credentials::list(proxy::Peer caller) {
  std::set<std::string> names;
  for (const proxy::RegistrySettings& settings : sources_.registries.configured()) {
    if (!settings.name.starts_with("*.")) names.insert(settings.name);
  }
  for (const auto& [name, registry] : sources_.registries.used()) names.insert(name);
  json::array credentials;
  for (const std::string& name : names) {
    const proxy::RegistrySettings* const entry = sources_.registries.entry(name);
    if (!entry || !co_await sources_.access.would_allow(Right::credential, caller, entry->name))
      continue;
    std::string username;
    try {
      username = sources_.registries.find(name)->upstream({}).authorizer().login_name();
    } catch (const Failure& failure) {
      // An identity that cannot serve this registry has no login.
      log::debug("registry without a login", {{"registry", name}, {"error", failure.error()}});
    }
    if (!username.empty())
      credentials.push_back(json::object{{"registry", name}, {"username", username}});
  }
  co_return Reply::json(json::object{{"credentials", std::move(credentials)}});
}

// What the renewals of one request leave, in the order they were begun.
struct Credentials::Renewals {
  struct One {
    std::string registry;
    std::string identity;
    std::optional<std::string> error = {};
  };
  explicit Renewals(const asio::any_io_executor& loop)
      : slots(loop, most_renewals), changed(loop) {}

  std::vector<One> all;
  std::size_t left = 0;
  proxy::Slots slots;
  Event changed;
};

// `registry` keeps `authorizer` alive, whatever a reload does meanwhile.
asio::awaitable<void> Credentials::renew_one(std::shared_ptr<Renewals> renewals, std::size_t index,
                                             proxy::RegistryPtr registry,
                                             auth::Authorizer* authorizer) {
  try {
    const auto slot = co_await renewals->slots.acquire();
    co_await authorizer->renew();
  } catch (const Failure& failure) {
    renewals->all[index].error = failure.error().detail;
  } catch (const boost::system::system_error&) {
    renewals->all[index].error = "the daemon is stopping";
  }
  --renewals->left;
  renewals->changed.notify_all();
}

asio::awaitable<Credentials::Reply> Credentials::renew(Asked asked, proxy::Peer caller) {
  std::vector<proxy::RegistryPtr> registries;
  if (asked["registry"].empty()) {
    std::vector<proxy::RegistryPtr> all;  // a reload may change the map while this asks
    for (const auto& [name, registry] : sources_.registries.used()) all.push_back(registry);
    for (const proxy::RegistryPtr& registry : all) {
      const std::string entry = registry->settings().name;
      if (co_await sources_.access.would_allow(Right::credential, caller, entry))
        registries.push_back(registry);
    }
  } else {
    registries.push_back(co_await allowed_registry(asked, caller));
    if (!registries.back()) co_return Reply::error(403, "DENIED", not_of_this_registry);
    registries.back()->upstream(
        {});  // the one for the registry as a whole is asked for, if no other
  }
  const auto renewals = std::make_shared<Renewals>(sources_.loop);
  struct Task {
    proxy::RegistryPtr registry;
    auth::Authorizer* authorizer;
  };
  std::vector<Task> work;
  for (const proxy::RegistryPtr& registry : registries) {
    for (const auto& [identities, upstream] : registry->upstreams()) {
      const auto authorizers = upstream->authorizers();
      for (std::size_t i = 0; i < identities.size(); ++i) {
        if (!has_credential(identities[i])) continue;
        renewals->all.push_back({registry->name(), identities[i]});
        work.push_back({registry, authorizers[i]});
      }
    }
  }
  if (work.empty() && !asked["registry"].empty())
    throw Failure(Errc::not_found,
                  registries.back()->name() + " is used anonymously: there is nothing to renew");
  renewals->left = work.size();
  for (std::size_t i = 0; i < work.size(); ++i) {
    if (!sources_.tasks.spawn("renewal on request",
                              renew_one(renewals, i, work[i].registry, work[i].authorizer)))
      throw Failure(Errc::cancelled, "the daemon is stopping");
  }
  while (renewals->left > 0) co_await renewals->changed.wait();

  json::array renewed;
  for (const Renewals::One& one : renewals->all) {
    renewed.push_back(
        json::object{{"registry", one.registry},
                     {"identity", one.identity},
                     {"ok", !one.error},
                     {"error", one.error ? json::value(*one.error) : json::value(nullptr)}});
  }
  co_return Reply::json(json::object{{"renewed", std::move(renewed)}});
}

asio::awaitable<Credentials::Reply> Credentials::sign_in(Asked asked, proxy::Peer caller) {
  if (!sources_.doors.sign_in) throw Failure(Errc::unsupported, "sign-ins are not served here");
  const std::string_view token = asked["token"];
  if (token.empty() || token.size() > most_token_bytes)
    throw Failure(Errc::bad_request, "the request's token is a token of at most 48 KiB");
  const proxy::RegistryPtr registry = this->registry(asked);
  const auto kept = co_await sources_.doors.sign_in(registry, auth::Secret(token));
  log::info("signed in", {{"registry", registry->name()},
                          {"kind", kept.kind},
                          {"user", describe(caller)},
                          {"expires_in_seconds", kept.expires_in.count()}});
  co_return Reply::json(json::object{{"registry", registry->name()},
                                     {"kind", kept.kind},
                                     {"expires_in_seconds", kept.expires_in.count()}});
}

asio::awaitable<Credentials::Reply> Credentials::sign_out(Asked asked, proxy::Peer caller) {
  if (!sources_.doors.sign_out) throw Failure(Errc::unsupported, "sign-ins are not served here");
  const proxy::RegistryPtr registry = this->registry(asked);
  const bool was_signed_in = co_await sources_.doors.sign_out(registry);
  if (was_signed_in)
    log::info("signed out", {{"registry", registry->name()}, {"user", describe(caller)}});
  co_return Reply::json(
      json::object{{"registry", registry->name()}, {"was_signed_in", was_signed_in}});
}

}  // namespace staithe::daemon
