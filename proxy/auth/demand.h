// What a registry demands before it lets anyone pull: nothing, a Bearer token, or a password.
//
// Learned by one GET /v2/ without Authorization, since a registry that is sent a wrong password
// first may not name its token server (azure-protocol.md section 3). A Demand has passed the
// rules of trust.h: its realm may be asked.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "proxy/auth/environment.h"
#include "proxy/auth/source.h"
#include "proxy/auth/token.h"
#include "proxy/http.h"
#include "proxy/url.h"

namespace staithe::proxy::auth {

struct Demand {
  enum class Kind { nothing, bearer, basic };
  Kind kind = Kind::nothing;
  Url realm;            // of bearer: the token server
  std::string service;  // of bearer: never guessed; may be empty
  Life life;

  bool same_as(const Demand& other) const {
    return kind == other.kind && service == other.service &&
           realm.origin() == other.realm.origin() && realm.target() == other.realm.target();
  }
};

// Whether the token server that a challenge names may be asked (trust.h), and which URL that is.
using RealmRule = std::function<Result<Url>(std::string_view realm)>;

// As good as for ever: that a registry demands something else now shows in a 401.
inline constexpr std::chrono::hours demand_life{24 * 365};

// What the WWW-Authenticate fields of a 401 demand; without `life`.
Result<Demand> read_demand(const Headers& headers, const RealmRule& rule);

// Asks `registry`. Fails with denied, throttled, upstream_failed or upstream_nonsense for any
// status but 200 and 401, and for a 200 that is no registry's: that is a finding about the
// connection, not about credentials.
class DemandSource final : public Source<Demand> {
 public:
  DemandSource(Environment environment, Origin registry, std::string ca_file, RealmRule rule)
      : environment_(environment),
        registry_(std::move(registry)),
        ca_file_(std::move(ca_file)),
        rule_(std::move(rule)) {}

  asio::awaitable<Demand> fetch() override;

 private:
  Environment environment_;
  Origin registry_;
  std::string ca_file_;
  RealmRule rule_;
};

}  // namespace staithe::proxy::auth
