// Text from outside, made fit to be shown: in logs, errors, status and metrics.
//
// What a registry, a client or a file says may hold terminal controls, line feeds that fake a log
// line, or megabytes. Nothing of the kind reaches a reader: every such text passes here first.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace staithe {

// `text` with every byte outside printable ASCII, and the backslash, escaped (\n, \r, \t, \\ or
// \xNN), in at most `max_bytes` bytes. A text that does not fit is cut between two characters and
// ends in "...". The result is printable ASCII, and if it is not cut it can be undone.
std::string printable(std::string_view text, std::size_t max_bytes = 200);

}  // namespace staithe
