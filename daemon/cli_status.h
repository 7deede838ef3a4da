// `staithe status` for people: the JSON of GET /v1/status (interface.md section 4) as text.
#pragma once

#include <boost/json/value.hpp>
#include <string>

#include "daemon/terminal.h"

namespace staithe::daemon {

// Pure. Takes any JSON: what is missing or of another type is left out, what comes from outside is
// escaped, every line fits `style.columns` from 40 columns on.
std::string render_status(const boost::json::value& status, const Style& style);

}  // namespace staithe::daemon
