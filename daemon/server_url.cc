#include "daemon/server_url.h"

#include <algorithm>
#include <array>
#include <optional>

#include "cache/escape.h"
#include "proxy/reference.h"

namespace staithe::daemon {
namespace {

constexpr std::string_view hub = "docker.io";
constexpr std::array<std::string_view, 3> acr_suffixes{".azurecr.io", ".azurecr.cn", ".azurecr.us"};

std::unexpected<Error> refuse(std::string_view what) {
  return fail(Errc::name_invalid, std::string(what) +
                                      ": a server is written host, host:port or "
                                      "https://host[:port][/repository]");
}

// Drops "https://" or "http://" in any case. The scheme says nothing about whose credential it is.
// Nothing for another scheme.
std::optional<std::string_view> without_scheme(std::string_view text) {
  const std::size_t end = text.find("://");
  if (end == std::string_view::npos) return text;
  std::string scheme(text.substr(0, end));
  std::ranges::transform(scheme, scheme.begin(), [](char c) {
    return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c;
  });
  if (scheme != "https" && scheme != "http") return std::nullopt;
  return text.substr(end + 3);
}

bool is_api_version(std::string_view component) { return component == "v1" || component == "v2"; }

}  // namespace

Result<ServerUrl> parse_server_url(std::string_view text) {
  if (text.empty()) return refuse("the server's name is empty");
  if (text.size() > kMaxServerUrlBytes) return refuse("the server's name is too long");
  // Before anything is split: what is hidden here must not survive in any part.
  if (!std::ranges::all_of(text, [](char c) { return c > ' ' && c <= '~'; }))
    return refuse("the server's name holds a space, a control character or more than ASCII");
  if (text.find_first_of("@?#%\\") != std::string_view::npos)
    return refuse("the server's name holds a user, a query or an escape");
  const auto rest = without_scheme(text);
  if (!rest) return refuse("the server's URL is neither https nor http");

  const std::size_t slash = std::min(rest->find('/'), rest->size());
  auto registry = proxy::parse_registry(rest->substr(0, slash));
  if (!registry)
    return refuse("\"" + printable(text, 80) + "\" names no server (" + registry.error().detail +
                  ")");
  ServerUrl url{.registry = *std::move(registry), .repository = {}, .note = {}};
  std::string_view path = rest->substr(std::min(slash + 1, rest->size()));
  if (path.ends_with('/')) path.remove_suffix(1);
  if (path.empty()) return url;
  // "host/v1" is docker's old way to write the server alone; "host/v2/app" is an image in v2.
  const std::string_view first = path.substr(0, path.find('/'));
  if (is_api_version(first)) {
    const std::string_view note = path.substr(std::min(first.size() + 1, path.size()));
    if (note.empty()) return url;
    if (url.registry == hub) {
      if (!proxy::is_repository(note)) return refuse("what follows Docker Hub's name is no name");
      url.note = note;
      return url;
    }
  }
  if (!proxy::is_repository(path)) return refuse("what follows the server's name is no repository");
  url.repository = path;
  return url;
}

std::string to_server_url(std::string_view registry) {
  if (registry == hub) return "https://index.docker.io/v1/";
  return "https://" + std::string(registry);
}

bool is_acr_host(std::string_view registry) {
  if (const std::size_t colon = registry.rfind(':'); colon != std::string_view::npos)
    registry = registry.substr(0, colon);
  return std::ranges::any_of(acr_suffixes, [&](std::string_view suffix) {
    return registry.size() > suffix.size() && registry.ends_with(suffix);
  });
}

}  // namespace staithe::daemon
