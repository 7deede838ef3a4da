#include "daemon/image_list.h"

#include <algorithm>

#include "daemon/image_name.h"

namespace staithe::daemon {
namespace {

std::string_view trimmed(std::string_view text) {
  constexpr std::string_view blanks = " \t\r\v\f";
  const std::size_t begin = std::min(text.find_first_not_of(blanks), text.size());
  const std::size_t end = text.find_last_not_of(blanks);
  return end == text.npos ? std::string_view() : text.substr(begin, end - begin + 1);
}

}  // namespace

std::expected<std::vector<std::string>, std::vector<std::string>> parse_image_list(
    std::string_view text, const std::string& file) {
  std::vector<std::string> names;
  std::vector<std::string> faults;
  for (std::size_t number = 1; !text.empty(); ++number) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    std::string_view line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    // No image's name has a "#".
    line = trimmed(line.substr(0, line.find('#')));
    if (line.empty()) continue;
    if (const auto name = parse_image_name(line); name) {
      names.emplace_back(line);
    } else {
      faults.push_back(file + ":" + std::to_string(number) + ": " + name.error().detail);
    }
  }
  if (!faults.empty()) return std::unexpected(std::move(faults));
  return names;
}

}  // namespace staithe::daemon
