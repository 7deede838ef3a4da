#include "cache/escape.h"

#include <algorithm>

namespace staithe {

std::string printable(std::string_view text, std::size_t max_bytes) {
  constexpr std::string_view hex = "0123456789abcdef";
  constexpr std::string_view cut = "...";
  std::string shown;
  shown.reserve(std::min(text.size(), max_bytes));
  std::size_t fits = 0;  // how much of `shown` leaves room for the mark of a cut
  for (const char c : text) {
    if (shown.size() + cut.size() <= max_bytes) fits = shown.size();
    switch (c) {
      case '\n':
        shown += "\\n";
        break;
      case '\r':
        shown += "\\r";
        break;
      case '\t':
        shown += "\\t";
        break;
      case '\\':
        shown += "\\\\";
        break;
      default:
        if (c >= ' ' && c <= '~') {
          shown += c;
        } else {
          const auto byte = static_cast<unsigned char>(c);
          shown += {'\\', 'x', hex[byte >> 4], hex[byte & 15]};
        }
    }
    if (shown.size() > max_bytes) {
      shown.resize(fits);
      shown += cut.substr(0, max_bytes - fits);
      return shown;
    }
  }
  return shown;
}

}  // namespace staithe
