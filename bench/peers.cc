#include "bench/peers.h"

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <sstream>
#include <thread>

#include "bench/configs.h"
#include "cache/error.h"

namespace staithe::bench {

namespace {

using namespace std::chrono_literals;
namespace fs = std::filesystem;

constexpr auto warm_patience = 60s;
constexpr const char* varnish_storage = "4G";  // Twice what is ever in it.

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

std::map<std::string, fs::path> others_of(const std::vector<std::string>& texts) {
  std::map<std::string, fs::path> others;
  for (const std::string& text : texts) {
    const std::size_t equals = text.find('=');
    if (equals == std::string::npos) throw Failure(Errc::config, "--also takes NAME=FILE");
    others.emplace(text.substr(0, equals), fs::absolute(text.substr(equals + 1)));
  }
  return others;
}

Programs find_programs(const std::map<std::string, fs::path>& others) {
  const auto here = fs::canonical("/proc/self/exe").parent_path();
  const char* directory = std::getenv("STAITHE_BIN_DIR");
  return {.staithed = (directory ? fs::path(directory) : here.parent_path()) / "staithed",
          .bare = here / "bench_bare",
          .relay = here / "bench_relay",
          .registry = find_program("docker-registry"),
          .nginx = find_program("nginx"),
          .varnish = find_program("varnishd"),
          .others = others};
}

std::unique_ptr<Process> start_origin(const Programs& programs, const fs::path& root,
                                      const fs::path& scratch, std::uint16_t port,
                                      bool access_log) {
  const auto config =
      write_text(scratch / "origin.yml", registry_config(root, port, "", access_log));
  auto origin = std::make_unique<Process>(
      std::vector<std::string>{programs.registry, "serve", config}, scratch / "origin.log");
  origin->wait_for_port(port);
  return origin;
}

std::vector<std::string> caches(const Programs& programs) {
  std::vector<std::string> names = {"staithe"};
  for (const auto& [name, program] : programs.others) names.push_back(name);
  names.emplace_back("nginx");
  if (!programs.varnish.empty()) names.emplace_back("varnish");
  names.emplace_back("registry");
  return names;
}

std::unique_ptr<Peer> start_cache(const Programs& programs, const std::string& name,
                                  const fs::path& scratch, std::uint16_t upstream_port) {
  const auto directory = scratch / name;
  fs::create_directory(directory);
  const std::uint16_t port = free_port();
  const auto started = [&](std::vector<std::string> command, std::string hit_field) {
    return std::make_unique<Peer>(name, std::move(command), directory, port, std::move(hit_field));
  };
  if (name == "nginx" || name == "nginx-slice") {
    const auto config =
        write_text(directory / "nginx.conf",
                   nginx_config(directory, port, upstream_port, name == "nginx-slice"));
    return started({programs.nginx, "-p", directory, "-e", "stderr", "-c", config},
                   "X-Cache: HIT\r\n");
  }
  if (name == "varnish") {
    const auto vcl = write_text(directory / "bench.vcl", varnish_vcl(upstream_port));
    // Without its jail, whose user could not read this directory; without its command line's port.
    return started({programs.varnish, "-F", "-j", "none", "-n", directory / "n", "-f", vcl, "-a",
                    "127.0.0.1:" + std::to_string(port), "-T", "none", "-s",
                    std::string("malloc,") + varnish_storage},
                   "X-Cache: HIT\r\n");
  }
  if (name == "registry") {
    const auto config =
        write_text(directory / "config.yml",
                   registry_config(directory / "data", port, loopback_url(upstream_port), false));
    return started({programs.registry, "serve", config}, "");
  }
  const auto other = programs.others.find(name);
  if (name != "staithe" && other == programs.others.end())
    throw Failure(Errc::config, "there is no peer called " + name);
  const auto config =
      write_text(directory / "staithe.toml", staithe_config(directory, port, upstream_port));
  return started({name == "staithe" ? programs.staithed : other->second, "--config", config},
                 "Cache-Status: staithe; hit\r\n");
}

std::vector<std::unique_ptr<Peer>> start_peers(const Programs& programs, const Image& image,
                                               const fs::path& scratch, std::uint16_t origin_port,
                                               const std::vector<std::string>& wanted) {
  std::vector<std::unique_ptr<Peer>> peers;
  const auto is_wanted = [&](const std::string& name) {
    return wanted.empty() || std::ranges::find(wanted, name) != wanted.end();
  };
  for (const std::string& name : caches(programs)) {
    if (!is_wanted(name)) continue;
    auto& peer = peers.emplace_back(start_cache(programs, name, scratch, origin_port));
    if (name == "registry")
      peer->expect_files(files_of_registry(scratch / "registry" / "data", image));
  }
  const auto bare = [&](const std::string& name, std::vector<std::string> more) {
    if (!is_wanted(name)) return;
    const auto directory = scratch / name;
    fs::create_directory(directory);
    const std::uint16_t port = free_port();
    std::vector<std::string> command = {programs.bare, std::to_string(port),
                                        write_text(directory / "objects", bare_list(image))};
    command.insert(command.end(), more.begin(), more.end());
    peers.emplace_back(std::make_unique<Peer>(name, std::move(command), directory, port, ""));
  };
  bare("bare", {});
  bare("bare-memory", {"--memory"});
  for (const std::string& name : wanted) {
    if (std::ranges::none_of(peers, [&](const auto& peer) { return peer->name() == name; }))
      throw Failure(Errc::config, "there is no peer called " + name + ", or it is not installed");
  }
  return peers;
}

}  // namespace staithe::bench
