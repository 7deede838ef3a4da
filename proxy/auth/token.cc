#include "proxy/auth/token.h"

#include <time.h>

#include <algorithm>

namespace staithe::proxy::auth {

Result<std::chrono::nanoseconds> remaining_life(const LifeClues& clues) {
  // Dates beyond the year 10000 are nobody's; without them no difference overflows.
  constexpr std::int64_t latest = 253402300800;
  const auto is_date = [](const std::optional<std::int64_t>& date) {
    return date && *date > 0 && *date < latest;
  };
  const std::int64_t longest = std::chrono::seconds(longest_life).count();
  std::optional<std::int64_t> shortest;
  const auto consider = [&](std::int64_t seconds) {
    shortest = std::min({seconds, longest, shortest.value_or(longest)});
  };
  if (clues.expires_in) consider(*clues.expires_in);
  if (is_date(clues.expires)) {
    // A Date after the end is more likely a wrong Date than a dead token.
    if (is_date(clues.server_date) && *clues.expires > *clues.server_date)
      consider(*clues.expires - *clues.server_date);
    if (is_date(clues.issued)) consider(*clues.expires - *clues.issued);
    if (!shortest) consider(*clues.expires - clues.wall);
  }
  if (!shortest) return unstated_life;
  if (*shortest <= 0) return fail(Errc::upstream_nonsense, "the token had ended when it arrived");
  return std::chrono::seconds(*shortest);
}

std::int64_t remaining_seconds(std::int64_t expires, std::int64_t now) {
  constexpr std::int64_t latest = 253402300800;  // the year 10000
  const std::int64_t end = std::clamp<std::int64_t>(expires, 0, latest);
  return end - std::clamp<std::int64_t>(now, 0, latest);
}

std::optional<std::int64_t> parse_http_date(std::string_view text) {
  constexpr std::size_t length = std::string_view("Sun, 06 Nov 1994 08:49:37 GMT").size();
  if (text.size() != length || !text.ends_with(" GMT")) return std::nullopt;
  tm parts{};
  const std::string terminated(text);
  // The names of days and months are those of the "C" locale, which this program never leaves.
  const char* end = ::strptime(terminated.c_str(), "%a, %d %b %Y %H:%M:%S GMT", &parts);
  if (!end || *end != '\0') return std::nullopt;
  const time_t seconds = ::timegm(&parts);
  if (seconds < 0) return std::nullopt;
  return seconds;
}

}  // namespace staithe::proxy::auth
