// Tags and referrers: lists that change, asked for upstream each time and passed on as they come.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <string>

#include "proxy/connection.h"
#include "proxy/listing_link.h"
#include "proxy/outcome.h"
#include "proxy/registries.h"

namespace staithe::proxy {

// `what` is what follows the repository upstream: "tags/list?n=5", "referrers/sha256:...". A Link
// to the next page is rewritten to this daemon, with the path and the ?ns= of the request.
asio::awaitable<Outcome> serve_listing(Exchange& exchange, RegistryPtr registry,
                                       std::string repository, std::string what, Errc absent);

}  // namespace staithe::proxy
