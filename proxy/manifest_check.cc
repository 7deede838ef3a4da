#include "proxy/manifest_check.h"

#include <algorithm>
#include <boost/json/parse.hpp>
#include <optional>
#include <utility>

#include "cache/escape.h"

namespace staithe::proxy {

namespace {

constexpr std::size_t max_media_type_bytes = 255;
constexpr std::size_t max_json_depth = 64;

std::string_view without_parameters(std::string_view media_type) {
  media_type = media_type.substr(0, media_type.find(';'));
  while (media_type.ends_with(' ') || media_type.ends_with('\t')) media_type.remove_suffix(1);
  return media_type;
}

}  // namespace

Result<cache::Manifest> check_manifest(std::string_view content_type, std::string bytes,
                                       const cache::Digest* wanted, std::string_view told_digest) {
  boost::system::error_code error;
  boost::json::parse_options options;
  options.max_depth = max_json_depth;
  const auto document = boost::json::parse(bytes, error, {}, options);
  if (error || !document.is_object())
    return fail(Errc::upstream_nonsense, "upstream's manifest is not a JSON object");
  const auto& object = document.as_object();
  if (object.contains("manifests") && (object.contains("layers") || object.contains("config")))
    return fail(
        Errc::upstream_nonsense,
        "upstream's manifest is an index and an image manifest at once; which of them it is "
        "would depend on the reader, so it is refused");
  std::string own_type;
  if (const auto* type = object.if_contains("mediaType"); type && type->is_string())
    own_type = std::string_view(type->as_string());
  std::string media_type(content_type);
  if (media_type.empty()) media_type = own_type;
  if (media_type.empty() || media_type.size() > max_media_type_bytes ||
      !std::ranges::all_of(media_type, [](char c) { return c >= ' ' && c < '\x7f'; }))
    return fail(Errc::upstream_nonsense, "upstream sent a manifest without a usable Content-Type");
  if (!own_type.empty() && without_parameters(media_type) != own_type)
    return fail(Errc::upstream_nonsense, "upstream sent a manifest of type " +
                                             printable(own_type, 100) + " as " +
                                             printable(media_type, 100) + ", so it is refused");
  std::optional<cache::Digest> told;
  if (!told_digest.empty()) {
    auto parsed = cache::Digest::parse(told_digest);
    if (!parsed)
      return fail(Errc::upstream_nonsense, "upstream sent a Docker-Content-Digest that is none");
    told = *parsed;
  }
  const cache::Algorithm algorithm = wanted ? wanted->algorithm()
                                     : told ? told->algorithm()
                                            : cache::Algorithm::sha256;
  const cache::Digest digest = cache::digest_of(algorithm, bytes);
  if (wanted && digest != *wanted)
    return fail(Errc::upstream_nonsense, "upstream sent a manifest of digest " +
                                             digest.to_string() + " for " + wanted->to_string());
  if (!wanted && told && digest != *told)
    return fail(Errc::upstream_nonsense, "upstream sent a manifest of digest " +
                                             digest.to_string() + " and called it " +
                                             told->to_string());
  return cache::Manifest{
      .digest = digest, .media_type = std::move(media_type), .bytes = std::move(bytes)};
}

}  // namespace staithe::proxy
