// Where docker-credential-staithe keeps what `docker login` gives it for registries that are not
// the daemon's.
#pragma once

#include <memory>
#include <optional>
#include <ostream>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "cache/error.h"
#include "daemon/environment.h"
#include "daemon/server_url.h"
#include "proxy/auth/secret.h"

namespace staithe::daemon {

inline constexpr std::size_t kMaxLoginSecretBytes = 64 << 10;

struct Login {
  std::string username;
  proxy::auth::Secret secret;
};

// A server as docker named it, and what that means.
struct Server {
  std::string given;
  ServerUrl url;
};

// Blocking, with bounded waits. Errors name the thing, the cause and the remedy.
class LoginStore {
 public:
  virtual ~LoginStore() = default;

  virtual Result<std::optional<Login>> get(const Server& server) = 0;
  virtual Result<void> put(const Server& server, const Login& login) = 0;
  // Success if there was nothing to remove.
  virtual Result<void> erase(const Server& server) = 0;
  // Server URLs and user names.
  virtual Result<std::vector<std::pair<std::string, std::string>>> list() = 0;
};

// $STAITHE_DOCKER_STORE names another helper ("pass": docker-credential-pass); else the user's own
// file. `notes` hears of what was set right on the way, and outlives the store.
Result<std::unique_ptr<LoginStore>> open_login_store(const Environment& environment,
                                                     std::ostream& notes);

}  // namespace staithe::daemon
