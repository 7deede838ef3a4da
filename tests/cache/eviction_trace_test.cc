// What the order of eviction is worth on weeks of pulls; `./dev bench eviction` has the figures.
#include <gtest/gtest.h>

#include <list>

#include "tests/cache/policies.h"
#include "tests/cache/trace.h"

namespace staithe::cache {
namespace {

TraceShape small(TraceShape shape) {
  shape.days = 12;
  shape.pulls_per_day = 120;
  shape.images = 80;
  shape.bases = 10;
  return shape;
}

// By the book.
class PlainLru {
 public:
  explicit PlainLru(const Trace& trace) : trace_(trace) {}
  bool use(const Trace::Request& request) {
    const auto it = std::ranges::find(order_, request.object);
    if (it != order_.end()) {
      order_.splice(order_.end(), order_, it);
      return true;
    }
    const std::uint64_t bytes = cost_bytes(trace_.bytes[request.object]);
    if (bytes > trace_.cache_bytes) return false;
    for (; bytes_ + bytes > trace_.cache_bytes; order_.pop_front())
      bytes_ -= cost_bytes(trace_.bytes[order_.front()]);
    order_.push_back(request.object);
    bytes_ += bytes;
    return false;
  }

 private:
  const Trace& trace_;
  std::list<std::uint32_t> order_;
  std::uint64_t bytes_ = 0;
};

TEST(EvictionTrace, IsTheSameForTheSameSeed) {
  const TraceShape shape = small({.release_days = 4, .flood = 2});
  const Trace trace = make_trace(shape, 1);
  EXPECT_EQ(trace.bytes, make_trace(shape, 1).bytes);
  EXPECT_EQ(trace.requests.size(), make_trace(shape, 1).requests.size());
  EXPECT_NE(trace.bytes, make_trace(shape, 2).bytes);
}

TEST(EvictionTrace, HasFloodsOfTheSizeThatWasAskedFor) {
  const Trace trace = make_trace(small({.flood = 2}), 1);
  double flood_bytes = 0;
  for (const Trace::Request& request : trace.requests)
    if (request.one_time && !request.repeated)
      flood_bytes += static_cast<double>(trace.bytes[request.object]);
  // Its images stand on shared bases, which the size does not count.
  const double caches = flood_bytes / static_cast<double>(trace.cache_bytes) / 12;
  EXPECT_GT(caches, 1.5);
  EXPECT_LT(caches, 5);
}

TEST(EvictionTrace, WithoutAShareForTheProtectedThereIsAPlainLru) {
  const Trace trace = make_trace(small({.release_days = 4, .flood = 2}), 1);
  CatalogPolicy catalog(trace, {.percent = 0});
  PlainLru plain(trace);
  for (const Trace::Request& request : trace.requests)
    ASSERT_EQ(catalog.use(request), plain.use(request)) << request.unix_seconds;
}

TEST(EvictionTrace, FloodsCostThoseWhoAreUsedLessThanWithAPlainLru) {
  for (const double cache_share : {0.1, 0.5}) {
    for (const std::uint64_t seed : {1, 2}) {
      SCOPED_TRACE(std::to_string(cache_share) + ", seed " + std::to_string(seed));
      const Trace trace =
          make_trace(small({.cache_share = cache_share, .release_days = 4, .flood = 2}), seed);
      const HitRatios lru = run_lru(trace);
      const HitRatios ours = run_catalog(trace);
      EXPECT_GT(ours.objects, lru.objects + 0.02);
      EXPECT_GT(ours.used_objects, lru.used_objects + 0.03);
      EXPECT_GT(ours.used_bytes, lru.used_bytes + 0.03);
    }
  }
}

TEST(EvictionTrace, WithoutFloodsItIsNeverNoticeablyWorseThanAPlainLru) {
  for (const NamedShape& named : trace_shapes()) {
    if (named.shape.flood > 0) continue;
    for (const double cache_share : {0.1, 0.5}) {
      SCOPED_TRACE(std::string(named.name) + ", " + std::to_string(cache_share));
      TraceShape shape = small(named.shape);
      shape.cache_share = cache_share;
      const Trace trace = make_trace(shape, 1);
      const HitRatios lru = run_lru(trace);
      const HitRatios ours = run_catalog(trace);
      const HitRatios best = run_foresight(trace);
      EXPECT_GT(ours.objects, lru.objects - 0.02);
      EXPECT_GT(ours.bytes, lru.bytes - 0.02);
      EXPECT_GE(best.objects, ours.objects);
      EXPECT_GE(best.objects, lru.objects);
    }
  }
}

}  // namespace
}  // namespace staithe::cache
