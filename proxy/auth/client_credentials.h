// Entra tokens for an application: OAuth's client credentials (azure-protocol.md sections 6.2, 6.3,
// 6.7, 6.10).
//
//   POST <authority>/<tenant>/oauth2/v2.0/token
//        client_id, scope=<audience>/.default, grant_type=client_credentials, and a proof
//
// The proof is a secret, or an assertion: signed with a certificate, read from a file that somebody
// rotates (kubelet), or a token of a managed identity that the application trusts.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "proxy/auth/authorizer.h"
#include "proxy/auth/certificate.h"
#include "proxy/auth/environment.h"
#include "proxy/auth/keeper.h"
#include "proxy/auth/source.h"
#include "proxy/auth/token_call.h"
#include "proxy/auth/token_server.h"
#include "proxy/settings.h"
#include "proxy/url.h"

namespace staithe::proxy::auth {

// How an application proves who it is. Lives on the loop.
class ClientProof {
 public:
  virtual ~ClientProof() = default;
  // The client_secret, or a client_assertion. `wall` is the time by the server's clock, as far as
  // it is known. Throws Failure, with a sentence that names the file or the step.
  virtual asio::awaitable<Secret> make(std::string token_endpoint, std::string client_id,
                                       WallTime wall) = 0;
  virtual bool is_assertion() const { return true; }
  // Another `wall` makes another proof.
  virtual bool depends_on_clock() const { return false; }
  // When what a person has to renew ends, if that is known.
  virtual std::optional<Ending> ending() const { return std::nullopt; }
  // What to mend when Entra does not accept the proof.
  virtual std::string remedy() const = 0;
};

// The file is read for each call: whoever rotates the secret has nothing else to do.
std::unique_ptr<ClientProof> make_secret_proof(Environment environment, std::filesystem::path file);
// Likewise; the end of the certificate is known from the first read on.
std::unique_ptr<ClientProof> make_certificate_proof(Environment environment,
                                                    std::filesystem::path file);
std::unique_ptr<ClientProof> make_assertion_file_proof(Environment environment,
                                                       std::filesystem::path file);
// `assertion` keeps tokens of a managed identity for api://AzureADTokenExchange.
std::unique_ptr<ClientProof> make_federated_proof(std::shared_ptr<TokenKeeper> assertion);
// An assertion that a caller has brought: kubelet's service account token.
std::unique_ptr<ClientProof> make_given_proof(Secret assertion);

// Where Entra's tokens are asked for, and how it is reached.
struct TokenEndpoint {
  Url url;            // <authority>/<tenant>/oauth2/v2.0/token
  std::string shown;  // the assertion's audience: the public URL, also behind a proxy
  // Of AKS identity bindings, which put a proxy in the public authority's place.
  std::string host_field;  // the Host to ask for; empty = the URL's
  std::string connect_to, ca_file, ca_pem;
};

// The endpoint of `tenant` by the configured authority, or by the AZURE_KUBERNETES_* variables if
// `by_proxy` and they are set. Fails with config if one of them is not a URL, or `tenant` is no
// tenant.
Result<TokenEndpoint> token_endpoint(const AzureSettings& azure, const std::string& tenant,
                                     bool by_proxy);

class ClientCredentials final : public TokenSource {
 public:
  ClientCredentials(Environment environment, TokenEndpoint endpoint, std::string client_id,
                    std::string audience, std::shared_ptr<ClientProof> proof);
  asio::awaitable<Token> fetch() override;

 private:
  asio::awaitable<Answer> ask(std::chrono::seconds clock_offset, Secret& proof);
  [[noreturn]] void refuse(const Answer& answer, const Secret& proof) const;
  Token read(const Answer& answer) const;

  Environment environment_;
  TokenEndpoint endpoint_;
  std::string client_id_;
  std::string audience_;
  std::shared_ptr<ClientProof> proof_;
  TokenServer server_;
  std::string step_;
};

}  // namespace staithe::proxy::auth
