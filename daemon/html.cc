#include "daemon/html.h"

#include "daemon/terminal.h"

namespace staithe::daemon {

Text::Text(std::string_view text) {
  for (const char c : without_controls(text)) {
    switch (c) {
      case '&':
        escaped_ += "&amp;";
        break;
      case '<':
        escaped_ += "&lt;";
        break;
      case '>':
        escaped_ += "&gt;";
        break;
      case '"':
        escaped_ += "&quot;";
        break;
      case '\'':
        escaped_ += "&#39;";
        break;
      default:
        escaped_ += c;
    }
  }
}

}  // namespace staithe::daemon
