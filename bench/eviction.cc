// bench_eviction: which order of eviction keeps what is used?
//
// Weeks of pulls made from seeds (tests/cache/trace.h) go through a plain LRU, the segmented LRU of
// the product, S3-FIFO, and a policy that knows the future. No disk, no network: the same figures
// on every machine. README.md says what the rows are and holds them.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <fstream>
#include <string>
#include <vector>

#include "bench/report.h"
#include "tests/cache/policies.h"
#include "tests/cache/trace.h"

namespace staithe::bench {
namespace {

using namespace staithe::cache;

std::string percent(double share) { return std::to_string(std::lround(100 * share)) + " %"; }

void add(Report& report, const std::string& name, const std::string& column,
         const HitRatios& ratios, bool floods) {
  report.add({name, "% of objects", 1}, column, 100 * ratios.objects);
  report.add({name, "% of bytes", 1}, column, 100 * ratios.bytes);
  if (!floods) return;
  report.add({name + ", used images", "% of objects", 1}, column, 100 * ratios.used_objects);
  report.add({name + ", used images", "% of bytes", 1}, column, 100 * ratios.used_bytes);
}

struct Options {
  bool quick = false;
  int seeds = 3;
  std::string json;
};

TraceShape shape_of(TraceShape shape, const Options& options, double cache_share) {
  shape.cache_share = cache_share;
  if (options.quick) shape.days = 5;
  return shape;
}

// Every policy on every trace.
Report compare(const Options& options) {
  Report report({"LRU", "staithe", "S3-FIFO", "foresight"});
  const std::vector<double> shares =
      options.quick ? std::vector{0.1} : std::vector{0.05, 0.1, 0.2, 0.5};
  for (const NamedShape& named : trace_shapes()) {
    for (const double share : shares) {
      const TraceShape shape = shape_of(named.shape, options, share);
      const std::string name = std::string(named.name) + ", cache " + percent(share);
      for (int seed = 1; seed <= options.seeds; ++seed) {
        const Trace trace = make_trace(shape, static_cast<std::uint64_t>(seed));
        const bool floods = shape.flood > 0;
        add(report, name, "LRU", run_lru(trace), floods);
        add(report, name, "staithe", run_catalog(trace), floods);
        add(report, name, "S3-FIFO", run_s3_fifo(trace), floods);
        add(report, name, "foresight", run_foresight(trace), floods);
      }
    }
  }
  return report;
}

// The two numbers of Protection, each varied alone.
Report vary(const Options& options) {
  struct Variant {
    std::string name;
    Protection protection;
  };
  std::vector<Variant> variants;
  for (const std::uint64_t share : {50, 70, 80, 90, 95})
    variants.push_back({std::to_string(share) + " %", {.percent = share}});
  for (const std::int64_t minutes : {0, 1, 10, 60, 360})
    variants.push_back({std::to_string(minutes) + " min", {.pull_seconds = 60 * minutes}});
  std::vector<std::string> columns;
  for (const Variant& variant : variants) columns.push_back(variant.name);
  Report report(columns);
  auto shapes = trace_shapes();
  // How long a pull goes on asking is what the time of a pull is to cover.
  for (const auto& [name, seconds] :
       {std::pair("floods, asking for 1 min", 60), std::pair("floods, asking for 30 min", 1800)})
    shapes.push_back({name, {.release_days = 4, .flood = 2, .repeat_seconds = seconds}});
  for (const NamedShape& named : shapes) {
    const TraceShape shape = shape_of(named.shape, options, 0.1);
    for (int seed = 1; seed <= options.seeds; ++seed) {
      const Trace trace = make_trace(shape, static_cast<std::uint64_t>(seed));
      for (const Variant& variant : variants)
        report.add({named.name, "% of bytes, used images", 1}, variant.name,
                   100 * run_catalog(trace, variant.protection).used_bytes);
    }
  }
  return report;
}

int run(int argc, char** argv) {
  Options options;
  CLI::App app("Which order of eviction keeps what is used?");
  app.add_flag("--quick", options.quick, "short traces and one size: does it run?");
  app.add_option("--seeds", options.seeds, "traces of each kind")->check(CLI::Range(1, 100));
  app.add_option("--json", options.json, "write every figure of the comparison to this file");
  CLI11_PARSE(app, argc, argv);
  const Report comparison = compare(options);
  std::printf("Hits, of what pulls asked for:\n\n%s\n", comparison.table().c_str());
  std::printf("The share of the protected and the time of a pull, cache 10 %%:\n\n%s",
              vary(options).table().c_str());
  if (!options.json.empty()) std::ofstream(options.json) << comparison.json() << '\n';
  return 0;
}

}  // namespace
}  // namespace staithe::bench

int main(int argc, char** argv) { return staithe::bench::run(argc, argv); }
