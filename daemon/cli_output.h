// How every command of `staithe` ends: with its output written, or with one sentence on stderr.
#pragma once

#include <boost/json/value.hpp>

#include "daemon/cli.h"
#include "daemon/control_client.h"

namespace staithe::daemon {

// Says what is wrong; returns the exit status.
int report(const CliContext& context, const ControlError& error);
// One line of JSON, without what a terminal would obey.
void print_json(const CliContext& context, const boost::json::value& value);
// Flushes; returns the exit status.
int finish(const CliContext& context);

}  // namespace staithe::daemon
