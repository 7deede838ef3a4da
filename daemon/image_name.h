// Names of images as users write them: "redis", "team/app:1", "host:5000/app@sha256:...". Pure.
#pragma once

#include <string>
#include <string_view>

#include "cache/error.h"

namespace staithe::daemon {

struct ImageName {
  std::string host;        // as the name gives it, lower case; "docker.io" if it gives none
  std::string registry;    // whose credential it is: all names of Docker Hub are "docker.io"
  std::string repository;  // with "library/" where Docker Hub wants it
  std::string reference;   // tag or digest; empty if the name has none

  bool operator==(const ImageName&) const = default;
};

// Errc::name_invalid with a sentence for what no client would pull.
Result<ImageName> parse_image_name(std::string_view text);

}  // namespace staithe::daemon
