// bench_cold: what does a miss cost, beside other caches and beside asking the origin itself?
//
// The origin is a docker-registry. Every run finds every cache empty and just started, and does
// what it does directly first and then through each of them, so that a busy minute is everybody's.
// What reached the origin is counted from its access log. README.md says what the columns are.
#include <CLI/CLI.hpp>
#include <chrono>
#include <cstdio>
#include <fstream>
#include <thread>

#include "bench/load.h"
#include "bench/machine.h"
#include "bench/network.h"
#include "bench/peers.h"
#include "bench/process.h"
#include "bench/pull.h"
#include "bench/report.h"
#include "bench/statistics.h"
#include "cache/error.h"

namespace staithe::bench {
namespace {

using namespace std::chrono_literals;
namespace fs = std::filesystem;

constexpr std::uint64_t mib = 1024 * 1024;
constexpr double gib = 1024.0 * static_cast<double>(mib);
constexpr std::uint64_t range_bytes = mib;
constexpr unsigned chunks = 8;
constexpr std::size_t layer_count = 20;
constexpr std::size_t miss_count = 11;
constexpr auto quiet_time = 150ms;
constexpr auto quick_quiet_time = 40ms;
constexpr auto quiet_patience = 30s;
constexpr const char* direct = "direct";

struct Options {
  bool quick = false;
  int runs = 3;
  std::string json;
  std::string filter;
  std::vector<std::string> peers;
  std::vector<std::string> also;
  std::string directory;
  std::string congestion = "reno";
  double delay_milliseconds = 5;
  double link_mbit = 2'000;
};

// What is pulled. The sizes are the question's, or small ones with --quick.
struct Material {
  Object warm_up;  // asked for before the clock runs
  Object large;    // 1 GiB
  Object medium;   // 256 MiB
  std::vector<Object> layers;
  std::vector<Object> misses;
};

Material make_material(const fs::path& root, bool quick) {
  const std::uint64_t part = quick ? mib / 16 : mib;
  std::vector<std::uint64_t> sizes = {64 * 1024, 1024 * part, 256 * part};
  sizes.insert(sizes.end(), layer_count, 20 * part);
  sizes.insert(sizes.end(), miss_count, mib);
  const std::vector<Object> blobs = make_blobs(root, sizes);
  const auto layers = blobs.begin() + 3;
  const auto misses = layers + static_cast<std::ptrdiff_t>(layer_count);
  return {.warm_up = blobs[0],
          .large = blobs[1],
          .medium = blobs[2],
          .layers = {layers, misses},
          .misses = {misses, blobs.end()}};
}

struct Goals {
  std::string seconds = {};
  std::string ratio = {};
  std::string first_byte = {};
  std::string upstream = {};  // of GETs, or of MiB where only those are told
};

// One row of the question.
struct Step {
  std::string name;
  std::vector<Part> parts;
  std::vector<Object> objects;  // that are in the cache afterwards
  unsigned at_once = 1;
  bool link = false;         // over the long link
  bool one_by_one = false;   // each part a pull of its own
  bool ranges = false;       // nginx's slices take part
  bool first_bytes = false;  // tells when they came
  bool whole = true;         // tells how long everything took, and what it cost
  Goals goals = {};
};

Part whole(const Object& object) {
  return {.target = object.target, .size_bytes = object.size_bytes};
}

std::vector<Part> whole(const std::vector<Object>& objects) {
  std::vector<Part> parts;
  for (const Object& object : objects) parts.push_back(whole(object));
  return parts;
}

std::vector<Part> open_ended_chunks(const Object& object) {
  std::vector<Part> parts;
  const std::uint64_t length = object.size_bytes / chunks;
  for (unsigned i = 0; i < chunks; ++i) {
    parts.push_back({.target = object.target,
                     .size_bytes = object.size_bytes,
                     .begin = i * length,
                     .length_bytes = length,
                     .open_ended = true});
  }
  return parts;
}

// An odd place behind the middle: nothing ends there.
Part one_range(const Object& object) {
  return {.target = object.target,
          .size_bytes = object.size_bytes,
          .begin = object.size_bytes / 2 + 12'345,
          .length_bytes = range_bytes};
}

std::vector<Step> steps_for(const Material& all, const std::string& link) {
  const std::vector<Part> crowd(32, whole(all.medium));
  return {
      {.name = "cold 1 GiB",
       .parts = {whole(all.large)},
       .objects = {all.large},
       .goals = {.ratio = "at most 1.1", .upstream = "1"}},
      {.name = "cold 1 GiB, " + link,
       .parts = {whole(all.large)},
       .objects = {all.large},
       .link = true,
       .goals = {.ratio = "at most 1.01", .upstream = "1"}},
      {.name = "cold 20 x 20 MiB, 3 at a time",
       .parts = whole(all.layers),
       .objects = all.layers,
       .at_once = 3,
       .goals = {.ratio = "at most 1.35", .upstream = "20"}},
      {.name = "32 clients, one cold 256 MiB",
       .parts = crowd,
       .objects = {all.medium},
       .at_once = 32,
       .first_bytes = true,
       .goals = {.seconds = "at most 0.8", .first_byte = "at most 10", .upstream = "1"}},
      {.name = "cold 256 MiB as 8 open-ended ranges",
       .parts = open_ended_chunks(all.medium),
       .objects = {all.medium},
       .at_once = chunks,
       .ranges = true,
       .first_bytes = true,
       .goals = {.seconds = "at most 0.2", .upstream = "256 MiB"}},
      {.name = "1 MiB range in a cold 1 GiB",
       .parts = {one_range(all.large)},
       .objects = {all.large},
       .ranges = true,
       .first_bytes = true,
       .whole = false,
       .goals = {.first_byte = "at most 5"}},
      {.name = "miss of 1 MiB",
       .parts = whole(all.misses),
       .objects = all.misses,
       .one_by_one = true,
       .first_bytes = true,
       .whole = false},
  };
}

// What reached the origin, by its access log.
struct Traffic {
  std::uint64_t gets = 0;  // of blobs
  std::uint64_t body_bytes = 0;
};

class AccessLog {
 public:
  explicit AccessLog(fs::path path) : path_(std::move(path)) {}

  // Since the last call. A line is there once its answer has ended.
  Traffic news() {
    std::ifstream file(path_);
    file.seekg(static_cast<std::streamoff>(read_bytes_));
    Traffic traffic{};
    for (std::string line; std::getline(file, line) && !file.eof();) {
      read_bytes_ += line.size() + 1;
      // 127.0.0.1 - - [time] "GET /v2/… HTTP/1.1" 200 1048576 "" "agent"
      const std::size_t request = line.find("\"GET /v2/");
      const std::size_t end = line.find("\" ", request);
      if (request == std::string::npos || end == std::string::npos) continue;
      if (line.substr(request, end - request).find("/blobs/") == std::string::npos) continue;
      std::istringstream rest(line.substr(end + 2));
      unsigned status = 0;
      std::uint64_t bytes = 0;
      if (!(rest >> status >> bytes)) continue;
      ++traffic.gets;
      traffic.body_bytes += bytes;
    }
    return traffic;
  }

 private:
  fs::path path_;
  std::size_t read_bytes_ = 0;
};

struct Outcome {
  Pulled pulled;
  Traffic traffic{};
  double cpu_seconds = 0;  // of the cache
};

class Bench {
 public:
  Bench(const Options& options, const Programs& programs, const Scratch& scratch,
        const std::vector<std::string>& peers)
      : options_(options),
        programs_(programs),
        scratch_(scratch),
        peers_(peers),
        material_(make_material(scratch.path() / "origin", options.quick)),
        origin_port_(free_port()),
        origin_(
            start_origin(programs, scratch.path() / "origin", scratch.path(), origin_port_, true)),
        log_(scratch.path() / "origin.log") {
    settle(scratch.path());
  }

  const Material& material() const { return material_; }

  void measure(const Step& step, Report& report) {
    std::unique_ptr<Process> relay;
    std::uint16_t upstream_port = origin_port_;
    if (step.link) {
      upstream_port = free_port();
      relay = std::make_unique<Process>(
          std::vector<std::string>{
              programs_.relay, std::to_string(upstream_port), std::to_string(origin_port_),
              std::to_string(options_.delay_milliseconds), std::to_string(options_.link_mbit)},
          scratch_.path() / "relay.log");
      relay->wait_for_port(upstream_port);
    }
    pull_all(step, upstream_port);  // The origin's files come into the page cache.
    for (int run = 0; run < (options_.quick ? 1 : options_.runs); ++run) {
      settle(scratch_.path());
      pull(upstream_port, {whole(material_.warm_up)}, 1);
      log_.news();
      const double alone = add(step, direct, {.pulled = pull_all(step, upstream_port)}, 0, report);
      for (const std::string& name : peers_) {
        if (!takes_part(step, name)) continue;
        add(step, name, through(step, name, upstream_port), alone, report);
      }
    }
  }

 private:
  // The module cuts what is whole into a thousand requests. A quick run needs the others only
  // once, where all of them are.
  bool takes_part(const Step& step, const std::string& name) const {
    if (name == "nginx-slice" && !step.ranges) return false;
    return !options_.quick || name == "staithe" || (step.ranges && step.whole);
  }

  Pulled pull_all(const Step& step, std::uint16_t port) {
    if (!step.one_by_one) return pull(port, step.parts, step.at_once);
    Pulled all;
    for (const Part& part : step.parts) {
      const Pulled one = pull(port, {part}, 1);
      all.seconds += one.seconds;
      all.parts.push_back(one.parts.front());
    }
    return all;
  }

  Outcome through(const Step& step, const std::string& name, std::uint16_t upstream_port) {
    const auto directory = scratch_.path() / "run";
    fs::create_directory(directory);
    Outcome outcome;
    {
      const auto peer = start_cache(programs_, name, directory, upstream_port);
      pull(peer->port(), {whole(material_.warm_up)}, 1);
      await_quiet(*peer);
      log_.news();
      outcome.cpu_seconds = peer->process().cpu_seconds();
      outcome.pulled = pull_all(step, peer->port());
      await_quiet(*peer);
      outcome.cpu_seconds = peer->process().cpu_seconds() - outcome.cpu_seconds;
      outcome.traffic = log_.news();
      if (name != "nginx" && name != "nginx-slice" && name != "varnish" && name != "registry") {
        if (options_.quick) check_traffic(step, *peer, outcome.traffic);
        check_stored(step, *peer);
      }
    }
    fs::remove_all(directory);
    settle(scratch_.path());
    return outcome;
  }

  // What the client does not wait for goes on behind it: fills that were left, second fetches,
  // storing. It is over when neither end has work any more.
  void await_quiet(Peer& peer) {
    const auto deadline = std::chrono::steady_clock::now() + quiet_patience;
    double before = -1;
    for (;;) {
      const double now = peer.process().cpu_seconds() + origin_->cpu_seconds();
      if (now == before || std::chrono::steady_clock::now() > deadline) return;
      before = now;
      std::this_thread::sleep_for(options_.quick ? quick_quiet_time : quiet_time);
      peer.process().must_run();
    }
  }

  // Each object came from the origin once, in however many parts.
  static void check_traffic(const Step& step, const Peer& peer, const Traffic& traffic) {
    if (static_cast<double>(traffic.body_bytes) == bytes_asked(step)) return;
    throw Failure(Errc::upstream_nonsense, peer.name() + " took " +
                                               std::to_string(traffic.body_bytes) +
                                               " bytes from the origin: " + step.name);
  }

  // Every byte from the store, by its digest, and nothing of it from the origin.
  void check_stored(const Step& step, Peer& peer) {
    for (const Object& object : step.objects) peer.fetch_checked(object);
    await_quiet(peer);
    if (const Traffic again = log_.news(); again.gets > 0)
      throw Failure(Errc::storage_failed, peer.name() + " asked the origin " +
                                              std::to_string(again.gets) +
                                              " times more for what it has");
  }

  // Gives the seconds.
  double add(const Step& step, const std::string& peer, const Outcome& outcome, double alone,
             Report& report) {
    const auto tell = [&](const char* unit, int decimals, double value, const std::string& goal) {
      report.add({.name = step.name, .unit = unit, .decimals = decimals, .goal = goal}, peer,
                 value);
    };
    const Pulled& pulled = outcome.pulled;
    const bool is_direct = peer == direct;
    if (options_.quick) {
      tell("right answers", 0, static_cast<double>(pulled.parts.size()), {});
      return pulled.seconds;
    }
    if (step.whole) {
      tell("s", 3, pulled.seconds, step.goals.seconds);
      if (!is_direct) tell("/ direct", 2, pulled.seconds / alone, step.goals.ratio);
    }
    if (step.first_bytes) {
      std::vector<double> first;
      for (const Arrival& part : pulled.parts)
        first.push_back(1000 *
                        (part.first_byte_seconds - (step.one_by_one ? 0 : part.asked_seconds)));
      tell("first byte, median ms", 1, quantile(first, 0.5), step.goals.first_byte);
      if (first.size() > 1) tell("first byte, last ms", 1, quantile(first, 1), {});
    }
    if (step.ranges) tell("status", 0, pulled.parts.front().status, "206");
    if (is_direct) return pulled.seconds;
    const double bytes = static_cast<double>(outcome.traffic.body_bytes);
    const bool goal_in_mib = step.goals.upstream.ends_with("MiB");
    tell("upstream GETs", 0, static_cast<double>(outcome.traffic.gets),
         goal_in_mib ? std::string() : step.goals.upstream);
    tell("upstream MiB", 0, bytes / static_cast<double>(mib),
         goal_in_mib ? step.goals.upstream : std::string());
    if (step.whole && bytes > 0)
      tell("CPU s/GiB", 3, outcome.cpu_seconds / (bytes_asked(step) / gib), {});
    return pulled.seconds;
  }

  static double bytes_asked(const Step& step) {
    double bytes = 0;
    for (const Object& object : step.objects) bytes += static_cast<double>(object.size_bytes);
    return bytes;
  }

  const Options& options_;
  const Programs& programs_;
  const Scratch& scratch_;
  const std::vector<std::string>& peers_;
  Material material_;
  std::uint16_t origin_port_;
  std::unique_ptr<Process> origin_;
  AccessLog log_;
};

std::vector<std::string> peers_of(const Options& options, const Programs& programs) {
  std::vector<std::string> names = caches(programs);
  names.insert(std::ranges::find(names, "nginx") + 1, "nginx-slice");
  for (const std::string& name : options.peers) {
    if (std::ranges::find(names, name) == names.end())
      throw Failure(Errc::config, "there is no peer called " + name + ", or it is not installed");
  }
  return options.peers.empty() ? names : options.peers;
}

void compare(const Options& options, const std::string& network) {
  const Programs programs = find_programs(others_of(options.also));
  programs.must_exist();
  const auto say = [](const std::string& what) { std::fprintf(stderr, "%s\n", what.c_str()); };
  const std::vector<std::string> peers = peers_of(options, programs);
  std::vector<std::string> columns = {direct};
  columns.insert(columns.end(), peers.begin(), peers.end());
  Report report(columns);
  note_machine(programs, options.directory, report);
  report.note("network", network);
  report.note("runs", std::to_string(options.runs));
  report.note("load before", load_average());

  say("making the blobs");
  const Scratch scratch(options.directory);
  Bench bench(options, programs, scratch, peers);
  std::array<char, 64> link;
  std::snprintf(link.data(), link.size(), "%g ms, %g Gbit/s", options.delay_milliseconds,
                options.link_mbit / 1000);
  for (const Step& step : steps_for(bench.material(), link.data())) {
    if (step.name.find(options.filter) == std::string::npos) continue;
    say(step.name);
    bench.measure(step, report);
  }
  report.note("load after", load_average());
  report.print(options.json);
}

int main(int argc, char** argv) {
  Options options;
  options.directory = beside_this_program();
  CLI::App app("What does a miss cost, beside other caches and beside asking the origin itself?");
  app.add_flag("--quick", options.quick, "small blobs and counts only: does all answer right?");
  app.add_option("--runs", options.runs, "runs of each row and cache")->check(CLI::Range(1, 100));
  app.add_option("--json", options.json, "write every figure to this file");
  app.add_option("--filter", options.filter, "only rows whose name contains this");
  app.add_option("--peers", options.peers, "only these: staithe nginx nginx-slice varnish registry")
      ->delimiter(',');
  app.add_option("--also", options.also, "NAME=FILE: another build of staithed beside this one");
  app.add_option("--delay", options.delay_milliseconds, "ms of the long link, each way")
      ->check(CLI::Range(0, 1'000));
  app.add_option("--rate", options.link_mbit, "Mbit/s of the long link")
      ->check(CLI::Range(1, 100'000));
  app.add_option("--directory", options.directory,
                 "where 4 GiB may be written (default: the build's)");
  app.add_option("--congestion", options.congestion,
                 "TCP's congestion control, for all of them alike; host: as the machine has it");
  CLI11_PARSE(app, argc, argv);
  take_signals();
  try {
    compare(options, own_loopback(options.congestion));
    return 0;
  } catch (const std::exception& e) {
    std::fprintf(stderr, "bench_cold: %s\n", e.what());
    return 1;
  }
}

}  // namespace
}  // namespace staithe::bench

int main(int argc, char** argv) { return staithe::bench::main(argc, argv); }
