// The status as a page for people: GET / of the control socket, and of the metrics address if
// listen.status_page says so.
//
// The page is one document without any other resource. It is whole as it comes, with every figure
// in it; its script (daemon/page/page.js) asks for it again every second and takes over what has
// changed. So there is one rendering, with and without JavaScript, and one place that escapes.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <boost/json/value.hpp>
#include <string>

#include "cache/clock.h"
#include "proxy/connection.h"

namespace staithe::daemon {

namespace asio = boost::asio;

// The document for the JSON of GET /v1/status (interface.md section 4) at `now`. Pure. Takes any
// JSON: what is missing or of another type is left out.
std::string render_status_page(const boost::json::value& status, WallTime now);

// The Content-Security-Policy under which the document works, and nothing else does: its own style
// sheet and script, by their hashes, and questions to where it came from.
const std::string& status_page_policy();

// A browser follows a link to it. That may stand anywhere: what it opens is shown to a person, and
// cannot be read by where it stood.
bool opens_status_page(const proxy::Request& request);

// Answers a GET or HEAD with it; never cached, never framed.
asio::awaitable<void> reply_with_status_page(proxy::Exchange& exchange, boost::json::value status,
                                             WallTime now);

}  // namespace staithe::daemon
