#include "proxy/auth/client_credentials.h"

#include <algorithm>
#include <array>
#include <cstdio>

#include "cache/escape.h"
#include "proxy/auth/base64.h"
#include "proxy/auth/json.h"

namespace staithe::proxy::auth {
namespace {

using namespace std::chrono_literals;

constexpr std::string_view assertion_type =
    "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
// Beyond this our clock is wrong enough to make assertions invalid.
constexpr std::chrono::seconds clock_tolerance = 2min;
constexpr std::chrono::hours warned_ahead{24 * 30};

class SecretProof final : public ClientProof {
 public:
  SecretProof(Environment environment, std::filesystem::path file)
      : environment_(environment), file_(std::move(file)) {}

  asio::awaitable<Secret> make(std::string, std::string, WallTime) override {
    const Secret text = co_await environment_.files.read(file_, FileRules{});
    const std::string_view secret = without_line_end(text.reveal());
    if (secret.empty())
      throw Failure(Errc::identity_missing,
                    "the file " + printable(file_.native()) + " is empty: put the secret there");
    co_return Secret(secret);
  }
  bool is_assertion() const override { return false; }
  std::string remedy() const override {
    return "Make a new secret (az ad app credential reset --id APP) and put it into " +
           printable(file_.native());
  }

 private:
  Environment environment_;
  std::filesystem::path file_;
};

class CertificateProof final : public ClientProof {
 public:
  CertificateProof(Environment environment, std::filesystem::path file)
      : environment_(environment), file_(std::move(file)) {}

  asio::awaitable<Secret> make(std::string token_endpoint, std::string client_id,
                               WallTime wall) override {
    // Read and parsed for each call, once an hour or so, so that a new file needs no restart.
    const Secret pem = co_await environment_.files.read(file_, FileRules{});
    const Result<Certificate> certificate = Certificate::parse(pem.reveal());
    if (!certificate)
      throw Failure(certificate.error().code, "the certificate file " + printable(file_.native()) +
                                                  ": " + certificate.error().detail);
    not_after_ = certificate->not_after();
    const auto now = std::chrono::floor<std::chrono::seconds>(wall.time_since_epoch());
    co_return Secret::take(certificate->sign({.client_id = std::move(client_id),
                                              .audience = std::move(token_endpoint),
                                              .id = make_id(),
                                              .now = now}));
  }
  bool depends_on_clock() const override { return true; }
  std::optional<Ending> ending() const override {
    if (!not_after_) return std::nullopt;
    return Ending{.what = "certificate " + printable(file_.native()),
                  .expires_in = *not_after_ -
                                std::chrono::floor<std::chrono::seconds>(environment_.clock.wall()),
                  .warns_ahead = warned_ahead};
  }
  std::string remedy() const override {
    return "Make a new certificate (az ad sp create-for-rbac --create-cert, or az ad app "
           "credential reset --id APP --cert @FILE --append) and put it with its key into " +
           printable(file_.native());
  }

 private:
  // A UUID (RFC 9562, version 4).
  std::string make_id() const {
    std::array<std::uint64_t, 2> bits = {environment_.random.next(), environment_.random.next()};
    bits[0] = (bits[0] & ~0xf000ULL) | 0x4000ULL;
    bits[1] = (bits[1] & ~(0xc0ULL << 56)) | (0x80ULL << 56);
    std::array<char, 37> text{};
    std::snprintf(text.data(), text.size(), "%08x-%04x-%04x-%04x-%012llx",
                  static_cast<unsigned>(bits[0] >> 32),
                  static_cast<unsigned>(bits[0] >> 16 & 0xffff),
                  static_cast<unsigned>(bits[0] & 0xffff), static_cast<unsigned>(bits[1] >> 48),
                  static_cast<unsigned long long>(bits[1] & 0xffffffffffffULL));
    return text.data();
  }

  Environment environment_;
  std::filesystem::path file_;
  std::optional<std::chrono::sys_seconds> not_after_;
};

class AssertionFileProof final : public ClientProof {
 public:
  AssertionFileProof(Environment environment, std::filesystem::path file)
      : environment_(environment), file_(std::move(file)) {}

  asio::awaitable<Secret> make(std::string, std::string, WallTime) override {
    // kubelet projects it as a link that others in the pod may read, and replaces it in time.
    const Secret text = co_await environment_.files.read(file_, FileRules{.is_private = false});
    const std::string_view assertion = without_line_end(text.reveal());
    if (!is_token_text(assertion))
      throw Failure(Errc::identity_missing,
                    "the file " + printable(file_.native()) + " holds no token");
    co_return Secret(assertion);
  }
  std::string remedy() const override {
    return "Check that the application has a federated credential for the issuer, subject and "
           "audience of the token in " +
           printable(file_.native()) + ", and that whoever writes this file renews it";
  }

 private:
  Environment environment_;
  std::filesystem::path file_;
};

class FederatedProof final : public ClientProof {
 public:
  explicit FederatedProof(std::shared_ptr<TokenKeeper> assertion)
      : assertion_(std::move(assertion)) {}

  asio::awaitable<Secret> make(std::string, std::string, WallTime) override {
    const std::shared_ptr<TokenKeeper> assertion = assertion_;
    const std::shared_ptr<const Token> token = co_await assertion->get();
    co_return Secret(token->secret.reveal());
  }
  std::string remedy() const override {
    return "Add the managed identity to the application as a federated credential (az ad app "
           "federated-credential create: its object id as subject, audience "
           "api://AzureADTokenExchange)";
  }

 private:
  std::shared_ptr<TokenKeeper> assertion_;
};

class GivenProof final : public ClientProof {
 public:
  explicit GivenProof(Secret assertion) : assertion_(std::move(assertion)) {}

  asio::awaitable<Secret> make(std::string, std::string, WallTime) override {
    co_return Secret(assertion_.reveal());
  }
  std::string remedy() const override {
    return "Check that the application has a federated credential for the service account's "
           "issuer, subject and audience";
  }

 private:
  Secret assertion_;
};

// A GUID or a domain: one segment of a path, whoever names it (a pod's annotation may).
bool is_tenant(std::string_view text) {
  constexpr std::size_t longest = 253;
  const auto is_alnum = [](char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
  };
  return !text.empty() && text.size() <= longest && is_alnum(text.front()) &&
         std::ranges::all_of(text, [&](char c) { return is_alnum(c) || c == '-' || c == '.'; });
}

// What the server says to whoever has to mend it, by OAuth's error codes (RFC 6749 section 5.2):
// the AADSTS numbers may change.
std::string remedy_for(std::string_view error, const ClientProof& proof) {
  if (error == "invalid_client" || error == "invalid_grant") return proof.remedy();
  if (error == "unauthorized_client")
    return "Check client_id, and that the application exists in the tenant (tenant_id)";
  if (error == "invalid_request")
    return "Check tenant_id, client_id and azure.cloud of the configuration";
  if (error == "invalid_resource" || error == "invalid_scope")
    return "Check azure.audience: this cloud may know the registry by another name";
  return {};
}

}  // namespace

std::unique_ptr<ClientProof> make_secret_proof(Environment environment,
                                               std::filesystem::path file) {
  return std::make_unique<SecretProof>(environment, std::move(file));
}

std::unique_ptr<ClientProof> make_certificate_proof(Environment environment,
                                                    std::filesystem::path file) {
  return std::make_unique<CertificateProof>(environment, std::move(file));
}

std::unique_ptr<ClientProof> make_assertion_file_proof(Environment environment,
                                                       std::filesystem::path file) {
  return std::make_unique<AssertionFileProof>(environment, std::move(file));
}

std::unique_ptr<ClientProof> make_federated_proof(std::shared_ptr<TokenKeeper> assertion) {
  return std::make_unique<FederatedProof>(std::move(assertion));
}

std::unique_ptr<ClientProof> make_given_proof(Secret assertion) {
  return std::make_unique<GivenProof>(std::move(assertion));
}

Result<TokenEndpoint> token_endpoint(const AzureSettings& azure, const std::string& tenant,
                                     bool by_proxy) {
  const auto variable = [&](const char* name) {
    const auto found = azure.variables.find(name);
    return found == azure.variables.end() ? std::string() : found->second;
  };
  if (!is_tenant(tenant))
    return fail(Errc::config, "the tenant " + printable(tenant, 60) +
                                  " is neither an id nor a domain name: correct tenant_id");
  TokenEndpoint endpoint;
  const std::string path = "/" + tenant + "/oauth2/v2.0/token";
  endpoint.shown = azure.authority + path;
  const std::string proxy = by_proxy ? variable("AZURE_KUBERNETES_TOKEN_PROXY") : std::string();
  if (proxy.empty()) {
    Result<Url> url = Url::parse(endpoint.shown);
    if (!url) return fail(Errc::config, "azure.authority: " + url.error().detail);
    endpoint.url = std::move(*url);
    return endpoint;
  }
  const Result<Url> parsed = Url::parse(proxy);
  if (!parsed || parsed->origin().scheme != "https")
    return fail(Errc::config, "AZURE_KUBERNETES_TOKEN_PROXY is not an https URL");
  const Origin& there = parsed->origin();
  std::string base = parsed->target();
  while (base.ends_with('/')) base.pop_back();
  endpoint.url = parsed->with_target(base + path);
  if (const std::string name = variable("AZURE_KUBERNETES_SNI_NAME"); !name.empty()) {
    // TLS is asked for, and checked against, this name; HTTP and TCP go to the proxy's.
    Result<Url> named =
        Url::parse("https://" + name + ":" + std::to_string(there.port) + base + path);
    if (!named || !iequals(named->origin().host, name))
      return fail(Errc::config, "AZURE_KUBERNETES_SNI_NAME is not a host name");
    endpoint.url = std::move(*named);
    endpoint.host_field = there.authority();
    endpoint.connect_to = there.host + ":" + std::to_string(there.port);
  }
  endpoint.ca_file = variable("AZURE_KUBERNETES_CA_FILE");
  endpoint.ca_pem = variable("AZURE_KUBERNETES_CA_DATA");
  return endpoint;
}

ClientCredentials::ClientCredentials(Environment environment, TokenEndpoint endpoint,
                                     std::string client_id, std::string audience,
                                     std::shared_ptr<ClientProof> proof)
    : environment_(environment),
      endpoint_(std::move(endpoint)),
      client_id_(std::move(client_id)),
      audience_(std::move(audience)),
      proof_(std::move(proof)),
      server_(environment, endpoint_.ca_file),
      step_("getting an Entra token for the application " + printable(client_id_) + " from " +
            endpoint_.url.printable()) {}

asio::awaitable<Token> ClientCredentials::fetch() {
  Secret proof;
  Answer answer = co_await ask(0s, proof);
  // An assertion that is too young or too old by our own fault: once more by the server's clock,
  // which TLS has proved to be the server's.
  if (answer.status != 200 && answer.date() && proof_->depends_on_clock()) {
    const auto ours = std::chrono::floor<std::chrono::seconds>(answer.wall_sent.time_since_epoch());
    const std::chrono::seconds offset = std::chrono::seconds(*answer.date()) - ours;
    if (std::chrono::abs(offset) > clock_tolerance &&
        (answer.status == 400 || answer.status == 401))
      answer = co_await ask(offset, proof);
  }
  if (answer.status != 200) refuse(answer, proof);
  co_return read(answer);
}

asio::awaitable<Answer> ClientCredentials::ask(std::chrono::seconds clock_offset, Secret& proof) {
  try {
    proof = co_await proof_->make(endpoint_.shown, client_id_,
                                  environment_.clock.wall() + clock_offset);
  } catch (const Postponed& postponed) {
    throw Postponed(postponed.code(), step_ + ": " + postponed.error().detail,
                    postponed.retry_after());
  } catch (const Failure& failure) {
    throw Failure(failure.code(), step_ + ": " + failure.error().detail);
  }
  Form form;
  form.add("client_id", client_id_);
  form.add("scope", audience_ + "/.default");
  form.add("grant_type", "client_credentials");
  if (proof_->is_assertion()) form.add("client_assertion_type", assertion_type);
  form.add(proof_->is_assertion() ? "client_assertion" : "client_secret", proof.reveal());
  HttpRequest request;
  request.url = endpoint_.url;
  if (!endpoint_.host_field.empty()) request.headers.add("Host", endpoint_.host_field);
  request.ca_pem = endpoint_.ca_pem;
  request.connect_to = endpoint_.connect_to;
  request.host_named_by = HostNamedBy::configuration;  // azure.authority, or the cluster's proxy
  co_return co_await server_.post(std::move(request), std::move(form), step_);
}

void ClientCredentials::refuse(const Answer& answer, const Secret& proof) const {
  std::string error;
  if (const Result<json::value> parsed = parse_json_object(answer.body.reveal()))
    error = std::string(text_field(parsed->get_object(), "error").value_or(""));
  if (error == "temporarily_unavailable")
    throw Failure(Errc::upstream_failed, step_ + ": " + describe(answer, {proof.reveal()}));
  std::string remedy = remedy_for(error, *proof_);
  if (answer.date()) {
    const auto ours = std::chrono::floor<std::chrono::seconds>(answer.wall_sent.time_since_epoch());
    const auto offset = std::chrono::abs(std::chrono::seconds(*answer.date()) - ours);
    if (offset > clock_tolerance)
      remedy += (remedy.empty() ? "" : ". ") +
                std::string(
                    "This machine's clock and the server's "
                    "are ") +
                std::to_string(std::chrono::floor<std::chrono::minutes>(offset).count()) +
                " minutes apart: set it (timedatectl)";
  }
  throw_refused(answer, step_, remedy, {proof.reveal()});
}

Token ClientCredentials::read(const Answer& answer) const {
  const Result<json::value> parsed = parse_json_object(answer.body.reveal());
  if (!parsed) throw Failure(parsed.error().code, step_ + ": " + parsed.error().detail);
  const json::object& object = parsed->get_object();
  const auto text = text_field(object, "access_token");
  const auto type = text_field(object, "token_type");
  const auto expires_in = number_field(object, "expires_in");
  const auto refresh_in = number_field(object, "refresh_in");
  if (!text || !type || !expires_in || !refresh_in)
    throw Failure(Errc::upstream_nonsense, step_ + ": a field of the answer has the wrong type");
  if (!is_token_text(*text) || (!type->empty() && !iequals(*type, "bearer")))
    throw Failure(Errc::upstream_nonsense, step_ + ": the answer holds no Bearer token");
  Result<Life> life = life_of(answer, *text, *expires_in);
  if (!life) throw Failure(life.error().code, step_ + ": " + life.error().detail);
  if (*refresh_in && **refresh_in > 0)
    life->refresh_in =
        std::min(std::chrono::seconds(**refresh_in), std::chrono::seconds(longest_life));
  return Token{.secret = Secret(*text), .life = *life, .scope = audience_};
}

}  // namespace staithe::proxy::auth
