#include "cache/image.h"

#include <algorithm>
#include <boost/json.hpp>
#include <set>

namespace staithe::cache {

namespace {

namespace json = boost::json;

// Descriptors stand at the third level; what lies deeper (annotations of annotations) is not read,
// but the parser goes through it.
constexpr std::size_t max_json_depth = 32;
// Upstream's are at most 4 MiB; what else is in the cache was not put there by this release.
constexpr std::size_t max_document_bytes = 8 * 1024 * 1024;

class Collector {
 public:
  explicit Collector(References& references) : references_(references) {}

  void add(std::vector<Descriptor>& to, const json::value* descriptor, std::string_view key) {
    const json::object* object = descriptor ? descriptor->if_object() : nullptr;
    const json::value* text = object ? object->if_contains(key) : nullptr;
    if (!text || !text->is_string()) return;
    const auto digest = Digest::parse(text->get_string());
    if (!digest) return;
    if (seen_.size() == most_references && !seen_.contains(*digest)) {
      references_.cut = true;
      return;
    }
    if (!seen_.insert(*digest).second) return;
    to.push_back({.digest = *digest, .size_bytes = size_of(*object)});
  }
  void add_all(std::vector<Descriptor>& to, const json::value* list, std::string_view key) {
    const json::array* array = list ? list->if_array() : nullptr;
    if (!array) return;
    for (const json::value& item : *array) {
      add(to, &item, key);
      if (references_.cut) return;
    }
  }

 private:
  static std::optional<std::uint64_t> size_of(const json::object& descriptor) {
    const json::value* size = descriptor.if_contains("size");
    if (!size || !size->is_int64() || size->get_int64() < 0) return std::nullopt;
    return static_cast<std::uint64_t>(size->get_int64());
  }

  References& references_;
  std::set<Digest> seen_;  // ordered: see Digest::hash()
};

}  // namespace

References references_of(std::string_view document) {
  References references;
  if (document.size() > max_document_bytes) return references;
  json::parse_options options;
  options.max_depth = max_json_depth;
  boost::system::error_code error;
  const json::value root = json::parse(document, error, {}, options);
  const json::object* object = error ? nullptr : root.if_object();
  if (!object) return references;
  Collector collector(references);
  collector.add_all(references.manifests, object->if_contains("manifests"), "digest");
  collector.add(references.blobs, object->if_contains("config"), "digest");
  collector.add_all(references.blobs, object->if_contains("layers"), "digest");
  collector.add_all(references.blobs, object->if_contains("blobs"), "digest");
  collector.add_all(references.blobs, object->if_contains("fsLayers"), "blobSum");
  return references;
}

std::size_t Image::stored_parts() const {
  return static_cast<std::size_t>(std::ranges::count(parts, true, &Part::stored));
}

}  // namespace staithe::cache
