// What is on its way from upstream, as `staithe status` shows it: fills and warms. Pure.
#pragma once

#include <string>

#include "daemon/json_reader.h"
#include "daemon/terminal.h"

namespace staithe::daemon {

// The list of GET /v1/fills: of each a bar, how much, how fast, how long still, for how many
// readers and over how many connections, as far as it is known. Empty if there is none.
std::string render_fills(const JsonReader& fills, const Style& style);

// "warm" of GET /v1/status: what is warmed now, and what of [warm] has failed. Empty if there is
// nothing to say.
std::string render_warms(const JsonReader& warm, const Style& style);

// "12.0 MiB/s, 8s left, 4 connections" of a fill, as far as it is known; may be empty.
std::string describe_pace(const JsonReader& fill);

// "2 connections", "1 reader".
std::string counted(const JsonReader& number, std::string_view what);
// "46%", of a whole that may be 0.
std::string show_percent(double part, double whole);

}  // namespace staithe::daemon
