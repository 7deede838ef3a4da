#include "daemon/image_name.h"

#include <algorithm>
#include <utility>

#include "cache/escape.h"
#include "proxy/reference.h"

namespace staithe::daemon {
namespace {

constexpr std::size_t max_image_bytes = 1024;
constexpr std::string_view hub = "docker.io";

std::unexpected<Error> refuse(std::string_view text, std::string_view why) {
  return fail(Errc::name_invalid, "\"" + printable(text, 120) + "\" is not an image's name (" +
                                      std::string(why) + "): write registry/repository:tag");
}

}  // namespace

Result<ImageName> parse_image_name(std::string_view text) {
  if (text.empty()) return refuse(text, "it is empty");
  if (text.size() > max_image_bytes) return refuse(text, "it is too long");
  ImageName image{
      .host = std::string(hub), .registry = std::string(hub), .repository = {}, .reference = {}};
  std::string_view rest = text;
  const std::size_t slash = rest.find('/');
  if (slash != std::string_view::npos && proxy::looks_like_registry(rest.substr(0, slash))) {
    image.host = rest.substr(0, slash);
    std::ranges::transform(image.host, image.host.begin(), [](char c) {
      return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c;
    });
    auto registry = proxy::parse_registry(image.host);
    if (!registry) return refuse(text, registry.error().detail);
    image.registry = *std::move(registry);
    rest.remove_prefix(slash + 1);
  }
  // A name may have a tag and a digest; then the digest says which image it is.
  if (const std::size_t at = rest.find('@'); at != std::string_view::npos) {
    image.reference = rest.substr(at + 1);
    if (const auto digest = proxy::Reference::parse(image.reference); !digest || !digest->digest())
      return refuse(text, "what follows @ is no digest");
    rest = rest.substr(0, at);
  }
  if (const std::size_t colon = rest.find(':'); colon != std::string_view::npos) {
    const std::string_view tag = rest.substr(colon + 1);
    if (!proxy::is_tag(tag)) return refuse(text, "what follows the colon is no tag");
    if (image.reference.empty()) image.reference = tag;
    rest = rest.substr(0, colon);
  }
  if (image.registry == hub && rest.find('/') == std::string_view::npos)
    image.repository = "library/";
  image.repository += rest;
  if (!proxy::is_repository(image.repository)) return refuse(text, "the repository is not a name");
  return image;
}

}  // namespace staithe::daemon
