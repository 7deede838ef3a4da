// The control socket's credentials: what helpers are handed, renewals, sign-ins.
//
//   POST /v1/credential   {"registry":..,"repository":..,"purpose":..}      Right::credential, own
//   GET  /v1/credentials                        of those registries for which the caller has it
//   POST /v1/renew        {"registry":..}                 Right::credential; without one, likewise
//   POST /v1/login        {"registry":..,"token":..}                       Right::own
//   POST /v1/logout       {"registry":..}                                  Right::own
//
// These are the only answers of the daemon that hold a secret, and they go to callers that the
// kernel has named. What was received and what was sent is wiped afterwards and never logged; a log
// line says which user asked for which registry. Lives on the loop.
#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/json/value.hpp>
#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "cache/task_group.h"
#include "daemon/access.h"
#include "daemon/asked.h"
#include "daemon/options.h"
#include "proxy/auth/identities.h"
#include "proxy/connection.h"
#include "proxy/registries.h"

namespace staithe::daemon {

class Credentials {
 public:
  // What stands behind the sign-ins and the service accounts; each throws Failure, bad_request for
  // what the caller can mend. Where one is empty, this daemon does not offer it.
  struct Doors {
    std::function<asio::awaitable<proxy::auth::Login>(proxy::RegistryPtr,
                                                      proxy::auth::ServiceAccount)>
        service_account;
    std::function<asio::awaitable<proxy::auth::Identities::SignIn>(proxy::RegistryPtr,
                                                                   proxy::auth::Secret token)>
        sign_in;
    // True if there was one.
    std::function<asio::awaitable<bool>(proxy::RegistryPtr)> sign_out;
  };

  // Everything named here outlives it.
  struct Sources {
    asio::any_io_executor loop;
    const Config& config;
    proxy::Registries& registries;
    Access& access;
    TaskGroup& tasks;
    Doors doors;
  };
  explicit Credentials(Sources sources) : sources_(std::move(sources)) {}

  // True for the paths above, whatever the method.
  static bool answers(std::string_view path);
  // Answers. Throws nothing but what the connection handles.
  asio::awaitable<void> handle(proxy::Exchange& exchange);

  // The identity is none of [identity.*]: a person has signed in.
  static bool is_sign_in(const std::string& identity);

 private:
  // An answer, or what is wrong. Never copied, wiped when it goes.
  struct Reply;
  struct Renewals;

  asio::awaitable<Reply> answer(const proxy::Request& request, std::string_view path,
                                proxy::Peer caller);
  asio::awaitable<Reply> credential(Asked asked, proxy::Peer caller);
  asio::awaitable<Reply> list(proxy::Peer caller);
  asio::awaitable<Reply> renew(Asked asked, proxy::Peer caller);
  static asio::awaitable<void> renew_one(std::shared_ptr<Renewals> renewals, std::size_t index,
                                         proxy::RegistryPtr registry,
                                         proxy::auth::Authorizer* authorizer);
  asio::awaitable<Reply> sign_in(Asked asked, proxy::Peer caller);
  asio::awaitable<Reply> sign_out(Asked asked, proxy::Peer caller);
  // Throws Failure(registry_unknown) or Failure(bad_request).
  proxy::RegistryPtr registry(const Asked& asked);
  // The same, of one that the caller may have credentials of; nullptr if he may not.
  asio::awaitable<proxy::RegistryPtr> allowed_registry(const Asked& asked, proxy::Peer caller);
  bool has_credential(const std::string& identity) const;

  Sources sources_;
};

}  // namespace staithe::daemon
