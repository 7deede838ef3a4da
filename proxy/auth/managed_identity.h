// The machine's own identity: Entra tokens from the instance metadata service of an Azure VM.
//
// Requests are built from constants and the configuration; nothing that a client says reaches
// them. The service allows five requests at once per VM, of everything that runs there, so we send
// one at a time (azure-protocol.md section 6.4).
#pragma once

#include <boost/asio/awaitable.hpp>
#include <memory>
#include <optional>
#include <string>

#include "cache/event.h"
#include "proxy/auth/environment.h"
#include "proxy/auth/source.h"
#include "proxy/auth/token.h"
#include "proxy/auth/token_call.h"
#include "proxy/settings.h"
#include "proxy/url.h"

namespace staithe::proxy::auth {

// The one metadata service of this machine, shared by all identities that it gives tokens for.
class MetadataService {
 public:
  MetadataService(Environment environment, Url endpoint)
      : environment_(environment), endpoint_(std::move(endpoint)) {}

  // Waits for its turn, then asks. Throws Failure as auth::ask().
  asio::awaitable<Answer> ask(std::string target, std::string step);

  const Url& endpoint() const { return endpoint_; }

 private:
  Environment environment_;
  Url endpoint_;
  bool busy_ = false;
  std::optional<Event> freed_;
};

// How a kind of host spells the three selectors.
struct SelectorNames {
  std::string_view client_id, object_id, resource_id;
};
// "&client_id=..." for the selector that is set; empty for the system-assigned identity.
std::string selector_of(const IdentitySettings& identity, const SelectorNames& names);

// "this machine's identity", "the identity with client id ...".
std::string in_words(const IdentitySettings& identity);

// What to do about an identity that the host does not know.
std::string remedy_for(const IdentitySettings& identity);

// The token in a 200 of any of the hosts: numbers as text or not, the end as seconds or as a date.
// `must_echo`: an answer for a user-assigned identity that does not name it is for another one
// (old Arc agents); otherwise only one that names another.
Result<Token> read_managed_token(const Answer& answer, const std::string& audience,
                                 const IdentitySettings& identity, bool must_echo);

// Tokens for `audience` by one managed identity: the system-assigned one, or that of the one
// selector that `identity` sets.
//
//   answer                        what fetch() does
//   410                           asks again for 70 s
//   404, 429, 5xx                 asks 5 times, at 0, 2, 6, 14, 30 s
//   no answer, three times        gives up, after 6 s: off Azure nobody should wait longer
//   400                           fails with identity_missing: an operator has to act
//   403, other 4xx                fails with unauthorized: likewise
//   403 "unreachable", 200 but    fails with upstream_nonsense: another program answers at the
//   no JSON, a redirect           service's address
class ImdsTokenSource final : public TokenSource {
 public:
  ImdsTokenSource(Environment environment, std::shared_ptr<MetadataService> service,
                  std::string audience, const IdentitySettings& identity);

  asio::awaitable<Token> fetch() override;

 private:
  Environment environment_;
  std::shared_ptr<MetadataService> service_;
  std::string audience_;
  IdentitySettings identity_;
  std::string target_;
  std::string step_;
};

}  // namespace staithe::proxy::auth
