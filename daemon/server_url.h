// Server URLs as docker, podman, Nomad and their libraries hand them to a credential helper:
// "host", "host:port", "https://host[:port][/path]". Pure.
//
// The text comes from whoever can name an image, so it is one well-formed host or it is refused
// (threat T21): no control characters, no line feeds that would make two lines of one, no userinfo
// that hides another host, no query, nothing beyond ASCII.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "cache/error.h"

namespace staithe::daemon {

inline constexpr std::size_t kMaxServerUrlBytes = 1024;

struct ServerUrl {
  std::string registry;    // as image names write it; all names of Docker Hub are "docker.io"
  std::string repository;  // from the path (Nomad before 1.0 asks for "https://host/repository")
  // Docker Desktop's and `docker login`'s notes beside the password of Docker Hub, for
  // "https://index.docker.io/v1/access-token": "access-token". They are nobody's credential.
  std::string note;

  bool operator==(const ServerUrl&) const = default;
};

// Errc::name_invalid with a sentence that quotes at most what is printable, and no userinfo.
Result<ServerUrl> parse_server_url(std::string_view text);

// The form under which docker lists and asks: "https://host", "https://index.docker.io/v1/".
std::string to_server_url(std::string_view registry);

// True for a login server of Azure's clouds by its name alone: "contoso.azurecr.io", with or
// without a port.
bool is_acr_host(std::string_view registry);

}  // namespace staithe::daemon
