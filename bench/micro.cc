// What do the small steps of a request cost, each alone? See Google Benchmark's --help for what can
// be chosen.
#include <benchmark/benchmark.h>

#include <array>
#include <filesystem>
#include <string>
#include <vector>

#include "bench/process.h"
#include "cache/catalog.h"
#include "cache/digest.h"
#include "cache/eviction.h"
#include "cache/extents.h"
#include "cache/index.h"
#include "cache/random.h"
#include "proxy/range.h"
#include "proxy/route.h"

namespace staithe::bench {
namespace {

constexpr std::int64_t now = 1'700'000'000;
constexpr std::size_t picks = 4096;  // a power of two

const std::string digest_text =
    "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";

cache::Digest random_digest(Random& random) {
  std::array<std::byte, 32> bytes;
  for (std::byte& byte : bytes) byte = static_cast<std::byte>(random.next());
  return cache::Digest(cache::Algorithm::sha256, bytes);
}

void parse_blob_route(benchmark::State& state) {
  const std::string target = "/v2/contoso.azurecr.io/team/app/blobs/" + digest_text;
  for (auto _ : state) benchmark::DoNotOptimize(proxy::parse_route(target));
}
BENCHMARK(parse_blob_route);

void parse_tag_route(benchmark::State& state) {
  const std::string target = "/v2/team/app/manifests/v1.2.3?ns=contoso.azurecr.io";
  for (auto _ : state) benchmark::DoNotOptimize(proxy::parse_route(target));
}
BENCHMARK(parse_tag_route);

void parse_one_range(benchmark::State& state) {
  for (auto _ : state)
    benchmark::DoNotOptimize(proxy::parse_range("bytes=1048576-2097151", 1 << 30));
}
BENCHMARK(parse_one_range);

void parse_digest(benchmark::State& state) {
  for (auto _ : state) benchmark::DoNotOptimize(cache::Digest::parse(digest_text));
}
BENCHMARK(parse_digest);

void sha256(benchmark::State& state) {
  const std::string bytes(static_cast<std::size_t>(state.range(0)), 'x');
  for (auto _ : state) benchmark::DoNotOptimize(cache::digest_of(cache::Algorithm::sha256, bytes));
  state.SetBytesProcessed(state.iterations() * state.range(0));
}
BENCHMARK(sha256)->Arg(4096)->Arg(1 << 20);

// A catalog of so many objects, all used once.
struct Held {
  explicit Held(std::int64_t objects) {
    SeededRandom random(1);
    for (std::int64_t i = 0; i < objects; ++i) {
      digests.push_back(random_digest(random));
      catalog.add(digests.back(), cache::ObjectKind::blob, 5000, true, now);
      catalog.link("bench.local/repository" + std::to_string(i / 10), digests.back(), now);
    }
    catalog.forget_changes();
    for (std::size_t i = 0; i < picks; ++i)
      order.push_back(random.next() % static_cast<std::uint64_t>(objects));
  }
  const cache::Digest& pick() { return digests[order[next++ % picks]]; }

  cache::Catalog catalog;
  std::vector<cache::Digest> digests;
  std::vector<std::size_t> order;
  std::size_t next = 0;
};

void catalog_find(benchmark::State& state) {
  Held held(state.range(0));
  for (auto _ : state) benchmark::DoNotOptimize(held.catalog.find(held.pick()));
}
BENCHMARK(catalog_find)->Arg(1'000)->Arg(100'000);

void catalog_touch(benchmark::State& state) {
  Held held(state.range(0));
  for (auto _ : state) held.catalog.touch(held.pick(), now + 1);
}
BENCHMARK(catalog_touch)->Arg(1'000)->Arg(100'000);

void eviction_decision(benchmark::State& state) {
  Held held(state.range(0));
  for (auto _ : state)
    benchmark::DoNotOptimize(cache::choose_victims(
        held.catalog.oldest_first([](const cache::Digest&) { return true; }), 1));
}
BENCHMARK(eviction_decision)->Arg(1'000)->Arg(100'000);

// A batch as the store writes it: 64 objects that were used.
void index_write(benchmark::State& state) {
  const Scratch scratch(std::filesystem::temp_directory_path());
  cache::Index index(scratch.path());
  Held held(10'000);
  index.rewrite(held.catalog.everything());
  for (auto _ : state) {
    state.PauseTiming();
    for (int i = 0; i < 64; ++i) held.catalog.touch(held.pick(), now + 1);
    const auto changes = held.catalog.take_changes();
    state.ResumeTiming();
    index.apply(changes);
  }
  state.SetItemsProcessed(64 * state.iterations());
}
BENCHMARK(index_write);

// Pieces of a blob that arrive out of turn over eight connections.
void extents_add(benchmark::State& state) {
  constexpr std::uint64_t piece = 64 * 1024;
  for (auto _ : state) {
    cache::Extents extents;
    for (std::uint64_t at = 0; at < 32 * piece; at += piece)
      for (std::uint64_t connection = 0; connection < 8; ++connection) {
        const std::uint64_t begin = connection * 32 * piece + at;
        extents.add({begin, begin + piece});
      }
    benchmark::DoNotOptimize(extents.bytes());
  }
  state.SetItemsProcessed(256 * state.iterations());
}
BENCHMARK(extents_add);

}  // namespace
}  // namespace staithe::bench

BENCHMARK_MAIN();
