// The programs that are measured beside each other, each as its users would set it up to be fast.
//
// | name        | what it is                                                                     |
// |-------------|--------------------------------------------------------------------------------|
// | staithe     | build/…/staithed, tags trusted for an hour                                     |
// | nginx       | proxy_cache with sendfile and open_file_cache, 2 workers, no digest check      |
// | nginx-slice | the same by slices of 1 MiB; only asked for ranges                            |
// | varnish     | Varnish with its storage in memory, do_stream; left out where not installed    |
// | registry    | docker-registry as a pull-through cache (proxy.remoteurl)                      |
// | (any)       | another build of staithed, to see what a change does (--also)                  |
// | bare        | the limit: bench_bare, epoll and sendfile, no cache at all                     |
// | bare-memory | the same with small objects in one send() from memory, for rows of requests    |
//
// All but the last two are filled from one docker-registry, the origin.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "bench/image.h"
#include "bench/load.h"
#include "bench/process.h"

namespace staithe::bench {

class Peer {
 public:
  // Starts it; `hit_field` is what the head of an answer from its cache holds, if it says so.
  Peer(std::string name, std::vector<std::string> command, const std::filesystem::path& directory,
       std::uint16_t port, std::string hit_field);

  const std::string& name() const { return name_; }
  std::uint16_t port() const { return port_; }
  Process& process() { return process_; }
  // docker-registry stores behind its answer; until these exist, what it serves is no hit.
  void expect_files(std::vector<std::filesystem::path> files) { files_ = std::move(files); }

  // Pulls every object until it comes from the cache, and compares its digest.
  void warm(const Image& image);
  // The same for one object.
  void fetch_checked(const Object& object);

 private:
  std::string name_;
  std::uint16_t port_;
  std::string hit_field_;
  std::vector<std::filesystem::path> files_;
  Process process_;
};

Request request_for(const Object& object, std::string method);

struct Programs {
  std::filesystem::path staithed;
  std::filesystem::path bare;
  std::filesystem::path relay;     // bench_relay
  std::filesystem::path registry;  // docker-registry
  std::filesystem::path nginx;
  std::filesystem::path varnish;                             // empty: measured without it
  std::map<std::string, std::filesystem::path> others = {};  // further builds of staithed, by name
  // Throws Failure with what to install.
  void must_exist() const;
};

// Of "NAME=FILE", as --also takes them. Throws Failure.
std::map<std::string, std::filesystem::path> others_of(const std::vector<std::string>& texts);

// Staithe's from STAITHE_BIN_DIR, or else beside this program's directory.
Programs find_programs(const std::map<std::string, std::filesystem::path>& others);

// A docker-registry over `root`; its log is `scratch`/origin.log.
std::unique_ptr<Process> start_origin(const Programs& programs, const std::filesystem::path& root,
                                      const std::filesystem::path& scratch, std::uint16_t port,
                                      bool access_log);

// The names of all caches that can be measured here, nginx-slice not among them.
std::vector<std::string> caches(const Programs& programs);

// Starts a cache of what listens on `upstream_port`, empty, in `scratch`/`name`.
std::unique_ptr<Peer> start_cache(const Programs& programs, const std::string& name,
                                  const std::filesystem::path& scratch,
                                  std::uint16_t upstream_port);

// Starts those of `wanted` (all if it is empty), each with a directory of its own in `scratch`.
std::vector<std::unique_ptr<Peer>> start_peers(const Programs& programs, const Image& image,
                                               const std::filesystem::path& scratch,
                                               std::uint16_t origin_port,
                                               const std::vector<std::string>& wanted);

}  // namespace staithe::bench
