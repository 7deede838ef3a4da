// bench_hit: how fast is a hit, beside other caches and beside the limit of the machine?
//
// Large blobs, manifests by digest and by tag, small blobs; rates, latencies, CPU time, memory and
// system calls. README.md says what the columns are and holds the figures of one machine.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <fstream>
#include <thread>

#include "bench/load.h"
#include "bench/machine.h"
#include "bench/network.h"
#include "bench/peers.h"
#include "bench/process.h"
#include "bench/report.h"
#include "bench/statistics.h"
#include "cache/error.h"

namespace staithe::bench {
namespace {

using namespace std::chrono_literals;

constexpr double mib = 1024 * 1024;
constexpr double gib = 1024 * mib;
constexpr std::uint64_t large_bytes = 1024 * 1024 * 1024;
constexpr std::uint64_t quick_large_bytes = 8 * 1024 * 1024;
constexpr auto idle_pause = 500ms;  // from the start to the figure for an idle server
// More than this share of a core for other programs, and a run says little about ours.
constexpr double tolerated_cores = 0.1;
constexpr auto disturbed_pause = 1s;
constexpr std::uint64_t traced_requests = 1'000;
constexpr std::uint64_t traced_blobs = 4;

struct Options {
  bool quick = false;
  bool pinned = false;
  int runs = 5;
  int window_milliseconds = 2'000;
  int patience_seconds = 120;
  std::string json;
  std::string filter;
  std::vector<std::string> peers;
  std::vector<std::string> also;
  std::string directory;
  std::string congestion = "reno";
  std::string network;  // what became of that
};

// One row of the question: what is asked, by how many at once, and which figures count.
struct Step {
  std::string name;
  std::vector<Request> requests;
  unsigned connections;
  bool bytes;   // MiB/s and CPU per GiB; else requests per second and CPU per request
  bool rate;    // false: only the latency tells something
  bool memory;  // the server's memory with these clients
  bool small;   // bare-memory takes part
  std::string rate_goal;
  std::string other_goal;  // of CPU per GiB, or of the latency
  std::string memory_goal = {};
};

std::vector<Request> requests_for(const std::vector<Object>& objects, const char* method) {
  std::vector<Request> requests;
  for (const Object& object : objects) requests.push_back(request_for(object, method));
  return requests;
}

std::vector<Step> steps_for(const Image& image) {
  const auto large = requests_for({image.large}, "GET");
  const auto manifest = requests_for({image.manifest}, "GET");
  const auto tag = requests_for({image.tag}, "HEAD");
  const auto small = requests_for(image.small, "GET");
  return {
      {.name = "1 GiB blob, 1 client",
       .requests = large,
       .connections = 1,
       .bytes = true,
       .rate = true,
       .memory = false,
       .small = false,
       .rate_goal = "0.97 of bare",
       .other_goal = {}},
      {.name = "1 GiB blob, 8 clients",
       .requests = large,
       .connections = 8,
       .bytes = true,
       .rate = true,
       .memory = false,
       .small = false,
       .rate_goal = "at least nginx",
       .other_goal = "at most 0.12"},
      {.name = "1 GiB blob, 64 clients",
       .requests = large,
       .connections = 64,
       .bytes = true,
       .rate = true,
       .memory = true,
       .small = false,
       .rate_goal = "at least nginx",
       .other_goal = {},
       .memory_goal = "at most 24"},
      {.name = "manifest by digest, 64 connections",
       .requests = manifest,
       .connections = 64,
       .bytes = false,
       .rate = true,
       .memory = false,
       .small = true,
       .rate_goal = "at least 100,000",
       .other_goal = {}},
      {.name = "manifest by digest, 1 connection",
       .requests = manifest,
       .connections = 1,
       .bytes = false,
       .rate = false,
       .memory = false,
       .small = true,
       .rate_goal = {},
       .other_goal = "at most 65"},
      {.name = "HEAD manifest by tag, 64 connections",
       .requests = tag,
       .connections = 64,
       .bytes = false,
       .rate = true,
       .memory = false,
       .small = true,
       .rate_goal = "at least 110,000",
       .other_goal = {}},
      {.name = "blobs of 4-64 KiB, 64 connections",
       .requests = small,
       .connections = 64,
       .bytes = false,
       .rate = true,
       .memory = false,
       .small = true,
       .rate_goal = "at least 55,000",
       .other_goal = {}},
  };
}

bool takes_part(const Peer& peer, const Step& step) {
  return step.small || peer.name() != "bare-memory";
}

// One run of a step at one peer.
struct Run {
  LoadResult load;
  double cpu_seconds = 0;   // of the server
  double rss_mib = 0;       // of the server, with its clients there
  double others_cores = 0;  // what programs that are no part of this took meanwhile
};

Run run_once(const Step& step, Peer& peer, Process& origin, const Options& options) {
  Run run;
  LoadPlan plan{.port = peer.port(), .connections = step.connections, .requests = step.requests};
  plan.window = std::chrono::milliseconds(options.window_milliseconds);
  const auto others_cpu = [&] {
    return machine_cpu_seconds() - own_cpu_seconds() - peer.process().cpu_seconds() -
           origin.cpu_seconds();
  };
  plan.pinned = options.pinned;
  plan.opened = [&] {
    run.others_cores = others_cpu();
    run.cpu_seconds = peer.process().cpu_seconds();
  };
  plan.closed = [&] {
    run.cpu_seconds = peer.process().cpu_seconds() - run.cpu_seconds;
    run.others_cores = others_cpu() - run.others_cores;
    run.rss_mib = peer.process().rss_mib();
  };
  run.load = run_load(plan);
  run.others_cores /= run.load.seconds;
  return run;
}

// Runs that other programs disturb are thrown away, until patience is at its end for all of them
// together; then they count, and the worst of them is told.
class Quiet {
 public:
  explicit Quiet(const Options& options) : left_(std::chrono::seconds(options.patience_seconds)) {}

  template <class F>
  Run find(F run_it) {
    for (;;) {
      const auto begun = std::chrono::steady_clock::now();
      Run run = run_it();
      if (run.others_cores <= tolerated_cores || left_ <= 0s) {
        worst_cores_ = std::max(worst_cores_, run.others_cores);
        return run;
      }
      std::this_thread::sleep_for(disturbed_pause);
      left_ -= std::chrono::steady_clock::now() - begun;
      ++repeated_;
    }
  }
  std::string told() const {
    std::array<char, 100> text;
    std::snprintf(text.data(), text.size(), "at most %.2f cores in any run; %d runs repeated",
                  worst_cores_, repeated_);
    return text.data();
  }

 private:
  std::chrono::steady_clock::duration left_;
  double worst_cores_ = 0;
  int repeated_ = 0;
};

void add_figures(const Step& step, const std::string& peer, const Run& run, Report& report) {
  const auto answers = static_cast<double>(run.load.answers);
  const auto bytes = static_cast<double>(run.load.body_bytes);
  const auto add = [&](const char* unit, int decimals, double value, const std::string& goal) {
    report.add({.name = step.name, .unit = unit, .decimals = decimals, .goal = goal}, peer, value);
  };
  if (step.bytes) {
    add("MiB/s", 0, bytes / mib / run.load.seconds, step.rate_goal);
    add("CPU s/GiB", 3, run.cpu_seconds / (bytes / gib), step.other_goal);
    if (step.memory) add("RSS MiB", 1, run.rss_mib, step.memory_goal);
    return;
  }
  const auto& latencies = run.load.latencies_microseconds;
  if (step.rate) add("requests/s", 0, answers / run.load.seconds, step.rate_goal);
  add("p50 us", 0, quantile(latencies, 0.5), step.rate ? "" : step.other_goal);
  add("p99 us", 0, quantile(latencies, 0.99), {});
  add("CPU us/request", 1, run.cpu_seconds * 1e6 / answers, {});
}

// Counts instead of rates: every server gives exactly what was asked for.
void check(const Step& step, Peer& peer, Report& report) {
  LoadPlan plan{.port = peer.port(), .connections = step.connections, .requests = step.requests};
  plan.count = 2ULL * std::max<std::uint64_t>(step.connections, step.requests.size());
  std::uint64_t expected_bytes = 0;
  for (std::uint64_t i = 0; i < plan.count; ++i) {
    const Request& request = step.requests[i % step.requests.size()];
    if (request.method == "GET") expected_bytes += request.size_bytes;
  }
  const LoadResult result = run_load(plan);
  if (result.answers != plan.count || result.body_bytes != expected_bytes)
    throw Failure(Errc::upstream_nonsense,
                  peer.name() + " gave " + std::to_string(result.body_bytes) + " bytes in " +
                      std::to_string(result.answers) + " answers, not " +
                      std::to_string(expected_bytes) + " in " + std::to_string(plan.count));
  report.add({.name = step.name, .unit = "right answers"}, peer.name(),
             static_cast<double>(result.answers));
}

void count_calls(const Step& step, Peer& peer, const Scratch& scratch, Report& report) {
  LoadPlan plan{.port = peer.port(), .connections = 1, .requests = step.requests};
  plan.count = step.bytes ? traced_blobs : traced_requests;
  run_load({.port = peer.port(), .connections = 1, .requests = step.requests, .count = 2});
  Strace strace(peer.process().pids(), scratch.path());
  run_load(plan);
  std::string names;
  double total = 0;
  for (const auto& [name, calls] : strace.stop()) {
    const double each = static_cast<double>(calls) / static_cast<double>(plan.count);
    if (each < 0.01) continue;
    total += each;
    std::array<char, 80> text;
    std::snprintf(text.data(), text.size(), " %s %.1f", name.c_str(), each);
    names += text.data();
  }
  report.add({.name = step.name + ", 1 by 1", .unit = "system calls", .decimals = 1}, peer.name(),
             total);
  report.note("system calls, " + step.name + ", " + peer.name(),
              names.substr(names.empty() ? 0 : 1));
}

void compare(const Options& options) {
  const Programs programs = find_programs(others_of(options.also));
  programs.must_exist();
  const auto say = [](const std::string& what) { std::fprintf(stderr, "%s\n", what.c_str()); };

  say("making the image");
  const Scratch scratch(options.directory);
  const auto root = scratch.path() / "origin";
  const Image image = make_image(root, options.quick ? quick_large_bytes : large_bytes);

  say("starting the servers");
  const std::uint16_t origin_port = free_port();
  const auto origin = start_origin(programs, root, scratch.path(), origin_port, false);
  const auto peers = start_peers(programs, image, scratch.path(), origin_port, options.peers);
  std::vector<std::string> names;
  for (const auto& peer : peers) names.push_back(peer->name());
  Report report(names);
  note_machine(programs, options.directory, report);
  report.note("network", options.network);
  report.note("runs", std::to_string(options.runs));
  report.note("clients", options.pinned ? "on the last processor" : "anywhere");
  report.note("window", std::to_string(options.window_milliseconds) + " ms");
  report.note("load before", load_average());

  std::this_thread::sleep_for(idle_pause);
  for (const auto& peer : peers) {
    report.add(
        {.name = "idle, just started", .unit = "RSS MiB", .decimals = 1, .goal = "at most 12"},
        peer->name(), peer->process().rss_mib());
  }

  say("filling the caches");
  for (const auto& peer : peers) peer->warm(image);
  settle(scratch.path());

  std::vector<Step> steps = steps_for(image);
  std::erase_if(
      steps, [&](const Step& step) { return step.name.find(options.filter) == std::string::npos; });
  Quiet quiet(options);
  for (const Step& step : steps) {
    say(step.name);
    // A B C A B C: whatever drifts, drifts for all.
    for (int i = 0; i < (options.quick ? 1 : options.runs); ++i) {
      for (const auto& peer : peers) {
        if (!takes_part(*peer, step)) continue;
        peer->process().must_run();
        if (options.quick) {
          check(step, *peer, report);
        } else {
          const Run found = quiet.find([&] { return run_once(step, *peer, *origin, options); });
          add_figures(step, peer->name(), found, report);
        }
      }
    }
  }
  if (!options.quick && !find_program("strace").empty()) {
    say("counting system calls");
    for (const Step& step : steps) {
      if (step.connections == 8 || (step.connections == 64 && step.bytes)) continue;
      if (!step.rate) continue;  // The same requests as the row before.
      for (const auto& peer : peers) {
        if (takes_part(*peer, step)) count_calls(step, *peer, scratch, report);
      }
    }
  }
  report.note("load after", load_average());
  report.note("other programs", quiet.told());
  report.print(options.json);
}

int main(int argc, char** argv) {
  Options options;
  options.directory = beside_this_program();
  CLI::App app("How fast is a hit, beside other caches and beside the limit of the machine?");
  app.add_flag("--quick", options.quick, "a small blob and counts only: does all answer right?");
  app.add_flag("--pin", options.pinned,
               "keep the clients on the last processor: less spread, but a server of several "
               "threads has one to itself less");
  app.add_option("--runs", options.runs, "runs of each row and server")->check(CLI::Range(1, 100));
  app.add_option("--window", options.window_milliseconds, "milliseconds of one run")
      ->check(CLI::Range(100, 60'000));
  app.add_option("--patience", options.patience_seconds,
                 "seconds that may be spent on repeating runs which other programs disturbed")
      ->check(CLI::Range(0, 86'400));
  app.add_option("--json", options.json, "write every figure to this file");
  app.add_option("--filter", options.filter, "only rows whose name contains this");
  app.add_option("--peers", options.peers,
                 "only these: staithe nginx varnish registry bare bare-memory")
      ->delimiter(',');
  app.add_option("--also", options.also, "NAME=FILE: another build of staithed beside this one");
  app.add_option("--directory", options.directory,
                 "where 4 GiB may be written (default: the build's)");
  app.add_option("--congestion", options.congestion,
                 "TCP's congestion control, for all of them alike; host: as the machine has it");
  CLI11_PARSE(app, argc, argv);
  take_signals();
  try {
    options.network = own_loopback(options.congestion);
    compare(options);
    return 0;
  } catch (const std::exception& e) {
    std::fprintf(stderr, "bench_hit: %s\n", e.what());
    return 1;
  }
}

}  // namespace
}  // namespace staithe::bench

int main(int argc, char** argv) { return staithe::bench::main(argc, argv); }
