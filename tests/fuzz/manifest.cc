// Manifests of a hostile upstream: the first line is the Content-Type, the rest the document.
#include "proxy/manifests.h"
#include "tests/fuzz/fuzz.h"

void staithe::fuzz::one(std::string_view input) {
  const std::size_t end = input.find('\n');
  if (end == std::string_view::npos) return;
  const std::string bytes(input.substr(end + 1));
  const auto manifest = proxy::check_manifest(input.substr(0, end), bytes, nullptr, "");
  if (!manifest) return;
  check(manifest->bytes == bytes);
  check(manifest->media_type.find_first_of("\r\n") == std::string::npos);
  const auto again = cache::from_record(manifest->digest, cache::to_record(*manifest));
  check(again.has_value() && again->bytes == bytes && again->media_type == manifest->media_type);
}
