// `staithe status` for people: the JSON of GET /v1/status (interface.md section 4) as text.
#pragma once

#include <boost/json/value.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "daemon/json_reader.h"
#include "daemon/terminal.h"

namespace staithe::daemon {

// Pure. Takes any JSON: what is missing or of another type is left out, what comes from outside is
// escaped, every line fits `style.columns` from 40 columns on.
enum class Order {
  transfers_last,   // what is under way stands where the eye is after the command
  transfers_first,  // and where a screen that is too small does not cut it off
};
std::string render_status(const boost::json::value& status, const Style& style,
                          Order order = Order::transfers_last);

// Pieces that other commands show too. Pure.
//
// Of a daemon, its cache or a registry.
Tone tone_of_state(std::string_view state);
// How far the background verification is; empty from a daemon that has none.
std::vector<Span> describe_scrub(const JsonReader& scrub);
// The pulls that a registry still grants ("rate_limit"), or nothing.
Span describe_quota(const JsonReader& quota);
// Of a registry or one of its upstreams: "", " for 5s", ", tried again in 3s".
std::string describe_wait(const JsonReader& upstream);
// "vm (managed-identity)", "anonymous".
std::string describe_identity(const JsonReader& registry);
// Tokens of one kind together: how many, and when the first of them expires and is renewed.
std::string describe_tokens(const JsonReader& tokens);
// How the TLS listener fares ("tls"), or nothing; its "fault" is a sentence of its own.
std::vector<Span> describe_tls(const JsonReader& tls);
// A warning about something that a person has to renew soon, or nothing.
std::string describe_ending(const JsonReader& credential);

}  // namespace staithe::daemon
