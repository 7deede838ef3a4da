#include "bench/configs.h"

#include <fstream>
#include <sstream>

#include "cache/error.h"

namespace staithe::bench {

namespace fs = std::filesystem;

fs::path write_text(const fs::path& path, const std::string& text) {
  std::ofstream file(path);
  file << text;
  if (!file.flush()) throw Failure(Errc::storage_failed, "cannot write " + path.string());
  return path;
}

std::string loopback_url(std::uint16_t port) { return "http://127.0.0.1:" + std::to_string(port); }

std::string registry_config(const fs::path& root, std::uint16_t port, const std::string& remote,
                            bool access_log) {
  std::ostringstream text;
  text << "version: 0.1\n"
       << "log: {level: error, accesslog: {disabled: " << (access_log ? "false" : "true") << "}}\n"
       << "storage:\n"
       << "  cache: {blobdescriptor: inmemory}\n"
       << "  filesystem: {rootdirectory: " << root.string() << "}\n"
       << "http: {addr: '127.0.0.1:" << port << "'}\n";
  if (!remote.empty()) text << "proxy: {remoteurl: '" << remote << "'}\n";
  return text.str();
}

// Each directive beside the defaults: reuseport spreads connections over the workers without a
// lock, keepalive_requests lets connections live as long as the others' do, tcp_nopush fills
// packets, and open_file_cache spares an open() for each hit.
std::string nginx_config(const fs::path& directory, std::uint16_t port, std::uint16_t upstream_port,
                         bool slices) {
  std::ostringstream text;
  text << "daemon off;\nuser root;\nworker_processes 2;\n"
       << "pid " << (directory / "nginx.pid").string() << ";\n"
       << "error_log stderr error;\n"
       << "events { worker_connections 4096; }\n"
       << "http {\n"
       << "  access_log off;\n  sendfile on;\n  tcp_nopush on;\n  tcp_nodelay on;\n"
       << "  keepalive_requests 1000000000;\n"
       << "  open_file_cache max=10000 inactive=1h;\n  open_file_cache_valid 1h;\n";
  for (const char* kind : {"client_body", "fastcgi", "uwsgi", "scgi", "proxy"})
    text << "  " << kind << "_temp_path " << (directory / kind).string() << ";\n";
  text << "  proxy_cache_path " << (directory / "cache").string()
       << " levels=1:2 keys_zone=bench:10m inactive=1d max_size=100g use_temp_path=off;\n"
       << "  server {\n"
       << "    listen 127.0.0.1:" << port << " reuseport;\n"
       << "    location / {\n"
       << "      proxy_pass " << loopback_url(upstream_port) << ";\n"
       << "      proxy_http_version 1.1;\n      proxy_set_header Connection \"\";\n"
       << "      proxy_cache bench;\n      proxy_cache_valid 200 206 1h;\n"
       << "      proxy_cache_lock on;\n      proxy_cache_lock_timeout 1h;\n"
       << "      proxy_cache_lock_age 1h;\n"
       << "      add_header X-Cache $upstream_cache_status;\n";
  if (slices)
    text << "      slice 1m;\n      proxy_cache_key $uri$is_args$args$slice_range;\n"
         << "      proxy_set_header Range $slice_range;\n";
  text << "    }\n  }\n}\n";
  return text.str();
}

// The answer goes on to clients while it comes, to all of them. Varnish has no digests to check.
std::string varnish_vcl(std::uint16_t upstream_port) {
  std::ostringstream text;
  text << "vcl 4.1;\n"
       << "backend default { .host = \"127.0.0.1\"; .port = \"" << upstream_port << "\"; }\n"
       << "sub vcl_backend_response {\n"
       << "  set beresp.do_stream = true;\n  set beresp.ttl = 1h;\n}\n"
       << "sub vcl_deliver {\n"
       << "  if (obj.hits > 0) { set resp.http.X-Cache = \"HIT\"; }\n"
       << "  else { set resp.http.X-Cache = \"MISS\"; }\n}\n";
  return text.str();
}

std::string staithe_config(const fs::path& directory, std::uint16_t port,
                           std::uint16_t upstream_port) {
  std::ostringstream text;
  text << "[listen]\nregistry = [\"127.0.0.1:" << port << "\"]\n"
       << "control = \"" << (directory / "control.sock").string() << "\"\n"
       << "[cache]\ndirectory = \"" << (directory / "cache").string() << "\"\n"
       << "[freshness]\ntag_ttl = \"1h\"\n"
       << "[[registry]]\nname = \"bench.local\"\nupstream = [\"" << loopback_url(upstream_port)
       << "\"]\ndefault = true\n";
  return text.str();
}

}  // namespace staithe::bench
