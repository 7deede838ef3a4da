// What an upstream request needs from the credentials behind it: one header value.
//
// One Authorizer serves one upstream origin with one identity. Its tokens are shared by all
// requests, fetched once however many ask, and renewed ahead of expiry. Lives on the loop.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "cache/error.h"
#include "proxy/auth/secret.h"
#include "proxy/http.h"

namespace staithe::proxy::auth {

// One token as status shows it; never its value.
struct TokenStatus {
  std::string kind;          // "entra", "refresh", "access", "login"
  std::chrono::seconds age;  // since it was asked for
  std::chrono::seconds expires_in;
  std::optional<std::chrono::seconds> renews_in;  // nullopt: only a person can renew it
};

// Something that a person has to renew, and when it ends: a client secret, a certificate, a token
// from a file or a sign-in.
struct Ending {
  std::string what;  // "certificate /etc/staithe/sp.pem"
  std::chrono::seconds expires_in;
  std::chrono::seconds warns_ahead;  // it is time to act when expires_in is less than this
  std::string remedy = {};           // empty: a new one in its place is seen at once

  bool is_near() const { return expires_in < warns_ahead; }
};

using Endings = std::function<std::vector<Ending>()>;

// What a program that talks to the registry itself is given, for Basic authentication or
// `docker login`.
struct Login {
  std::string username;  // ACR's null GUID with a refresh token
  std::shared_ptr<const Secret> secret;
  bool identity_token = false;  // the secret is a refresh token: docker's user name `<token>`
  bool renewable = true;
  std::optional<std::chrono::seconds> expires_in;  // nullopt: no end is known
};

// The value of an Authorization header, shared by the requests that use it; null = send none.
using Authorization = std::shared_ptr<const Secret>;

// What for_pull() rests on, one upon the other.
enum class Part {
  identity,   // the Entra token or the password, and whatever that is made of
  challenge,  // what the registry asks for
  exchange,   // of ACR: the refresh token
  access,     // what is sent with a pull
};

class Authorizer {
 public:
  virtual ~Authorizer() = default;

  // For pulling from `repository` (as upstream names it). Returns at once while a valid token is
  // held. Throws Failure: unauthorized, denied, unreachable, throttled, upstream_nonsense, each
  // with a sentence that names the step (identity, exchange, token), the cause and the remedy.
  // Throttled is Postponed (auth/source.h) where it is known for how long.
  virtual asio::awaitable<Authorization> for_pull(std::string repository) = 0;

  // Upstream answered 401 to a request that carried `used` (null: none). Forgets that token if it
  // is still the current one, and learns from the challenge. True if the request is worth
  // repeating, once, with a new for_pull().
  virtual bool refused(const std::string& repository, const Authorization& used,
                       const Headers& response) = 0;

  // Upstream answered 403 to a request that carried `used`: some registries (ECR) say so that a
  // password has ended. True if the request is worth repeating, once, with a new for_pull().
  virtual bool forbidden(const Authorization& used) = 0;

  // The same right for another program. Throws Failure as for_pull(), and not_found if this
  // identity has nothing to give (anonymous).
  virtual asio::awaitable<Login> login() = 0;
  // The user name that login() would give, without asking anybody; empty if nothing.
  virtual std::string login_name() const = 0;

  // Fetches anew what the access tokens are made from, ahead of its time; what is kept goes on
  // serving meanwhile, and stays if this fails. Throws Failure.
  virtual asio::awaitable<void> renew() = 0;

  // For a diagnosis: sees to it that this part is at hand, as for_pull(repository) would, and says
  // what it is in words without a secret ("a Bearer token from https://..."). Empty if there is no
  // such part (anonymous has no identity). Throws Failure as for_pull().
  virtual asio::awaitable<std::string> probe(Part part, std::string repository) = 0;

  virtual std::vector<TokenStatus> tokens() const = 0;
  virtual std::vector<Ending> endings() const = 0;
  // Why tokens cannot be had at present; nullopt while they can.
  virtual std::optional<Error> last_error() const = 0;
};

}  // namespace staithe::proxy::auth
