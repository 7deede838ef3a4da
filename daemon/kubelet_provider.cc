#include "daemon/kubelet_provider.h"

#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "cache/escape.h"
#include "daemon/credential_client.h"
#include "daemon/image_name.h"
#include "daemon/kubelet_request.h"
#include "proxy/auth/secret.h"

namespace staithe::daemon {
namespace {

// The annotations of Azure's own provider, so that a cluster can change from one to the other.
constexpr std::string_view client_id_key = "kubernetes.azure.com/acr-client-id";
constexpr std::string_view tenant_id_key = "kubernetes.azure.com/acr-tenant-id";

constexpr std::string_view usage =
    "usage: staithe-credential-provider < CredentialProviderRequest\n\n"
    "kubelet runs it (--image-credential-provider-config, --image-credential-provider-bin-dir).\n"
    "To try it:\n"
    "  echo '{\"apiVersion\":\"credentialprovider.kubelet.k8s.io/v1\",\"kind\":"
    "\"CredentialProviderRequest\",\n"
    "    \"image\":\"contoso.azurecr.io/app:1\"}' | staithe-credential-provider\n"
    "The socket: $STAITHE_SOCKET, else /run/staithe/control.sock for root.\n";

int fail_with(const HelperContext& context, std::string_view what) {
  context.err << "staithe-credential-provider: " << what << "\n";
  return 1;
}

std::string annotation(const KubeletRequest& request, std::string_view key) {
  const auto found = request.service_account_annotations.find(key);
  return found == request.service_account_annotations.end() ? std::string() : found->second;
}

// The pod's identity; none if kubelet sends no token. A pod that names none is refused, as Azure's
// own provider refuses it, because the node's identity may pull what the pod's may not; unless the
// operator allows that (`fallback`). Half of an identity is a mistake in any case.
Result<std::optional<ServiceAccount>> service_account(KubeletRequest& request,
                                                      std::string_view fallback) {
  if (request.service_account_token.empty()) return std::nullopt;
  ServiceAccount account{.token = {},
                         .client_id = annotation(request, client_id_key),
                         .tenant_id = annotation(request, tenant_id_key)};
  const bool names_none = account.client_id.empty() && account.tenant_id.empty();
  if (names_none && fallback == "node") return std::nullopt;
  if (account.client_id.empty() || account.tenant_id.empty()) {
    const std::string_view missing = account.client_id.empty() ? client_id_key : tenant_id_key;
    return fail(Errc::bad_request,
                "the service account has no annotation " + std::string(missing) +
                    ": add it, and name it among the annotation keys of the "
                    "CredentialProviderConfig" +
                    (names_none ? "; or let such pods pull with the node's identity, with "
                                  "STAITHE_KUBELET_FALLBACK=node in its env"
                                : ""));
  }
  account.token = std::move(request.service_account_token);
  return account;
}

}  // namespace

int run_kubelet_provider(int argc, const char* const* argv, const HelperContext& context) {
  if (argc == 2 && (argv[1] == std::string_view("--help") || argv[1] == std::string_view("-h"))) {
    context.out << usage << std::flush;
    return 0;
  }
  if (argc == 2 && argv[1] == std::string_view("--version")) {
    context.out << "staithe-credential-provider " STAITHE_VERSION "\n" << std::flush;
    return 0;
  }
  if (argc > 1) return fail_with(context, "it takes no arguments (see --help)");

  std::string input(kMaxKubeletRequestBytes + 1, '\0');
  context.in.read(input.data(), static_cast<std::streamsize>(input.size()));
  input.resize(static_cast<std::size_t>(context.in.gcount()));
  auto request = parse_kubelet_request(input);
  proxy::auth::wipe(input);
  if (!request) return fail_with(context, request.error().detail);
  const auto image = parse_image_name(request->image);
  if (!image) return fail_with(context, image.error().detail);
  const auto account =
      service_account(*request, context.environment.get("STAITHE_KUBELET_FALLBACK"));
  if (!account) return fail_with(context, account.error().detail);

  auto credential = ask_credential(control_socket_of(context.environment),
                                   {.registry = image->registry,
                                    .repository = image->repository,
                                    .service_account = *account ? &**account : nullptr});
  if (!credential)
    return fail_with(context, "no credential for " + printable(image->host, 260) + ": " +
                                  credential.error().message);
  KubeletAnswer answer;
  answer.api_version = request->api_version;
  if (*credential) {
    // The node's identity may depend on the repository ([[registry.identity_for]]), and kubelet
    // would give one repository's answer to another: so it holds for this image alone. A pod's
    // identity is the same for all of a registry.
    answer.cache_key = *account ? CacheKey::registry : CacheKey::image;
    answer.cache_duration = cache_duration((*credential)->expires_in);
    answer.host = image->host;
    answer.username = std::move((*credential)->username);
    answer.password = std::move((*credential)->password);
  } else {
    answer.cache_duration = std::chrono::seconds(0);
  }
  std::string text = to_json(answer);
  context.out << text << "\n" << std::flush;
  proxy::auth::wipe(text);
  return context.out ? 0 : fail_with(context, "kubelet takes no answer on stdout");
}

}  // namespace staithe::daemon
