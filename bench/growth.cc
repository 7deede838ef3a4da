// What does each operation cost as the cache grows from 1,000 to 1,000,000 objects, and are hits
// answered as fast from 100,000 objects as from 1,000?
//
// The first half asks the catalog and the index alone, in this process. The second half starts the
// real staithed on a cache of true blobs and asks for them over 64 connections.
#include <malloc.h>

#include <CLI/CLI.hpp>
#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <boost/json/serialize.hpp>
#include <chrono>
#include <cstdio>
#include <ctime>
#include <fstream>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "bench/load.h"
#include "bench/made_cache.h"
#include "bench/plot.h"
#include "bench/process.h"
#include "bench/reconciled.h"
#include "bench/service_manager.h"
#include "bench/statistics.h"
#include "cache/catalog.h"
#include "cache/error.h"
#include "cache/index.h"
#include "cache/random.h"

namespace staithe::bench {
namespace {

constexpr std::int64_t now = 1'700'000'000;
constexpr std::size_t changes_at_once = 64;  // as the store writes them

struct Options {
  bool quick = false;
  int runs = 5;
  std::string directory = "/tmp";
  std::string json;
  std::string svg;
};

// What this thread has had of the processor: steadier than the clock on a machine with others.
double processor_nanoseconds() {
  timespec time{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) * 1e9 + static_cast<double>(time.tv_nsec);
}

double nanoseconds_since(double began) { return processor_nanoseconds() - began; }

cache::Digest random_digest(Random& random) {
  std::array<std::byte, 32> bytes;
  for (std::byte& byte : bytes) byte = static_cast<std::byte>(random.next());
  return cache::Digest(cache::Algorithm::sha256, bytes);
}

std::string repository(std::size_t number) { return "bench.local/" + made_repository(number); }

// One size of the cache, all operations: nanoseconds each, by name, in the order measured.
using Costs = std::vector<std::pair<std::string, double>>;

Costs costs_at(std::size_t objects, const std::filesystem::path& directory) {
  SeededRandom random(objects);
  cache::Index::Contents contents;
  std::vector<cache::Digest> digests;
  for (std::size_t i = 0; i < objects; ++i) digests.push_back(random_digest(random));
  std::vector<cache::Change> rows;
  for (std::size_t i = 0; i < objects; ++i) {
    rows.emplace_back(cache::ObjectRow{.digest = digests[i],
                                       .kind = cache::ObjectKind::blob,
                                       .size_bytes = 5000,
                                       .used_order = static_cast<std::int64_t>(i + 1),
                                       .used_unix_seconds = now,
                                       .pulled_unix_seconds = now});
    rows.emplace_back(cache::LinkRow{repository(i), digests[i], now});
  }
  Costs costs;
  const auto each = [&](const std::string& name, std::size_t times, const auto& work) {
    const auto began = processor_nanoseconds();
    for (std::size_t i = 0; i < times; ++i) work(i);
    costs.emplace_back(name, nanoseconds_since(began) / static_cast<double>(times));
  };
  std::filesystem::create_directories(directory);
  cache::Index index(directory);
  index.apply(rows);
  rows = {};
  const auto share = static_cast<double>(objects);
  auto began = processor_nanoseconds();
  contents = index.load();
  costs.emplace_back("read of the index, per object", nanoseconds_since(began) / share);
  const std::size_t before = ::mallinfo2().uordblks + ::mallinfo2().hblkhd;
  auto catalog = std::make_unique<cache::Catalog>();
  {
    cache::Index::Contents copy = contents;
    began = processor_nanoseconds();
    catalog->restore(std::move(copy));
    costs.emplace_back("restore, per object", nanoseconds_since(began) / share);
  }
  const std::size_t after = ::mallinfo2().uordblks + ::mallinfo2().hblkhd;
  contents = {};

  constexpr std::size_t times = 20'000;
  std::vector<std::size_t> picks;
  for (std::size_t i = 0; i < times; ++i) picks.push_back(random.next() % objects);
  std::size_t seen = 0;
  each("find", times, [&](std::size_t i) { seen += catalog->find(digests[picks[i]]) ? 1 : 0; });
  each("link age", times, [&](std::size_t i) {
    seen += catalog->linked(repository(picks[i]), digests[picks[i]]) ? 1 : 0;
  });
  each("touch", times, [&](std::size_t i) { catalog->touch(digests[picks[i]], now + 1); });
  catalog->forget_changes();
  each("add", times, [&](std::size_t) {
    catalog->add(random_digest(random), cache::ObjectKind::blob, 5000, true, now);
  });
  catalog->forget_changes();
  each("eviction decision and drop", times, [&](std::size_t) {
    const auto victims =
        cache::choose_victims(catalog->oldest_first([](const cache::Digest&) { return true; }), 1);
    for (const cache::Digest& victim : victims) catalog->drop(victim);
  });
  const auto changes = catalog->take_changes();
  each("totals for status", times, [&](std::size_t) { seen += catalog->totals().blobs; });
  each("list of all, per object", 3, [&](std::size_t) { seen += catalog->digests().size(); });
  costs.back().second /= share;
  began = processor_nanoseconds();
  std::size_t written = 0;
  for (; written + changes_at_once <= std::min<std::size_t>(changes.size(), 6400);
       written += changes_at_once)
    index.apply({changes.begin() + static_cast<std::ptrdiff_t>(written),
                 changes.begin() + static_cast<std::ptrdiff_t>(written + changes_at_once)});
  costs.emplace_back("row of the index written",
                     nanoseconds_since(began) / static_cast<double>(written));
  costs.emplace_back("memory, bytes per object", static_cast<double>(after - before) / share);
  if (seen == 0) throw Failure(Errc::storage_failed, "nothing was found");
  return costs;
}

// Hits per second over 64 connections, every blob in turn.
double hits_per_second(const std::filesystem::path& directory, std::size_t blobs,
                       std::chrono::milliseconds window) {
  const std::uint16_t port = free_port();
  {
    std::ofstream config(directory / "staithe.toml");
    config << "[listen]\nregistry = [\"127.0.0.1:" << port << "\"]\ncontrol = \""
           << (directory / "control.sock").string() << "\"\n[cache]\ndirectory = \""
           << (directory / "cache").string() << "\"\n[log]\nlevel = \"error\"\n"
           << "[[registry]]\nname = \"" << made_registry
           << "\"\nupstream = [\"http://127.0.0.1:9\"]\ndefault = true\n";
  }
  const char* binaries = std::getenv("STAITHE_BIN_DIR");
  const ServiceManager manager(directory);
  Process daemon({std::filesystem::path(binaries ? binaries : "build/release") / "staithed",
                  "--config", directory / "staithe.toml"},
                 directory / "log");
  manager.wait_until_ready(daemon);
  // What a start leaves to do for later is bench_start's question, and would be done in the window.
  while (!is_reconciled((directory / "control.sock").string())) {
    daemon.must_run();
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  LoadPlan plan{.port = port, .connections = 64, .requests = {}};
  for (std::size_t i = 0; i < blobs; ++i)
    plan.requests.push_back(
        {.method = "GET",
         .target = "/v2/" + made_repository(i) + "/blobs/" + made_digest(i).to_string(),
         .size_bytes = made_bytes(i).size()});
  plan.count = blobs;  // Once each, so that the first read after a start has verified them.
  run_load(plan);
  plan.count = 0;
  plan.window = window;
  const LoadResult result = run_load(plan);
  daemon.stop(SIGTERM);
  return static_cast<double>(result.answers) / result.seconds;
}

void measure(const Options& options) {
  std::vector<std::size_t> sizes = {1'000, 10'000, 100'000, 1'000'000};
  if (options.quick) sizes = {1'000, 10'000};
  const Scratch scratch(options.directory);
  std::vector<Series> series;
  for (const std::size_t size : sizes) {
    std::fprintf(stderr, "%zu objects\n", size);
    std::vector<Costs> runs;
    for (int run = 0; run < options.runs; ++run) {
      runs.push_back(costs_at(size, scratch.path() / "index"));
      std::filesystem::remove_all(scratch.path() / "index");
    }
    for (std::size_t i = 0; i < runs.front().size(); ++i) {
      std::vector<double> values;
      for (const Costs& run : runs) values.push_back(run[i].second);
      if (i >= series.size()) series.push_back({.name = runs.front()[i].first, .points = {}});
      series[i].points.emplace_back(static_cast<double>(size), summary_of(values).median);
    }
  }
  std::printf("processor nanoseconds per operation, medians of %d runs\n\n%-32s", options.runs,
              "objects");
  for (const std::size_t size : sizes) std::printf(" | %9zu", size);
  std::printf("\n");
  boost::json::object document;
  for (const Series& one : series) {
    std::printf("%-32s", one.name.c_str());
    boost::json::array values;
    for (const auto& [size, value] : one.points) {
      std::printf(" | %9.0f", value);
      values.push_back({{"objects", size}, {"value", value}});
    }
    std::printf("\n");
    document[one.name] = std::move(values);
  }

  const std::size_t many = options.quick ? 2'000 : 100'000;
  std::vector<std::unique_ptr<Scratch>> caches;
  for (const std::size_t blobs : {std::size_t{1'000}, many}) {
    caches.push_back(std::make_unique<Scratch>(options.directory));
    make_cache(caches.back()->path() / "cache", blobs);
  }
  // In turns, so that a machine that changes its mind changes it for both.
  std::vector<double> few_rates;
  std::vector<double> among_rates;  // the same few, among many others
  std::vector<double> many_rates;
  const std::chrono::milliseconds window(options.quick ? 100 : 2'000);
  for (int run = 0; run < options.runs; ++run) {
    few_rates.push_back(hits_per_second(caches[0]->path(), 1'000, window));
    among_rates.push_back(hits_per_second(caches[1]->path(), 1'000, window));
    many_rates.push_back(hits_per_second(caches[1]->path(), many, window));
  }
  const double few = summary_of(few_rates).median;
  const double among = summary_of(among_rates).median;
  const double most = summary_of(many_rates).median;
  std::printf(
      "\nhits per second, 64 connections: %.0f with 1,000 blobs, %.0f of 1,000 among %zu: %.3f\n"
      "of all %zu, far more than are kept in memory: %.0f\n",
      few, among, many, among / few, many, most);
  document["hits per second"] = {
      {{"objects", 1'000}, {"value", few}},
      {{"objects", many}, {"value", among}},
      {{"objects", many}, {"asked for", many}, {"value", most}},
  };
  if (!options.json.empty()) {
    std::ofstream file(options.json);
    file << boost::json::serialize(document) << "\n";
  }
  if (options.svg.empty()) return;
  std::erase_if(series, [](const Series& one) { return one.name.starts_with("memory"); });
  Plot{.title = "Cost of an operation as the cache grows",
       .x_label = "objects in the cache",
       .y_label = "processor nanoseconds",
       .series = std::move(series)}
      .write(options.svg);
}

int main(int argc, char** argv) {
  Options options;
  if (const char* temporary = std::getenv("TMPDIR")) options.directory = temporary;
  CLI::App app("What does each operation cost as the cache grows?");
  app.add_option("--runs", options.runs, "runs of each size")->check(CLI::Range(1, 100));
  app.add_flag("--quick", options.quick, "small, and no figure of use: only that it works");
  app.add_option("--directory", options.directory, "where caches are made (default $TMPDIR)");
  app.add_option("--json", options.json, "a file for every figure");
  app.add_option("--svg", options.svg, "a file for the plot: docs/growth.svg");
  CLI11_PARSE(app, argc, argv);
  if (options.quick) options.runs = 1;
  take_signals();
  try {
    measure(options);
    return 0;
  } catch (const std::exception& e) {
    std::fprintf(stderr, "bench_growth: %s\n", e.what());
    return 1;
  }
}

}  // namespace
}  // namespace staithe::bench

int main(int argc, char** argv) { return staithe::bench::main(argc, argv); }
