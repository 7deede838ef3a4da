#include "cache/layout.h"

#include <charconv>

namespace staithe::cache {

std::vector<std::filesystem::path> Layout::own_directories() const {
  std::vector<std::filesystem::path> directories = {partial(), quarantine()};
  for (const ObjectKind of : {ObjectKind::blob, ObjectKind::manifest}) {
    directories.push_back(kind(of));
    for (const auto name : algorithm_names) directories.push_back(algorithm(of, name));
  }
  return directories;
}

Layout::PartialName Layout::parse_partial(std::string_view name) {
  const std::size_t dot = name.find('.');
  if (dot == std::string_view::npos) return {};
  const std::string_view hex = name.substr(0, dot);
  const std::string_view digits = name.substr(dot + 1);
  std::uint64_t number = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), number);
  if (digits.empty() || error != std::errc() || end != digits.data() + digits.size() ||
      number > max_partial_number)
    return {};
  constexpr std::size_t sha512_hex = 128;
  const auto digest =
      Digest::parse((hex.size() == sha512_hex ? "sha512:" : "sha256:") + std::string(hex));
  if (!digest) return {};
  return {.digest = *digest, .number = number};
}

}  // namespace staithe::cache
