// What requests on the control socket that do something have in common: they are POSTs, and of
// root or the user that staithed runs as.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <string_view>

#include "daemon/access.h"
#include "proxy/connection.h"

namespace staithe::daemon {

// False if the request is no POST; it is answered then.
asio::awaitable<bool> admit_post(proxy::Exchange& exchange);

// False if the caller is neither root nor the own user; the request is answered then. `deed` says
// what those may: "reload its configuration".
asio::awaitable<bool> admit_owner(proxy::Exchange& exchange, Access& access, std::string_view deed);

}  // namespace staithe::daemon
