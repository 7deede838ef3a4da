// The grammar of names (OCI distribution spec 1.1, "Pulling manifests"): pure.
#pragma once

#include <string>
#include <string_view>
#include <variant>

#include "cache/digest.h"
#include "cache/error.h"

namespace staithe::proxy {

// [a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(\/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*, at most 255 characters.
bool is_repository(std::string_view text);
// [a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}
bool is_tag(std::string_view text);

// What follows "/manifests/": a tag or a digest.
class Reference {
 public:
  // Errc::digest_invalid if it has a colon but is no digest, name_invalid if it is no tag.
  static Result<Reference> parse(std::string_view text);

  const std::string* tag() const { return std::get_if<std::string>(&value_); }
  const cache::Digest* digest() const { return std::get_if<cache::Digest>(&value_); }
  std::string to_string() const;

 private:
  explicit Reference(std::variant<std::string, cache::Digest> value) : value_(std::move(value)) {}
  std::variant<std::string, cache::Digest> value_;
};

// A registry as image names write it: host[:port], lower case, without the port 443, and Docker
// Hub's other names as "docker.io". Errc::name_invalid if it is none.
Result<std::string> parse_registry(std::string_view text);
// True if the first component of an image name is a registry: it has a dot or a colon, or is
// "localhost" (the rule of every client).
bool looks_like_registry(std::string_view component);

}  // namespace staithe::proxy
