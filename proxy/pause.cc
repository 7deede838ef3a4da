#include "proxy/pause.h"

#include <charconv>

#include "proxy/auth/token.h"

namespace staithe::proxy {

std::optional<std::chrono::seconds> retry_after(const Headers& headers, WallTime wall) {
  using std::chrono::seconds;
  const std::string_view text = headers.get("Retry-After");
  std::int64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (!text.empty() && !text.starts_with('-') && end == text.data() + text.size()) {
    if (error == std::errc::result_out_of_range) return Pause::longest;
    if (error == std::errc()) return std::min<seconds>(seconds(number), Pause::longest);
  }
  const auto then = auth::parse_http_date(text);
  if (!then) return std::nullopt;
  const auto now = auth::parse_http_date(headers.get("Date"))
                       .value_or(std::chrono::floor<seconds>(wall).time_since_epoch().count());
  return std::clamp<seconds>(seconds(*then - now), seconds(0), Pause::longest);
}

}  // namespace staithe::proxy
