// A user name and a secret, as Basic authentication takes them, and where they come from.
//
// Admin users, repository-scoped tokens, ECR's and GAR's passwords, whatever a docker config or a
// credential helper holds: each is a source, and a Keeper around it re-reads it, so that a changed
// file is used within seconds and a helper is not run for every pull.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "proxy/auth/environment.h"
#include "proxy/auth/keeper.h"
#include "proxy/auth/source.h"
#include "proxy/auth/token.h"

namespace staithe::proxy::auth {

struct Password {
  std::string username;
  Secret secret;
  // The secret is a refresh token of the distribution spec (docker's user name `<token>`): it is
  // posted to the token server, and never sent by Basic authentication.
  bool identity_token = false;
  Life life;
};

using PasswordSource = Source<Password>;
using PasswordKeeper = Keeper<Password>;

// `username` with the password in a file.
class PasswordFile final : public PasswordSource {
 public:
  PasswordFile(Environment environment, std::string username, std::filesystem::path path)
      : environment_(environment), username_(std::move(username)), path_(std::move(path)) {}
  asio::awaitable<Password> fetch() override;

 private:
  Environment environment_;
  std::string username_;
  std::filesystem::path path_;
};

// What `docker-credential-<helper> get` says for `server`, as docker names it: the registry's host,
// or "https://index.docker.io/v1/".
class PasswordHelper final : public PasswordSource {
 public:
  PasswordHelper(Environment environment, std::string helper, std::string server)
      : environment_(environment), helper_(std::move(helper)), server_(std::move(server)) {}
  asio::awaitable<Password> fetch() override;

 private:
  Environment environment_;
  std::string helper_;
  std::string server_;
};

// How docker names the registry called `name` to a helper: its host, but for Docker Hub.
std::string helper_server(const std::string& name);

// What a docker config.json, or a mounted kubernetes.io/dockerconfigjson secret, says for the
// registry called `name`: by its `credHelpers`, then `auths`, then `credsStore`.
class DockerConfig final : public PasswordSource {
 public:
  DockerConfig(Environment environment, std::filesystem::path path, std::string name)
      : environment_(environment), path_(std::move(path)), name_(std::move(name)) {}
  asio::awaitable<Password> fetch() override;

 private:
  Environment environment_;
  std::filesystem::path path_;
  std::string name_;
};

// The passwords of one identity: one, or two of which either may be the good one.
//
// A password that was refused is not sent again for ten minutes (a regenerated one takes one to
// work), unless its source gives another by then: fixed secrets are tried once each, and a locked
// account is nobody's gain.
class Passwords {
 public:
  // `name` is the identity in messages: "the password of contoso.azurecr.io's identity".
  Passwords(std::string name, std::vector<std::shared_ptr<PasswordKeeper>> candidates,
            bool renewable, Environment environment);

  struct Pick {
    std::shared_ptr<const Password> password;
    std::size_t candidate;
  };
  // The first that has not been refused. Throws Failure(unauthorized) if all were, and the
  // source's error if there is none.
  asio::awaitable<Pick> get();

  // The token server has taken `pick`. A 401 soon after is about a repository, not about the
  // password, and does not mark it as refused for the others.
  void accepted(const Pick& pick);

  // The registry answered 401 to `pick`. Another get() gives another one, or throws; or gives the
  // same, if it was accepted just now and its source has no newer one.
  void refused(const Pick& pick);
  // The registry said that `pick` has ended. True if a get() may give a newer one.
  bool ended(const Pick& pick);

  asio::awaitable<void> renew();
  // The name for messages and for login_name(), as far as it is known; else empty.
  std::string username() const;
  // False for fixed passwords: only a person can change them.
  bool renewable() const { return renewable_; }
  std::optional<Error> last_error() const;

 private:
  struct Candidate {
    std::shared_ptr<PasswordKeeper> keeper;
    Secret refused;  // empty: none
    Instant refused_at{};
    std::shared_ptr<const Password> accepted;
    Instant accepted_at{};
  };
  bool is_refused(const Candidate& candidate, const Password& password) const;
  // Old enough to ask its source for another.
  bool is_rested(const Password& password) const;

  std::string name_;
  std::vector<Candidate> candidates_;
  bool renewable_;
  Environment environment_;
};

}  // namespace staithe::proxy::auth
