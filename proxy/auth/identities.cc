#include "proxy/auth/identities.h"

#include <utility>

#include "cache/digest.h"
#include "cache/escape.h"
#include "proxy/auth/generic_token.h"
#include "proxy/auth/given_token.h"
#include "proxy/auth/identity_hosts.h"
#include "proxy/auth/password.h"
#include "proxy/auth/trust.h"

namespace staithe::proxy::auth {
namespace {

constexpr std::string_view federation_audience = "api://AzureADTokenExchange";
constexpr std::chrono::minutes service_account_kept{10};
constexpr std::size_t max_service_accounts = 256;
constexpr std::chrono::hours warned_ahead{24 * 30};

constexpr std::string_view role_remedy =
    "Give the identity the role AcrPull on this registry (Container Registry Repository Reader "
    "where it uses ABAC), wait up to 10 minutes, and check that the registry accepts tokens for "
    "azure.audience";

// All that tells one identity from another; no field holds a line feed.
std::string key_of(const IdentitySettings& identity) {
  std::string key = to_string(identity.kind);
  for (const std::string* field :
       {&identity.client_id, &identity.object_id, &identity.resource_id, &identity.tenant_id,
        &identity.federated_identity, &identity.client_secret_file.native(),
        &identity.certificate_file.native(), &identity.token_file.native()})
    key += '\n' + *field;
  return key + '\n' + std::to_string(static_cast<int>(identity.source));
}

void must_be_acr(const Place& place, const std::vector<std::string>& suffixes) {
  value_or_throw(check_acr_origin(place.upstream, suffixes));
}

Endings endings_of_secret(const IdentitySettings& identity, Environment environment) {
  if (!identity.secret_expires) return {};
  const auto& file =
      identity.client_secret_file.empty() ? identity.password_file : identity.client_secret_file;
  return [what = "secret in " + printable(file.native()),
          end = std::chrono::sys_seconds(*identity.secret_expires), environment] {
    return std::vector<Ending>{
        {.what = what,
         .expires_in = end - std::chrono::floor<std::chrono::seconds>(environment.clock.wall()),
         .warns_ahead = warned_ahead}};
  };
}

}  // namespace

Identities::Identities(AzureSettings azure, std::map<std::string, IdentitySettings> identities,
                       Environment environment)
    : azure_(std::move(azure)), identities_(std::move(identities)), environment_(environment) {
  Result<Url> endpoint = Url::parse(azure_.imds_endpoint);
  if (!endpoint) throw Failure(Errc::config, "azure.imds_endpoint: " + endpoint.error().detail);
  metadata_service_ = std::make_shared<MetadataService>(environment_, std::move(*endpoint));
}

Environment Identities::environment_of(const Place& place) const {
  Environment environment = environment_;
  environment.meter = place.meter;
  return environment;
}

void Identities::replace(std::map<std::string, IdentitySettings> identities) {
  identities_ = std::move(identities);
}

std::unique_ptr<Authorizer> Identities::make_authorizer(const Place& place,
                                                        const std::string& identity) {
  if (identity == signed_in) {
    const auto found = sign_ins_.find(place.name);
    if (found == sign_ins_.end())
      throw Failure(Errc::identity_missing, "the sign-in for " + place.name + " has ended");
    must_be_acr(place, azure_.acr_suffixes);
    return make_acr(place,
                    {.entra = found->second.keeper,
                     .tenant = {},
                     .remedy = "Sign in again: staithe login " + place.name + " --token-stdin",
                     .given = true,
                     .endings = endings_of_given("sign-in for " + place.name, found->second.keeper,
                                                 environment_)});
  }
  const auto found = identities_.find(identity);
  return make_authorizer(place, found == identities_.end() ? IdentitySettings() : found->second);
}

std::unique_ptr<Authorizer> Identities::make_authorizer(const Place& place,
                                                        const IdentitySettings& settings) {
  switch (settings.kind) {
    case IdentityKind::anonymous:
      return make_anonymous_authorizer(environment_of(place), place.upstream, place.ca_file,
                                       place.token_hosts);
    case IdentityKind::basic:
    case IdentityKind::helper:
    case IdentityKind::docker_config:
      return make_password_authorizer_for(place, settings);
    case IdentityKind::managed_identity:
    case IdentityKind::service_principal:
    case IdentityKind::workload_identity:
    case IdentityKind::token:
      break;
  }
  must_be_acr(place, azure_.acr_suffixes);
  return make_acr(place, acr_identity(place, settings));
}

std::unique_ptr<Authorizer> Identities::make_acr(const Place& place, AcrIdentity identity) {
  return make_acr_authorizer(environment_of(place), place.upstream, place.ca_file,
                             azure_.acr_suffixes, std::move(identity));
}

RealmRule Identities::password_rule(const Place& place) const {
  if (parse_acr_host(place.upstream.host, azure_.acr_suffixes))
    return [registry = place.upstream, suffixes = azure_.acr_suffixes](std::string_view realm) {
      return check_acr_realm(registry, realm, suffixes);
    };
  return [registry = place.upstream, hosts = place.token_hosts](std::string_view realm) {
    return check_password_realm(registry, realm, hosts);
  };
}

std::vector<std::string> Identities::token_hosts(const Place& place) const {
  std::vector<std::string> hosts = place.token_hosts;
  // A regional endpoint names the global one, of the same private network.
  if (const auto acr = parse_acr_host(place.upstream.host, azure_.acr_suffixes))
    hosts.push_back(acr->name + "." + acr->suffix);
  return hosts;
}

std::unique_ptr<Authorizer> Identities::make_password_authorizer_for(
    const Place& place, const IdentitySettings& identity) {
  value_or_throw(check_password_origin(place.upstream));
  const std::string name = "the password for " + place.name;
  const Environment environment = environment_of(place);
  std::vector<std::shared_ptr<PasswordKeeper>> candidates;
  const auto add = [&](std::unique_ptr<PasswordSource> source) {
    candidates.push_back(
        std::make_shared<PasswordKeeper>(name, Kind::password, std::move(source), environment));
  };
  bool renewable = true;
  if (identity.kind == IdentityKind::basic) {
    renewable = false;
    add(std::make_unique<PasswordFile>(environment_, identity.username, identity.password_file));
    if (!identity.password2_file.empty())
      add(std::make_unique<PasswordFile>(environment_, identity.username, identity.password2_file));
  } else if (identity.kind == IdentityKind::helper) {
    add(std::make_unique<PasswordHelper>(environment_, identity.helper, helper_server(place.name)));
  } else {
    add(std::make_unique<DockerConfig>(environment_, identity.file, place.name));
  }
  return make_password_authorizer(
      environment, place.upstream, place.ca_file, password_rule(place), token_hosts(place),
      std::make_shared<Passwords>(name, std::move(candidates), renewable, environment_),
      endings_of_secret(identity, environment_));
}

AcrIdentity Identities::acr_identity(const Place& place, const IdentitySettings& identity) {
  AcrIdentity acr{
      .entra = nullptr, .tenant = identity.tenant_id, .remedy = std::string(role_remedy)};
  if (identity.kind == IdentityKind::managed_identity) {
    acr.entra = managed_token(place, identity, azure_.audience);
    return acr;
  }
  if (identity.kind == IdentityKind::token)
    return given(place, "token in " + printable(identity.token_file.native()), "the token file",
                 std::make_unique<TokenFile>(environment_, identity.token_file));
  std::string key = key_of(identity);
  const IdentitySettings* managed = nullptr;
  if (!identity.federated_identity.empty()) {
    const auto found = identities_.find(identity.federated_identity);
    if (found == identities_.end() || found->second.kind != IdentityKind::managed_identity)
      throw Failure(Errc::config, "there is no managed identity " + identity.federated_identity);
    managed = &found->second;
    // After a reload that name may stand for another one.
    key += '\n' + key_of(*managed);
  }
  std::weak_ptr<ClientProof>& known = proofs_[key];
  std::shared_ptr<ClientProof> proof = known.lock();
  if (!proof) {
    if (managed) {
      proof =
          make_federated_proof(managed_token(place, *managed, std::string(federation_audience)));
    } else if (!identity.certificate_file.empty()) {
      proof = make_certificate_proof(environment_, identity.certificate_file);
    } else if (!identity.client_secret_file.empty()) {
      proof = make_secret_proof(environment_, identity.client_secret_file);
    } else {
      proof = make_assertion_file_proof(environment_, identity.token_file);
    }
    known = proof;
  }
  // The proxy of identity bindings is for the pods' own tokens.
  const bool by_proxy =
      identity.kind == IdentityKind::workload_identity && identity.federated_identity.empty();
  acr.entra = application_token(place, key, identity, proof, by_proxy);
  acr.endings = [proof, secret = endings_of_secret(identity, environment_)] {
    std::vector<Ending> endings;
    if (const auto ending = proof->ending()) endings.push_back(*ending);
    if (secret) {
      for (Ending& ending : secret()) endings.push_back(std::move(ending));
    }
    return endings;
  };
  return acr;
}

AcrIdentity Identities::given(const Place& place, std::string what, std::string name,
                              std::unique_ptr<TokenSource> source) {
  AcrIdentity acr;
  acr.entra = std::make_shared<TokenKeeper>(std::move(name), Kind::entra, std::move(source),
                                            environment_of(place));
  acr.remedy =
      "Fetch a new one (az acr login --name NAME --expose-token), or use an identity "
      "that renews itself";
  acr.given = true;
  acr.endings = endings_of_given(std::move(what), acr.entra, environment_);
  return acr;
}

std::shared_ptr<TokenKeeper> Identities::managed_token(const Place& place,
                                                       const IdentitySettings& identity,
                                                       const std::string& audience) {
  std::weak_ptr<TokenKeeper>& known = entra_tokens_[key_of(identity) + '\n' + audience];
  std::shared_ptr<TokenKeeper> keeper = known.lock();
  if (!keeper) {
    keeper = std::make_shared<TokenKeeper>(
        "Entra token of the managed identity", Kind::entra,
        make_managed_identity_source(environment_, azure_, metadata_service_, audience, identity),
        environment_of(place));
    known = keeper;
  }
  return keeper;
}

std::shared_ptr<TokenKeeper> Identities::application_token(const Place& place,
                                                           const std::string& key,
                                                           const IdentitySettings& identity,
                                                           std::shared_ptr<ClientProof> proof,
                                                           bool by_proxy) {
  std::weak_ptr<TokenKeeper>& known = entra_tokens_[key + '\n' + azure_.audience];
  std::shared_ptr<TokenKeeper> keeper = known.lock();
  if (!keeper) {
    keeper = std::make_shared<TokenKeeper>(
        "Entra token of the application " + identity.client_id, Kind::entra,
        std::make_unique<ClientCredentials>(
            environment_, value_or_throw(token_endpoint(azure_, identity.tenant_id, by_proxy)),
            identity.client_id, azure_.audience, std::move(proof)),
        environment_of(place));
    known = keeper;
  }
  return keeper;
}

asio::awaitable<Login> Identities::service_account_login(Place place, ServiceAccount account) {
  must_be_acr(place, azure_.acr_suffixes);
  // Only the very same token is given what it has been given before.
  cache::Hasher hasher(cache::Algorithm::sha256);
  const std::string_view text = account.token.reveal();
  hasher.update(std::span(text.data(), text.size()));
  const std::string key = place.name + '\n' + account.tenant_id + '\n' + account.client_id + '\n' +
                          hasher.digest().to_string();
  std::shared_ptr<Authorizer> authorizer;
  if (const auto found = service_accounts_->find(key); found != service_accounts_->end()) {
    authorizer = found->second;
  } else {
    // Tokens that were refused do not keep those out that are good.
    if (service_accounts_->size() >= max_service_accounts)
      std::erase_if(*service_accounts_,
                    [](const auto& entry) { return entry.second->tokens().empty(); });
    if (service_accounts_->size() >= max_service_accounts)
      throw Failure(Errc::throttled,
                    "too many service accounts ask for " + place.name + " at once: try again");
    IdentitySettings settings;
    settings.kind = IdentityKind::workload_identity;
    settings.client_id = account.client_id;
    settings.tenant_id = account.tenant_id;
    AcrIdentity acr{
        .entra = nullptr, .tenant = account.tenant_id, .remedy = std::string(role_remedy)};
    acr.entra = std::make_shared<TokenKeeper>(
        "Entra token of a service account", Kind::entra,
        std::make_unique<ClientCredentials>(
            environment_, value_or_throw(token_endpoint(azure_, account.tenant_id, true)),
            account.client_id, azure_.audience, make_given_proof(std::move(account.token))),
        environment_of(place));
    authorizer = make_acr(place, std::move(acr));
    service_accounts_->emplace(key, authorizer);
    environment_.tasks.spawn("forgetting a service account",
                             forget_later(service_accounts_, key, environment_));
  }
  co_return co_await authorizer->login();
}

asio::awaitable<void> Identities::forget_later(std::weak_ptr<ServiceAccounts> from, std::string key,
                                               Environment environment) {
  co_await environment.clock.sleep_for(service_account_kept);
  if (const std::shared_ptr<ServiceAccounts> accounts = from.lock()) accounts->erase(key);
}

Result<Identities::SignIn> Identities::sign_in(const Place& place, Secret token) {
  if (const auto usable = check_acr_origin(place.upstream, azure_.acr_suffixes); !usable)
    return fail(Errc::bad_request, usable.error().detail);
  const Result<Token> read =
      read_given_token(token.reveal(), environment_.clock.now(), environment_.clock.wall());
  if (!read) return fail(Errc::bad_request, "the token is not used: " + read.error().detail);
  const std::string_view text = read->secret.reveal();
  if (is_acr_refresh_token(text)) {
    if (const auto ours = check_refresh_audience(text, place.upstream, azure_.acr_suffixes); !ours)
      return fail(Errc::bad_request,
                  "the token is not used for " + place.name + ": it " + ours.error().detail);
  }
  SignIn made{.kind = is_acr_refresh_token(read->secret.reveal()) ? "refresh" : "entra",
              .expires_in = std::chrono::floor<std::chrono::seconds>(read->life.lasts)};
  sign_ins_[place.name] = {.keeper = std::make_shared<TokenKeeper>(
                               "the sign-in for " + place.name, Kind::entra,
                               std::make_unique<TokenInMemory>(
                                   environment_, std::move(token),
                                   "Sign in again: staithe login " + place.name + " --token-stdin"),
                               environment_of(place)),
                           .ends = read->life.end()};
  return made;
}

bool Identities::sign_out(const std::string& name) { return sign_ins_.erase(name) > 0; }

std::vector<std::string> Identities::drop_ended_sign_ins() {
  std::vector<std::string> ended;
  std::erase_if(sign_ins_, [&](const auto& entry) {
    const auto& [name, sign_in] = entry;
    const std::optional<Error>& error = sign_in.keeper->last_error();
    // By its time, used or not, or because the wall clock has said so to whoever used it.
    const bool over =
        environment_.clock.now() >= sign_in.ends ||
        (!sign_in.keeper->current() && error && error->code == Errc::identity_missing);
    if (over) ended.push_back(name);
    return over;
  });
  return ended;
}

}  // namespace staithe::proxy::auth
