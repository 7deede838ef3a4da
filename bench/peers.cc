#include "bench/peers.h"

#include <algorithm>
#include <chrono>
#include <fstream>
#include <sstream>
#include <thread>

#include "cache/error.h"

namespace staithe::bench {

namespace {

using namespace std::chrono_literals;
namespace fs = std::filesystem;

constexpr auto warm_patience = 60s;

fs::path write_text(const fs::path& path, const std::string& text) {
  std::ofstream file(path);
  file << text;
  if (!file.flush()) throw Failure(Errc::storage_failed, "cannot write " + path.string());
  return path;
}

std::string url(std::uint16_t port) { return "http://127.0.0.1:" + std::to_string(port); }

std::string registry_config(const fs::path& root, std::uint16_t port, const std::string& remote) {
  std::ostringstream text;
  text << "version: 0.1\n"
       << "log: {level: error, accesslog: {disabled: true}}\n"
       << "storage:\n"
       << "  cache: {blobdescriptor: inmemory}\n"
       << "  filesystem: {rootdirectory: " << root.string() << "}\n"
       << "http: {addr: '127.0.0.1:" << port << "'}\n";
  if (!remote.empty()) text << "proxy: {remoteurl: '" << remote << "'}\n";
  return text.str();
}

// Each directive beside the defaults: reuseport spreads few connections over the workers,
// keepalive_requests lets connections live as long as the others' do.
std::string nginx_config(const fs::path& directory, std::uint16_t port, std::uint16_t origin_port) {
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
       << "      proxy_pass " << url(origin_port) << ";\n"
       << "      proxy_http_version 1.1;\n      proxy_set_header Connection \"\";\n"
       << "      proxy_cache bench;\n      proxy_cache_valid 200 1h;\n      proxy_cache_lock on;\n"
       << "      add_header X-Cache $upstream_cache_status;\n"
       << "    }\n  }\n}\n";
  return text.str();
}

std::string staithe_config(const fs::path& directory, std::uint16_t port,
                           std::uint16_t origin_port) {
  std::ostringstream text;
  text << "[listen]\nregistry = [\"127.0.0.1:" << port << "\"]\n"
       << "control = \"" << (directory / "control.sock").string() << "\"\n"
       << "[cache]\ndirectory = \"" << (directory / "cache").string() << "\"\n"
       << "[freshness]\ntag_ttl = \"1h\"\n"
       << "[[registry]]\nname = \"bench.local\"\nupstream = [\"" << url(origin_port) << "\"]\n"
       << "default = true\n";
  return text.str();
}

// What bench_bare serves: target, file, media type and digest of each object.
std::string bare_list(const Image& image) {
  std::ostringstream text;
  for (const Object& object : image.all())
    text << object.target << '\t' << object.file.string() << '\t' << object.media_type << '\t'
         << object.digest.to_string() << '\n';
  return text.str();
}

std::vector<fs::path> files_of_registry(const fs::path& root, const Image& image) {
  std::vector<fs::path> files;
  const auto layers = root / "docker/registry/v2/repositories/bench/image/_layers/sha256";
  files.push_back(layers / image.large.digest.hex() / "link");
  for (const Object& blob : image.small) files.push_back(layers / blob.digest.hex() / "link");
  return files;
}

}  // namespace

Request request_for(const Object& object, std::string method) {
  const bool manifest = object.media_type == manifest_type;
  return {.method = std::move(method),
          .target = object.target,
          .accept = manifest ? std::string(manifest_type) + ", */*" : std::string("*/*"),
          .size_bytes = object.size_bytes};
}

Peer::Peer(std::string name, std::vector<std::string> command, const fs::path& directory,
           std::uint16_t port, std::string hit_field)
    : name_(std::move(name)),
      port_(port),
      hit_field_(std::move(hit_field)),
      process_(std::move(command), directory / (name_ + ".log")) {
  process_.wait_for_port(port_);
}

void Peer::fetch_checked(const Object& object) {
  const auto deadline = std::chrono::steady_clock::now() + warm_patience;
  for (;;) {
    const Fetched fetched = fetch(port_, request_for(object, "GET"));
    if (fetched.digest != object.digest)
      throw Failure(Errc::digest_invalid, name_ + " sent other bytes for " + object.target);
    if (hit_field_.empty() || fetched.head.find(hit_field_) != std::string::npos) return;
    if (std::chrono::steady_clock::now() > deadline)
      throw Failure(Errc::upstream_nonsense, name_ + " does not serve " + object.target +
                                                 " from its cache:\n" + fetched.head);
    process_.must_run();
    std::this_thread::sleep_for(20ms);
  }
}

void Peer::warm(const Image& image) {
  for (const Object& object : image.all()) fetch_checked(object);
  const auto deadline = std::chrono::steady_clock::now() + warm_patience;
  for (const fs::path& file : files_) {
    while (!fs::exists(file)) {
      if (std::chrono::steady_clock::now() > deadline)
        throw Failure(Errc::storage_failed, name_ + " has not stored " + file.string());
      process_.must_run();
      std::this_thread::sleep_for(20ms);
    }
  }
  if (!files_.empty()) {
    for (const Object& object : image.all()) fetch_checked(object);  // Now from its own storage.
  }
}

void Programs::must_exist() const {
  const auto check = [](const fs::path& program, const std::string& remedy) {
    if (program.empty() || !fs::exists(program))
      throw Failure(Errc::config,
                    (program.empty() ? "a program" : program.string()) + " is missing: " + remedy);
  };
  check(staithed, "run ./dev build, or name its directory in STAITHE_BIN_DIR");
  check(bare, "run ./dev build");
  for (const auto& [name, program] : others) check(program, "--also names a build of staithed");
  check(registry, "apt-get install docker-registry");
  check(nginx, "apt-get install nginx-light");
}

std::unique_ptr<Process> start_origin(const Programs& programs, const fs::path& root,
                                      const fs::path& scratch, std::uint16_t port) {
  const auto config = write_text(scratch / "origin.yml", registry_config(root, port, ""));
  auto origin = std::make_unique<Process>(
      std::vector<std::string>{programs.registry, "serve", config}, scratch / "origin.log");
  origin->wait_for_port(port);
  return origin;
}

std::vector<std::unique_ptr<Peer>> start_peers(const Programs& programs, const Image& image,
                                               const fs::path& scratch, std::uint16_t origin_port,
                                               const std::vector<std::string>& wanted) {
  std::vector<std::unique_ptr<Peer>> peers;
  const auto start = [&](const std::string& name, auto command_of, std::string hit_field) -> Peer* {
    if (!wanted.empty() && std::ranges::find(wanted, name) == wanted.end()) return nullptr;
    const auto directory = scratch / name;
    fs::create_directory(directory);
    const std::uint16_t port = free_port();
    std::vector<std::string> command = command_of(directory, port);
    return peers
        .emplace_back(
            std::make_unique<Peer>(name, std::move(command), directory, port, std::move(hit_field)))
        .get();
  };
  using Command = std::vector<std::string>;

  const auto staithe = [&](const fs::path& program) {
    return [&, program](const fs::path& directory, std::uint16_t port) -> Command {
      const auto config =
          write_text(directory / "staithe.toml", staithe_config(directory, port, origin_port));
      return {program, "--config", config};
    };
  };
  const std::string staithe_hit = "Cache-Status: staithe; hit\r\n";
  start("staithe", staithe(programs.staithed), staithe_hit);
  for (const auto& [name, program] : programs.others) start(name, staithe(program), staithe_hit);
  start(
      "nginx",
      [&](const fs::path& directory, std::uint16_t port) -> Command {
        const auto config =
            write_text(directory / "nginx.conf", nginx_config(directory, port, origin_port));
        return {programs.nginx, "-p", directory, "-e", "stderr", "-c", config};
      },
      "X-Cache: HIT\r\n");
  Peer* registry = start(
      "registry",
      [&](const fs::path& directory, std::uint16_t port) -> Command {
        const auto config = write_text(directory / "config.yml",
                                       registry_config(directory / "data", port, url(origin_port)));
        return {programs.registry, "serve", config};
      },
      "");
  if (registry) registry->expect_files(files_of_registry(scratch / "registry" / "data", image));
  const auto bare = [&](std::vector<std::string> more) {
    return [&programs, &image, more = std::move(more)](const fs::path& directory,
                                                       std::uint16_t port) -> Command {
      const auto list = write_text(directory / "objects", bare_list(image));
      Command command = {programs.bare, std::to_string(port), list};
      command.insert(command.end(), more.begin(), more.end());
      return command;
    };
  };
  start("bare", bare({}), "");
  start("bare-memory", bare({"--memory"}), "");
  for (const std::string& name : wanted) {
    if (std::ranges::none_of(peers, [&](const auto& peer) { return peer->name() == name; }))
      throw Failure(Errc::config, "there is no peer called " + name);
  }
  return peers;
}

}  // namespace staithe::bench
