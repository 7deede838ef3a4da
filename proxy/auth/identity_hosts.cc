#include "proxy/auth/identity_hosts.h"

#include <algorithm>
#include <system_error>

#include "cache/escape.h"
#include "proxy/auth/challenge.h"
#include "proxy/auth/token_server.h"
#include "proxy/auth/trust.h"

namespace staithe::proxy::auth {
namespace {

constexpr std::size_t max_arc_key_bytes = 4096;  // as Microsoft's own libraries have it
constexpr std::string_view arc_endpoint = "http://127.0.0.1:40342";
constexpr std::string_view arc_path = "/metadata/identity/oauth2/token";
constexpr std::string_view arc_version = "2020-06-01";
constexpr SelectorNames arc_names = {
    .client_id = "client_id", .object_id = "object_id", .resource_id = "msi_res_id"};

std::string variable(const AzureSettings& azure, const std::string& name) {
  const auto found = azure.variables.find(name);
  return found == azure.variables.end() ? std::string() : found->second;
}

Url url_in(const AzureSettings& azure, const std::string& name) {
  const Result<Url> url = Url::parse(variable(azure, name));
  if (!url)
    throw Failure(Errc::config, "the environment variable " + name +
                                    ", which tells where this machine's identity is, is not a "
                                    "URL: " +
                                    url.error().detail);
  return *url;
}

// The endpoint's target with `query` after whatever query it has.
Url with_query(const Url& endpoint, const std::string& query) {
  std::string target = endpoint.target();
  target += target.contains('?') ? '&' : '?';
  return endpoint.with_target(target + query);
}

[[noreturn]] void refuse(const Answer& answer, const std::string& step,
                         const IdentitySettings& identity,
                         const std::vector<std::string_view>& sent) {
  if (answer.status == 400)
    throw Failure(Errc::identity_missing,
                  step + ": " + describe(answer, sent) + ". " + remedy_for(identity));
  throw_refused(answer, step, answer.status == 401 ? remedy_for(identity) : std::string(), sent);
}

// One request with a secret header that the host has put into the environment.
class HostedSource final : public TokenSource {
 public:
  struct Form {
    std::string host;  // "App Service", for messages
    HttpRequest request;
    std::string secret_header;  // empty: none
    Secret secret;
  };
  HostedSource(Environment environment, Form form, std::string audience, IdentitySettings identity)
      : server_(environment, {}),
        form_(std::move(form)),
        audience_(std::move(audience)),
        identity_(std::move(identity)),
        step_("getting an Entra token for " + printable(in_words(identity_)) + " from " +
              form_.host + " at " + form_.request.url.printable()) {}

  asio::awaitable<Token> fetch() override {
    HttpRequest request = form_.request;
    request.host_named_by = HostNamedBy::identity_host;
    if (!form_.secret_header.empty())
      request.headers.add(form_.secret_header, std::string(form_.secret.reveal()));
    const bool posted = request.method == "POST";
    auth::Form fields;
    if (posted) fields.add("resource", audience_);
    const Answer answer = posted
                              ? co_await server_.post(std::move(request), std::move(fields), step_)
                              : co_await server_.get(std::move(request), step_);
    if (answer.status != 200) refuse(answer, step_, identity_, {form_.secret.reveal()});
    Result<Token> token = read_managed_token(answer, audience_, identity_, false);
    if (!token) throw Failure(token.error().code, step_ + ": " + token.error().detail);
    co_return std::move(*token);
  }

 private:
  TokenServer server_;
  Form form_;
  std::string audience_;
  IdentitySettings identity_;
  std::string step_;
};

// A challenge that names a file which only root and the group himds can read, and the answer with
// its contents: the proof that we are of this machine.
class ArcSource final : public TokenSource {
 public:
  ArcSource(Environment environment, Url endpoint, std::filesystem::path directory,
            std::string audience, IdentitySettings identity)
      : environment_(environment),
        server_(environment, {}),
        endpoint_(std::move(endpoint)),
        directory_(std::move(directory)),
        audience_(std::move(audience)),
        identity_(std::move(identity)),
        step_("getting an Entra token for " + printable(in_words(identity_)) +
              " from the Azure Arc agent at " + endpoint_.printable()) {}

  asio::awaitable<Token> fetch() override {
    HttpRequest request;
    request.url = endpoint_;
    request.host_named_by = HostNamedBy::identity_host;
    request.headers.add("Metadata", "true");
    const Answer challenge = co_await server_.get(request, step_);
    if (challenge.status != 401) {
      // A token without the proof would be from somebody who is not the agent.
      if (challenge.status == 200)
        throw Failure(Errc::upstream_nonsense,
                      step_ + ": it answered without a challenge. Another program answers there");
      refuse(challenge, step_, identity_, {});
    }
    const Result<std::filesystem::path> file = arc_key_file(challenge.headers, directory_);
    if (!file) throw Failure(file.error().code, step_ + ": " + file.error().detail);
    Secret key;
    try {
      key = co_await environment_.files.read(
          *file,
          FileRules{.max_bytes = max_arc_key_bytes, .is_private = false, .may_be_link = false});
    } catch (const Failure& failure) {
      throw Failure(failure.code(),
                    step_ + ": " + failure.error().detail +
                        ". staithed must be root or in the group himds (usermod -aG himds)");
    }
    if (!is_token_text(key.reveal()))
      throw Failure(Errc::upstream_nonsense, step_ + ": the key file holds no key");
    const Secret authorization("Basic ", key.reveal());
    request.headers.add("Authorization", std::string(authorization.reveal()));
    const Answer answer = co_await server_.get(std::move(request), step_);
    if (answer.status != 200) refuse(answer, step_, identity_, {key.reveal()});
    Result<Token> token = read_managed_token(answer, audience_, identity_, true);
    if (!token) throw Failure(token.error().code, step_ + ": " + token.error().detail);
    co_return std::move(*token);
  }

 private:
  Environment environment_;
  TokenServer server_;
  Url endpoint_;
  std::filesystem::path directory_;
  std::string audience_;
  IdentitySettings identity_;
  std::string step_;
};

void refuse_selector(const IdentitySettings& identity, const std::string& host) {
  if (!selector_of(identity, arc_names).empty())
    throw Failure(Errc::config, host +
                                    " has one identity: remove client_id, object_id and "
                                    "resource_id from [identity]");
}

}  // namespace

IdentityHost detect_identity_host(const AzureSettings& azure, ManagedIdentitySource source,
                                  bool arc_agent_installed) {
  const auto has = [&](const char* name) { return !variable(azure, name).empty(); };
  switch (source) {
    case ManagedIdentitySource::imds:
      return IdentityHost::imds;
    case ManagedIdentitySource::arc:
      return IdentityHost::arc;
    case ManagedIdentitySource::app_service:
      return has("IDENTITY_ENDPOINT") || !has("MSI_ENDPOINT") ? IdentityHost::app_service
                                                              : IdentityHost::azure_ml;
    case ManagedIdentitySource::automatic:
      break;
  }
  if (has("IDENTITY_ENDPOINT") && has("IDENTITY_HEADER"))
    return has("IDENTITY_SERVER_THUMBPRINT") ? IdentityHost::service_fabric
                                             : IdentityHost::app_service;
  if (has("MSI_ENDPOINT"))
    return has("MSI_SECRET") ? IdentityHost::azure_ml : IdentityHost::cloud_shell;
  if ((has("IDENTITY_ENDPOINT") && has("IMDS_ENDPOINT")) || arc_agent_installed)
    return IdentityHost::arc;
  return IdentityHost::imds;
}

std::unique_ptr<TokenSource> make_managed_identity_source(Environment environment,
                                                          const AzureSettings& azure,
                                                          std::shared_ptr<MetadataService> imds,
                                                          const std::string& audience,
                                                          const IdentitySettings& identity) {
  std::error_code ignored;
  const bool arc_agent = std::filesystem::exists(azure.arc_agent, ignored);
  const std::string resource = "&resource=" + percent_encode(audience);
  HostedSource::Form form;
  switch (detect_identity_host(azure, identity.source, arc_agent)) {
    case IdentityHost::service_fabric:
      refuse_selector(identity, "Service Fabric");
      form.host = "Service Fabric";
      form.request.url = with_query(url_in(azure, "IDENTITY_ENDPOINT"),
                                    "api-version=2019-07-01-preview" + resource);
      form.request.certificate_thumbprint = variable(azure, "IDENTITY_SERVER_THUMBPRINT");
      form.secret_header = "Secret";
      form.secret = Secret(variable(azure, "IDENTITY_HEADER"));
      if (form.request.url.origin().scheme != "https")
        throw Failure(Errc::config, "IDENTITY_ENDPOINT of Service Fabric is not an https URL");
      break;
    case IdentityHost::app_service:
      form.host = "App Service";
      form.request.url = with_query(url_in(azure, "IDENTITY_ENDPOINT"),
                                    "api-version=2019-08-01" + resource +
                                        selector_of(identity, {.client_id = "client_id",
                                                               .object_id = "principal_id",
                                                               .resource_id = "mi_res_id"}));
      form.secret_header = "X-IDENTITY-HEADER";
      form.secret = Secret(variable(azure, "IDENTITY_HEADER"));
      break;
    case IdentityHost::azure_ml:
      if (!identity.object_id.empty() || !identity.resource_id.empty())
        throw Failure(Errc::config,
                      "this host (MSI_ENDPOINT) selects an identity by client_id only: use that "
                      "in [identity]");
      form.host = "the host's identity endpoint";
      form.request.url = with_query(
          url_in(azure, "MSI_ENDPOINT"),
          "api-version=2017-09-01" + resource +
              selector_of(identity, {.client_id = "clientid", .object_id = {}, .resource_id = {}}));
      form.secret_header = "secret";
      form.secret = Secret(variable(azure, "MSI_SECRET"));
      break;
    case IdentityHost::cloud_shell:
      refuse_selector(identity, "Cloud Shell");
      form.host = "Cloud Shell";
      form.request.method = "POST";
      form.request.url = url_in(azure, "MSI_ENDPOINT");
      form.request.headers.add("Metadata", "true");
      break;
    case IdentityHost::arc: {
      const bool told = !variable(azure, "IDENTITY_ENDPOINT").empty();
      Url endpoint =
          told ? url_in(azure, "IDENTITY_ENDPOINT") : Url::parse(std::string(arc_endpoint)).value();
      if (reach_of(endpoint.origin().host) != Reach::loopback)
        throw Failure(Errc::config,
                      "IDENTITY_ENDPOINT of Azure Arc is not on this machine: its agent is");
      if (endpoint.target() == "/") endpoint = endpoint.with_target(std::string(arc_path));
      return std::make_unique<ArcSource>(
          environment,
          with_query(endpoint, "api-version=" + std::string(arc_version) + resource +
                                   selector_of(identity, arc_names)),
          azure.arc_tokens, audience, identity);
    }
    case IdentityHost::imds:
      return std::make_unique<ImdsTokenSource>(environment, std::move(imds), audience, identity);
  }
  if (!form.secret_header.empty() && !is_token_text(form.secret.reveal()))
    throw Failure(Errc::config, "the environment has no usable header value for " + form.host +
                                    " (IDENTITY_HEADER, MSI_SECRET)");
  return std::make_unique<HostedSource>(environment, std::move(form), audience, identity);
}

Result<std::filesystem::path> arc_key_file(const Headers& response,
                                           const std::filesystem::path& directory) {
  const auto nonsense = [](const std::string& why) {
    return fail(Errc::upstream_nonsense,
                "its challenge " + why + ". Another program than the agent may answer there");
  };
  const Result<std::vector<Challenge>> challenges =
      parse_challenges(response.all("www-authenticate"));
  if (!challenges) return nonsense("cannot be read (" + challenges.error().detail + ")");
  if (challenges->size() != 1 || challenges->front().scheme != "basic" ||
      challenges->front().params.size() != 1 || !challenges->front().param("realm"))
    return nonsense("is not that of Azure Arc");
  const std::string& realm = *challenges->front().param("realm");
  // The agent writes it without quotes; others quote theirs.
  if (!response.get("www-authenticate").ends_with("=" + realm))
    return nonsense("is not written as that of Azure Arc");
  const std::string start = directory.native() + "/";
  const std::string_view name =
      realm.starts_with(start) ? std::string_view(realm).substr(start.size()) : std::string_view();
  constexpr std::string_view ending = ".key";
  const bool plain = std::ranges::all_of(name, [](char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '-' ||
           c == '_' || c == '.';
  });
  if (name.size() <= ending.size() || name.size() > 255 || name.starts_with('.') ||
      !name.ends_with(ending) || !plain)
    return nonsense("names the file " + printable(realm, 120) +
                    ", which is not one of its keys in " + printable(directory.native()));
  return directory / std::filesystem::path(std::string(name));
}

}  // namespace staithe::proxy::auth
