// What the daemon's socket says, as `staithe status` shows it: any JSON, whoever stands behind the
// socket. Nothing of it reaches the terminal but text, and every line fits.
#include <boost/json/parse.hpp>

#include "daemon/cli_status.h"
#include "tests/fuzz/fuzz.h"

namespace staithe::fuzz {

namespace {

void check_text(std::string_view text, const daemon::Style& style) {
  for (Input lines(text); !lines.empty();) {
    const std::string_view line = lines.line();
    // Colours are sequences of ours, and what is drawn is of no other script.
    if (!style.utf8 && !style.colour) check(is_printable(line));
    for (const char c : line) check(c < 0 || c >= ' ' || (style.colour && c == '\033'));
    if (style.columns != 0 && !style.colour) check(daemon::column_count(line) <= style.columns);
  }
}

}  // namespace

void one(std::string_view input) {
  boost::system::error_code error;
  const auto status = boost::json::parse(input, error);
  if (error) return;
  for (const daemon::Style& style : {daemon::Style{.columns = 0, .colour = false, .utf8 = false},
                                     daemon::Style{.columns = 40, .colour = false, .utf8 = false},
                                     daemon::Style{.columns = 80, .colour = false, .utf8 = true},
                                     daemon::Style{.columns = 100, .colour = true, .utf8 = true}}) {
    check_text(daemon::render_status(status, style), style);
    check_text(daemon::render_status(status, style, daemon::Order::transfers_first), style);
  }
}

}  // namespace staithe::fuzz
