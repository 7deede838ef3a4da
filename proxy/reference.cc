#include "proxy/reference.h"

#include <algorithm>

namespace staithe::proxy {

namespace {

constexpr std::size_t max_repository_bytes = 255;  // distribution's limit, registry host excluded
constexpr std::size_t max_tag_bytes = 128;
constexpr std::size_t max_registry_bytes = 259;  // 253 for the name, 6 for ":65535"

bool is_alphanumeric(char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9'); }

// One path component: runs of letters and digits, joined by ".", "_", "__" or any number of "-".
bool is_component(std::string_view text) {
  if (text.empty() || !is_alphanumeric(text.front()) || !is_alphanumeric(text.back())) return false;
  for (std::size_t i = 0; i < text.size();) {
    if (is_alphanumeric(text[i])) {
      ++i;
      continue;
    }
    const char separator = text[i];
    std::size_t end = i;
    while (end < text.size() && text[end] == separator) ++end;
    const std::size_t length = end - i;
    const bool good =
        separator == '-' || (separator == '.' && length == 1) || (separator == '_' && length <= 2);
    if (!good || end == text.size() || !is_alphanumeric(text[end])) return false;
    i = end;
  }
  return true;
}

}  // namespace

bool is_repository(std::string_view text) {
  if (text.empty() || text.size() > max_repository_bytes) return false;
  for (;;) {
    const std::size_t slash = text.find('/');
    if (!is_component(text.substr(0, slash))) return false;
    if (slash == std::string_view::npos) return true;
    text.remove_prefix(slash + 1);
  }
}

bool is_tag(std::string_view text) {
  if (text.empty() || text.size() > max_tag_bytes) return false;
  const auto word = [](char c) { return is_alphanumeric(c) || (c >= 'A' && c <= 'Z') || c == '_'; };
  return word(text.front()) &&
         std::ranges::all_of(text, [&](char c) { return word(c) || c == '.' || c == '-'; });
}

Result<Reference> Reference::parse(std::string_view text) {
  if (text.find(':') != std::string_view::npos) {
    auto digest = cache::Digest::parse(text);
    if (!digest) return std::unexpected(std::move(digest.error()));
    return Reference(*digest);
  }
  if (!is_tag(text))
    return fail(Errc::name_invalid,
                "a tag has 1 to 128 letters, digits, '_', '.' and '-', and does not begin with "
                "'.' or '-'");
  return Reference(std::string(text));
}

std::string Reference::to_string() const {
  return tag() ? *tag() : std::get<cache::Digest>(value_).to_string();
}

Result<std::string> parse_registry(std::string_view text) {
  std::string name(text);
  for (char& c : name) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  std::string_view rest = name;
  std::string_view port;
  if (rest.starts_with('[')) {
    const std::size_t end = rest.find(']');
    if (end == std::string_view::npos)
      return fail(Errc::name_invalid, "a registry's IPv6 address needs a closing bracket");
    port = rest.substr(end + 1);
    rest = rest.substr(1, end - 1);
    if (rest.empty() || !std::ranges::all_of(rest, [](char c) {
          return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || c == ':' || c == '.';
        }))
      return fail(Errc::name_invalid, "the registry is not an IPv6 address in brackets");
  } else {
    const std::size_t colon = rest.find(':');
    if (colon != std::string_view::npos) {
      port = rest.substr(colon);
      rest = rest.substr(0, colon);
    }
    if (rest.empty() || rest.front() == '.' || rest.front() == '-' || rest.back() == '.' ||
        rest.find("..") != std::string_view::npos || !std::ranges::all_of(rest, [](char c) {
          return is_alphanumeric(c) || c == '.' || c == '-';
        }))
      return fail(Errc::name_invalid, "a registry is written host or host:port");
  }
  if (!port.empty() &&
      (port.front() != ':' || port.size() < 2 || port.size() > 6 ||
       !std::ranges::all_of(port.substr(1), [](char c) { return c >= '0' && c <= '9'; })))
    return fail(Errc::name_invalid, "a registry's port is a number after one colon");
  if (name.size() > max_registry_bytes)
    return fail(Errc::name_invalid, "the registry's name is too long");
  if (port == ":443") name.resize(name.size() - port.size());
  if (name == "index.docker.io" || name == "registry-1.docker.io") name = "docker.io";
  return name;
}

bool looks_like_registry(std::string_view component) {
  return component == "localhost" || component.find_first_of(".:") != std::string_view::npos;
}

}  // namespace staithe::proxy
