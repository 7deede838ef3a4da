// How long does a start take with many blobs, whatever became of the index?
//
// Makes a cache directory of true blobs of a few bytes with its index, starts the real staithed on
// it, and measures: until READY=1 is said to the service manager, until a client that asks again
// and again has a whole blob of it, until index and files have been compared, the longest that
// anybody waited for an answer from READY on until the index is written again, and the memory.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <boost/json/object.hpp>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <fstream>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "bench/load.h"
#include "bench/made_cache.h"
#include "bench/process.h"
#include "bench/reconciled.h"
#include "bench/service_manager.h"
#include "bench/statistics.h"
#include "cache/disk.h"
#include "cache/error.h"
#include "cache/random.h"

namespace staithe::bench {
namespace {

using namespace std::chrono_literals;
using std::chrono::steady_clock;

constexpr double limit_seconds = 0.3;  // for the first hit of 100,000 blobs
constexpr auto ask_interval = 1ms;
// After index and files have been compared, the index is written within a second; 100,000 rows take
// another.
constexpr auto written_patience = 4s;

struct Options {
  std::size_t blobs = 100'000;
  int runs = 5;
  bool quick = false;
  std::string directory = "/tmp";
};

double seconds_since(steady_clock::time_point began) {
  return std::chrono::duration<double>(steady_clock::now() - began).count();
}

struct Figures {
  std::vector<double> ready_seconds;
  std::vector<double> ready_cpu_seconds;
  std::vector<double> hit_seconds;  // empty where the links were lost with the index
  std::vector<double> compared_seconds;
  std::vector<double> longest_wait_milliseconds;
  std::vector<double> rss_mib;
};

class Bench {
 public:
  explicit Bench(const Options& options)
      : options_(options), scratch_(options.directory), manager_(scratch_.path()) {
    std::ofstream config(scratch_.path() / "staithe.toml");
    config << "[listen]\nregistry = [\"127.0.0.1:" << port_ << "\"]\ncontrol = \""
           << socket().string() << "\"\n[cache]\ndirectory = \"" << cache().string()
           << "\"\n[log]\nlevel = \"error\"\n[[registry]]\nname = \"" << made_registry
           << "\"\nupstream = [\"http://127.0.0.1:9\"]\ndefault = true\n";
  }

  std::filesystem::path cache() const { return scratch_.path() / "cache"; }

  // Once, after `prepare`.
  void run(const std::function<void()>& prepare, Figures& figures) {
    prepare();
    const auto began = steady_clock::now();
    Process daemon({program(), "--config", scratch_.path() / "staithe.toml"},
                   scratch_.path() / "log");
    double hit_seconds = 0;
    std::jthread client([&](const std::stop_token& stop) { hit_seconds = first_hit(stop, began); });
    manager_.wait_until_ready(daemon);
    figures.ready_seconds.push_back(seconds_since(began));
    figures.ready_cpu_seconds.push_back(daemon.cpu_seconds());
    double longest = 0;
    std::optional<steady_clock::time_point> compared;
    while (!compared || steady_clock::now() < *compared + written_patience) {
      daemon.must_run();
      const auto asked = steady_clock::now();
      const bool now = is_reconciled(socket().string());
      longest = std::max(longest, seconds_since(asked));
      if (now && !compared) {
        compared = steady_clock::now();
        figures.compared_seconds.push_back(seconds_since(began));
      }
      std::this_thread::sleep_for(ask_interval);
    }
    client.request_stop();
    client.join();
    if (hit_seconds > 0) figures.hit_seconds.push_back(hit_seconds);
    figures.longest_wait_milliseconds.push_back(1000 * longest);
    figures.rss_mib.push_back(daemon.rss_mib());
    daemon.stop(SIGTERM);
  }

 private:
  std::filesystem::path socket() const { return scratch_.path() / "control.sock"; }
  static std::string program() {
    const char* directory = std::getenv("STAITHE_BIN_DIR");
    return std::filesystem::path(directory ? directory : "build/release") / "staithed";
  }
  // 0 if none came. Without its index the daemon asks upstream, who is not there, about the right
  // to each blob.
  double first_hit(const std::stop_token& stop, steady_clock::time_point began) const {
    const std::size_t number = options_.blobs / 2;
    const Request request{
        .method = "GET",
        .target = "/v2/" + made_repository(number) + "/blobs/" + made_digest(number).to_string(),
        .size_bytes = made_bytes(number).size()};
    while (!stop.stop_requested()) {
      try {
        fetch(port_, request);
        return seconds_since(began);
      } catch (const Failure&) {
        std::this_thread::sleep_for(ask_interval);
      }
    }
    return 0;
  }

  Options options_;
  Scratch scratch_;
  std::uint16_t port_ = free_port();
  ServiceManager manager_;
};

void measure(const Options& options) {
  Bench bench(options);
  Figures empty;
  make_cache(bench.cache(), 0);
  bench.run([] {}, empty);
  std::fprintf(stderr, "making %zu blobs\n", options.blobs);
  std::filesystem::remove_all(bench.cache());
  make_cache(bench.cache(), options.blobs);

  const bool cold = !options.quick && drop_page_cache();
  struct Case {
    const char* name;
    std::function<void()> prepare;
  };
  const auto garble = [&] {
    lose_index(bench.cache());
    SeededRandom random(1);
    std::ofstream file(bench.cache() / "index.db", std::ios::binary);
    for (int i = 0; i < 100'000; ++i) file << static_cast<char>(random.next());
  };
  std::vector<Case> cases{{"index good", [] {}},
                          {"index missing", [&] { lose_index(bench.cache()); }},
                          {"index garbage", garble}};
  if (cold) {
    cases.push_back({"index good, page cache empty", [] { drop_page_cache(); }});
    cases.push_back({"index missing, page cache empty", [&] {
                       lose_index(bench.cache());
                       drop_page_cache();
                     }});
  }
  std::printf("%zu blobs, medians of %d runs\n\n", options.blobs, options.runs);
  std::printf("%-32s | %8s | %7s | %11s | %11s | %15s | %7s\n", "start with", "READY s", "CPU s",
              "first hit s", "compared s", "longest wait ms", "RSS MiB");
  bool within = true;
  double rss_mib = 0;
  for (const Case& one : cases) {
    Figures figures;
    for (int i = 0; i < options.runs; ++i) bench.run(one.prepare, figures);
    const double ready = summary_of(figures.ready_seconds).median;
    if (rss_mib == 0) rss_mib = summary_of(figures.rss_mib).median;
    const double hit = summary_of(figures.hit_seconds).median;
    within = within && hit < limit_seconds;
    std::printf("%-32s | %8.3f | %7.2f | ", one.name, ready,
                summary_of(figures.ready_cpu_seconds).median);
    if (figures.hit_seconds.empty()) {
      std::printf("%11s", "-");
    } else {
      std::printf("%11.3f", hit);
    }
    std::printf(" | %11.3f | %15.1f | %7.1f\n", summary_of(figures.compared_seconds).median,
                summary_of(figures.longest_wait_milliseconds).median,
                summary_of(figures.rss_mib).median);
    std::fflush(stdout);
  }
  std::printf("\nlimit for the first hit: %.1f s, %s\n", limit_seconds, within ? "kept" : "BROKEN");
  std::printf("memory: %.0f bytes per object, beside %.1f MiB of an empty daemon\n",
              (rss_mib - empty.rss_mib.front()) * 1024 * 1024 /
                  static_cast<double>(std::max<std::size_t>(options.blobs, 1)),
              empty.rss_mib.front());
  if (!cold) std::printf("without an empty page cache: not asked for, or not allowed here\n");
  if (!within) throw Failure(Errc::cancelled, "a start took longer than the limit");
}

int main(int argc, char** argv) {
  Options options;
  if (const char* temporary = std::getenv("TMPDIR")) options.directory = temporary;
  CLI::App app("How long does a start take with many blobs, whatever became of the index?");
  app.add_option("--blobs", options.blobs, "how many")->check(CLI::Range(1, 10'000'000));
  app.add_option("--runs", options.runs, "runs of each case")->check(CLI::Range(1, 100));
  app.add_flag("--quick", options.quick, "leave the page cache of the machine alone");
  app.add_option("--directory", options.directory, "where the cache is made (default $TMPDIR)");
  CLI11_PARSE(app, argc, argv);
  take_signals();
  try {
    measure(options);
    return 0;
  } catch (const std::exception& e) {
    std::fprintf(stderr, "bench_start: %s\n", e.what());
    return 1;
  }
}

}  // namespace
}  // namespace staithe::bench

int main(int argc, char** argv) { return staithe::bench::main(argc, argv); }
