// The configurations of the programs that are measured, each as its users would write it to be
// fast. A directory is the program's own and exists; ports are of 127.0.0.1.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

namespace staithe::bench {

// Writes a file; gives its path. Throws Failure if it cannot.
std::filesystem::path write_text(const std::filesystem::path& path, const std::string& text);

std::string loopback_url(std::uint16_t port);

// docker-registry over `root`: a pull-through cache of `remote`, or a registry of its own if that
// is empty. The access log, on its standard output, is how the requests to an origin are counted.
std::string registry_config(const std::filesystem::path& root, std::uint16_t port,
                            const std::string& remote, bool access_log);

// proxy_cache with sendfile and open_file_cache; with `slices` by the slice module, 1 MiB each.
std::string nginx_config(const std::filesystem::path& directory, std::uint16_t port,
                         std::uint16_t upstream_port, bool slices);

// What Varnish does with each request and answer.
std::string varnish_vcl(std::uint16_t upstream_port);

std::string staithe_config(const std::filesystem::path& directory, std::uint16_t port,
                           std::uint16_t upstream_port);

}  // namespace staithe::bench
