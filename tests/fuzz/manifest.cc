// Manifests of a hostile upstream: the first line is the Content-Type, the rest the document. What
// is accepted has one meaning, one digest and one media type (threats T12, T14).
#include "proxy/manifest_check.h"

#include <boost/json/parse.hpp>

#include "tests/fuzz/fuzz.h"

namespace staithe::fuzz {

namespace {

// What is stored and read back is what was accepted.
void check_record(const cache::Manifest& manifest) {
  const std::string record = cache::to_record(manifest);
  const auto again = cache::from_record(manifest.digest, record);
  check(again && again->bytes == manifest.bytes && again->media_type == manifest.media_type);
  check(!cache::from_record(manifest.digest, record + "\n"));
  check(
      !cache::from_record(manifest.digest, std::string_view(record).substr(0, record.size() - 1)));
}

}  // namespace

void one(std::string_view input) {
  Input parts(input);
  const std::string_view content_type = parts.line();
  const std::string bytes(parts.rest());
  const auto manifest = proxy::check_manifest(content_type, bytes, nullptr, "");
  const cache::Digest true_digest = cache::digest_of(cache::Algorithm::sha256, bytes);
  const cache::Digest other = cache::digest_of(cache::Algorithm::sha256, bytes + "x");
  check(!proxy::check_manifest(content_type, bytes, &other, ""));
  check(!proxy::check_manifest(content_type, bytes, nullptr, other.to_string()));
  // With the right digest the answer is the same.
  check(proxy::check_manifest(content_type, bytes, &true_digest, true_digest.to_string())
            .has_value() == manifest.has_value());
  if (!manifest) {
    check(is_printable(manifest.error().detail));
    return;
  }
  check(manifest->bytes == bytes && manifest->digest == true_digest);
  check(is_printable(manifest->media_type) && !manifest->media_type.empty());
  const auto document = boost::json::parse(bytes);
  const auto& object = document.as_object();
  check(!object.contains("manifests") ||
        (!object.contains("layers") && !object.contains("config")));
  if (const auto* type = object.if_contains("mediaType"); type && type->is_string())
    check(std::string_view(manifest->media_type).starts_with(std::string_view(type->as_string())));
  check_record(*manifest);
}

}  // namespace staithe::fuzz
