#include "proxy/caller_proofs.h"

#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/rand.h>

#include <algorithm>
#include <array>
#include <utility>

#include "cache/escape.h"
#include "cache/log.h"
#include "proxy/auth/generic_token.h"
#include "proxy/auth/keeper.h"
#include "proxy/auth/password.h"
#include "proxy/auth/token_server.h"
#include "proxy/auth/trust.h"
#include "proxy/manifests.h"
#include "proxy/polite_client.h"

namespace staithe::proxy {

namespace {

using auth::CallerCredential;
using namespace std::chrono_literals;

constexpr std::size_t key_bytes = 32;
// Failed proofs of one account by one user of this machine: registries lock accounts after some ten
// in as many minutes.
constexpr int most_account_failures = 5;
constexpr std::chrono::nanoseconds account_pause = 2min;
// Of one user of this machine, whoever he says he is. Behind an engine that runs as root this is
// all of its pods, each with an account of its own.
constexpr int most_user_failures = 60;
constexpr std::chrono::nanoseconds user_pause = 5s;

bool is_redirect(int status) {
  return status == 301 || status == 302 || status == 303 || status == 307 || status == 308;
}

// What says something about the caller, and not about the way to the registry.
bool is_about_the_caller(Errc code) { return code == Errc::unauthorized || code == Errc::denied; }

Errc absent_code(std::string_view what) {
  if (what.starts_with("blobs/")) return Errc::blob_unknown;
  return what.starts_with("manifests/") ? Errc::manifest_unknown : Errc::name_unknown;
}

std::string describe(const CallerProofs::Question& question) {
  return question.registry->name() + "/" + printable(question.repository);
}

std::string user_of(Peer peer) { return peer ? std::to_string(*peer) : std::string("unknown"); }

}  // namespace

// ---- Allowance ---------------------------------------------------------------------------------

bool Allowance::take(Instant now) {
  const Instant after = std::max(used_, now) + pause_;
  if (after - now > pause_ * most_) return false;
  used_ = after;
  return true;
}

// ---- Memory ------------------------------------------------------------------------------------

const CallerProofs::Kept* CallerProofs::Memory::find(const std::string& key,
                                                     const RegistryPtr& registry, Instant now) {
  const auto found = by_key_.find(key);
  if (found == by_key_.end()) return nullptr;
  const Kept& kept = *found->second;
  // What was said of a registry as it was configured before a reload says nothing of this one.
  if (now < kept.until && kept.registry.lock() == registry) return &kept;
  erase(key);
  return nullptr;
}

void CallerProofs::Memory::put(Kept kept) {
  erase(kept.key);
  while (order_.size() >= most_) {
    by_key_.erase(order_.front().key);
    order_.pop_front();
  }
  const auto place = order_.insert(order_.end(), std::move(kept));
  by_key_.emplace(place->key, place);
}

void CallerProofs::Memory::erase(const std::string& key) {
  const auto found = by_key_.find(key);
  if (found == by_key_.end()) return;
  const auto place = found->second;
  by_key_.erase(found);
  order_.erase(place);
}

// ---- CallerProofs ------------------------------------------------------------------------------

// One registry and what is known of how it is asked. Shared with the proofs under way, which may
// outlive a reload.
struct CallerProofs::Asker {
  Asker(asio::any_io_executor loop, const auth::Environment& environment, const RegistryPtr& of,
        CallerDoor where)
      : registry(of),
        door(std::move(where)),
        rule([origin = door.origin, password = door.password_rule](std::string_view realm) {
          Result<Url> open = auth::check_anonymous_realm(origin, realm);
          return open || !password ? std::move(open) : password(realm);
        }),
        demand(std::make_shared<auth::Keeper<auth::Demand>>(
            "challenge of " + door.origin.authority() + " for callers", auth::Kind::demand,
            std::make_unique<auth::DemandSource>(environment, door.origin, door.ca_file, rule),
            environment)),
        tokens(std::make_shared<auth::TokenServer>(environment, door.ca_file)),
        client(loop, environment.http, environment.clock, environment.random, budget,
               std::make_shared<UpstreamStats>(), std::nullopt) {}

  std::weak_ptr<Registry> registry;
  CallerDoor door;
  auth::RealmRule rule;
  std::shared_ptr<auth::Keeper<auth::Demand>> demand;
  std::shared_ptr<auth::TokenServer> tokens;
  RetryBudget budget;
  PoliteClient client;
};

CallerProofs::CallerProofs(asio::any_io_executor loop, auth::Environment environment,
                           MakeDoor make_door)
    : loop_(loop),
      environment_(std::move(environment)),
      make_door_(std::move(make_door)),
      flights_(loop, environment_.tasks) {
  std::string key(key_bytes, '\0');
  if (::RAND_bytes(reinterpret_cast<unsigned char*>(key.data()), static_cast<int>(key.size())) != 1)
    throw Failure(Errc::storage_failed, "the system gives no random numbers");
  key_ = auth::Secret::take(std::move(key));
}

CallerProofs::~CallerProofs() = default;

std::string CallerProofs::hash(std::string_view open, std::string_view secret) const {
  const auth::Secret text(open, secret);
  const std::string_view bytes = text.reveal();
  const std::string_view key = key_.reveal();
  std::array<unsigned char, EVP_MAX_MD_SIZE> made{};
  unsigned size = 0;
  if (!::HMAC(::EVP_sha256(), key.data(), static_cast<int>(key.size()),
              reinterpret_cast<const unsigned char*>(bytes.data()), bytes.size(), made.data(),
              &size))
    throw Failure(Errc::storage_failed, "a hash could not be made");
  return {reinterpret_cast<const char*>(made.data()), size};
}

// No part holds a NUL but the secret, which comes last.
std::string CallerProofs::key_of(const Question& question,
                                 const CallerCredential& credential) const {
  std::string open = question.registry->name() + '\0' + question.repository + '\0';
  open += std::to_string(static_cast<int>(credential.kind)) + '\0';
  open += credential.username + '\0';
  return hash(open, credential.secret ? credential.secret->reveal() : std::string_view());
}

CallerProofs::AskerPtr CallerProofs::asker_of(const RegistryPtr& registry) {
  AskerPtr& asker = askers_[registry.get()];
  if (!asker || asker->registry.lock() != registry) {
    asker = std::make_shared<Asker>(loop_, environment_, registry, make_door_(*registry));
    const AskerPtr made = asker;
    std::erase_if(askers_, [](const auto& entry) {
      return !entry.second || entry.second->registry.expired();
    });
    return made;
  }
  return asker;
}

Allowance& CallerProofs::allowance(const std::string& key, int most,
                                   std::chrono::nanoseconds pause) {
  if (allowances_.size() >= most_allowances && !allowances_.contains(key)) {
    const Instant now = environment_.clock.now();
    std::erase_if(allowances_, [&](const auto& entry) { return entry.second.is_whole(now); });
    if (allowances_.size() >= most_allowances)
      throw Failure(Errc::throttled,
                    "too many callers' credentials were refused lately; come again in a minute");
  }
  return allowances_.try_emplace(key, most, pause).first->second;
}

asio::awaitable<CallerProofs::Verdict> CallerProofs::judge(Question question) {
  const Instant now = environment_.clock.now();
  const std::string open_key = key_of(question, {});
  if (proofs_.find(open_key, question.registry, now)) co_return Verdict{.proven = true};
  const bool anonymous = question.credential.kind == CallerCredential::Kind::anonymous;
  const std::string key = anonymous ? open_key : key_of(question, question.credential);
  if (!anonymous && proofs_.find(key, question.registry, now)) co_return Verdict{.proven = true};
  if (const Kept* refusal = refusals_.find(key, question.registry, now))
    co_return Verdict{.why = refusal->why};
  // After a reload the same question is another one.
  const std::string flight =
      key + std::to_string(reinterpret_cast<std::uintptr_t>(question.registry.get()));
  for (;;) {
    const Answer answer = co_await flights_.run(flight, prove(question, key));
    if (answer.proven) co_return Verdict{.proven = true};
    // That another caller asked for what is not there is no word about this one's question.
    if (!answer.absent || answer.what == question.what) co_return Verdict{.why = answer.why};
  }
}

asio::awaitable<CallerProofs::Answer> CallerProofs::prove(Question question, std::string key) {
  const Instant asked = environment_.clock.now();
  const bool anonymous = question.credential.kind == CallerCredential::Kind::anonymous;
  const std::string by = question.registry->name() + '\0' + user_of(question.peer);
  const std::string account = hash("account" + by + '\0', question.credential.username);
  const bool named = question.credential.kind == CallerCredential::Kind::basic;
  const auto user_allowance = [&]() -> Allowance& {
    return allowance("user" + by, most_user_failures, user_pause);
  };
  const auto account_allowance = [&]() -> Allowance& {
    return allowance(account, most_account_failures, account_pause);
  };
  if (!anonymous) {
    const bool user_may = user_allowance().take(asked);
    const bool account_may = user_may && (!named || account_allowance().take(asked));
    if (user_may && !account_may) user_allowance().give_back();
    if (!account_may) {
      ++figures_.bounded;
      throw Failure(Errc::denied,
                    "credentials for " + describe(question) +
                        " were refused too often lately, and this one is not tried before some "
                        "minutes have passed, so that no account is locked; correct it meanwhile");
    }
  }
  const auto give_back = [&] {
    if (anonymous) return;
    user_allowance().give_back();
    if (named) account_allowance().give_back();
  };
  Answer answer;
  std::optional<Error> failed;
  try {
    answer = co_await ask(asker_of(question.registry), question);
  } catch (const Failure& failure) {
    failed = failure.error();
  }
  if (failed) {
    ++figures_.failed;
    give_back();
    throw Failure(failed->code, "whether you may read " + describe(question) +
                                    " (verify_callers) cannot be asked now: " + failed->detail);
  }
  if (answer.proven) {
    ++figures_.proven;
    give_back();
    refusals_.erase(key);
    proofs_.put(
        {.key = key, .registry = question.registry, .until = asked + proof_bound, .why = {}});
  } else if (answer.absent) {
    give_back();
  } else {
    ++figures_.refused;
    refusals_.put({.key = key,
                   .registry = question.registry,
                   .until = environment_.clock.now() + refusal_bound,
                   .why = answer.why});
    if (!anonymous) note_refusal(question, answer.why);
  }
  co_return answer;
}

asio::awaitable<CallerProofs::Answer> CallerProofs::ask(AskerPtr asker, Question question) const {
  const CallerDoor& door = asker->door;
  const CallerCredential& credential = question.credential;
  const std::string repository = door.prefix + question.repository;
  const bool bearer = credential.kind == CallerCredential::Kind::bearer;
  std::shared_ptr<const auth::Demand> demand;
  if (!bearer) demand = co_await asker->demand->get();
  const bool is_list = question.what.starts_with("tags/");
  HttpRequest request{.method = is_list ? "GET" : "HEAD",
                      .url = value_or_throw(Url::parse(door.origin.to_string()))
                                 .with_target("/v2/" + repository + "/" + question.what),
                      .headers = {},
                      .body = {},
                      .ca_file = door.ca_file,
                      .host_named_by = HostNamedBy::configuration,
                      .limits = environment_.limits};
  if (question.what.starts_with("manifests/"))
    request.headers.add("Accept", std::string(accepted_types));
  for (bool learnt = false;; learnt = true) {
    auth::Authorization sent;
    std::optional<Error> refused;
    try {
      sent = co_await authorization(asker, demand, credential, repository);
    } catch (const Failure& failure) {
      // The registry may have another token server by now.
      if (demand && failure.code() == Errc::upstream_nonsense) asker->demand->discard(demand.get());
      if (!is_about_the_caller(failure.code())) throw;
      refused = failure.error();
    }
    if (refused) co_return Answer{.why = std::move(*refused)};
    HttpRequest once = request;
    if (sent) once.headers.add("Authorization", std::string(sent->reveal()));
    // Never hedged: a wrong password would count twice.
    const auto response =
        co_await asker->client.send(std::move(once), {.kind = upstream_kind_of(question.what)});
    const int status = response->status();
    if (status == 200 || status == 206 ||
        (is_redirect(status) && question.what.starts_with("blobs/")))
      co_return Answer{.proven = true};
    if (status == 404)
      co_return Answer{.absent = true,
                       .what = question.what,
                       .why = {absent_code(question.what),
                               door.origin.authority() + " has no " + printable(question.what) +
                                   " in " + describe(question) + ", or not for you"}};
    if (status == 401 && !sent && !bearer && !learnt) {
      asker->demand->discard(demand.get());
      if (Result<auth::Demand> now = auth::read_demand(response->headers(), asker->rule)) {
        demand = std::make_shared<const auth::Demand>(std::move(*now));
        continue;
      }
    }
    if (status == 401 || status == 403) {
      const bool unknown =
          status == 401 && sent && (bearer || demand->kind == auth::Demand::Kind::basic);
      co_return Answer{.why = {unknown ? Errc::unauthorized : Errc::denied,
                               door.origin.authority() + " answers " + std::to_string(status) +
                                   " to your credential for " + describe(question)}};
    }
    throw Failure(status >= 500 ? Errc::upstream_failed : Errc::upstream_nonsense,
                  door.origin.authority() + " answered " + std::to_string(status) +
                      " when it was asked for " + describe(question));
  }
}

// What goes into Authorization, made for this one question.
asio::awaitable<auth::Authorization> CallerProofs::authorization(
    AskerPtr asker, std::shared_ptr<const auth::Demand> demand, CallerCredential credential,
    std::string repository) {
  const CallerDoor& door = asker->door;
  const bool anonymous = credential.kind == CallerCredential::Kind::anonymous;
  if (credential.kind == CallerCredential::Kind::bearer) {
    value_or_throw(auth::check_password_origin(door.origin));
    co_return std::make_shared<const auth::Secret>("Bearer ", credential.secret->reveal());
  }
  if (demand->kind == auth::Demand::Kind::nothing) co_return nullptr;
  std::shared_ptr<const auth::Password> password;
  if (!anonymous) {
    value_or_throw(auth::check_password_origin(door.origin));
    password = std::make_shared<const auth::Password>(
        auth::Password{.username = credential.username,
                       .secret = auth::Secret(credential.secret->reveal()),
                       .identity_token = false,
                       .life = {}});
  }
  if (demand->kind == auth::Demand::Kind::basic) {
    if (!password)
      throw Failure(Errc::unauthorized,
                    door.origin.authority() + " asks for a user name and password");
    co_return std::make_shared<const auth::Secret>(auth::basic_authorization(*password));
  }
  if (password && door.password_rule) value_or_throw(door.password_rule(demand->realm.wire()));
  auth::Token token = co_await auth::fetch_pull_token(
      door.origin, door.token_hosts, demand, asker->tokens, password, std::move(repository),
      anonymous ? "It is not for everyone" : "Log in with an account that may pull it");
  co_return std::make_shared<const auth::Secret>(std::move(token.secret));
}

void CallerProofs::note_refusal(const Question& question, const Error& why) {
  const auto left_out = refusal_lines_.admit(question.registry->name(), environment_.clock.now());
  log::write(left_out ? log::Level::info : log::Level::debug, "a caller's credential was refused",
             {{"registry", question.registry->name()},
              {"repository", question.repository},
              {"user", user_of(question.peer)},
              {"error", why},
              {"left_out", log::if_any(left_out.value_or(0))}});
}

CallerProofs::Figures CallerProofs::figures() const {
  Figures figures = figures_;
  figures.held = proofs_.size();
  return figures;
}

}  // namespace staithe::proxy
