// Weeks of pulls as a node sees them, made from a seed: what policies of eviction are compared by.
//
// Images have layers of their own on layers of a base that they share; sizes are log-normal, as
// those of public images roughly are: half of the layers below 4 MB, one in ten above 60 MB. Some
// images are popular (Zipf), new versions replace some of their layers, and the popular ones
// change. By night a CI or a scan floods the node with images that nobody pulls again, or a job
// walks through more images than the cache holds. Every pull asks for its blobs more than once.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numbers>
#include <tuple>
#include <vector>

#include "cache/random.h"

namespace staithe::cache {

struct TraceShape {
  int days = 28;
  int pulls_per_day = 300;
  std::size_t images = 200;
  std::size_t bases = 20;
  double zipf = 0.9;                  // the popularity of the n-th image is n^-zipf
  double cache_share = 0.1;           // the cache as a share of what all images need
  double release_days = 0;            // an image gets a new version so often; 0: never
  double shift_days = 0;              // other images become popular so often; 0: never
  double flood = 0;                   // the mean flood of a night, in cache sizes
  double loop = 0;                    // what a job walks through every night, in cache sizes
  double repeats = 1;                 // how often, on average, a pull asks for a blob again
  std::int64_t repeat_seconds = 480;  // and until when
};

struct Trace {
  struct Request {
    std::int64_t unix_seconds;
    std::uint32_t object;
    bool repeated;  // by the pull that has asked for it before: counts for no ratio
    bool one_time;  // of a flood
  };
  std::vector<std::uint64_t> bytes;  // of each object
  std::vector<Request> requests;     // by time
  std::uint64_t cache_bytes = 0;
};

class TraceMaker {
 public:
  TraceMaker(const TraceShape& shape, std::uint64_t seed) : shape_(shape), random_(seed) {}

  Trace make() {
    for (std::size_t i = 0; i < shape_.bases; ++i) bases_.push_back(layers(1 + below(3), 25e6, 1));
    for (std::size_t i = 0; i < shape_.images; ++i) {
      images_.push_back(image(bases_[below(bases_.size())]));
      former_.push_back(images_.back());
      ranks_.push_back(i);
      total_popularity_ += std::pow(static_cast<double>(i + 1), -shape_.zipf);
      popularity_.push_back(total_popularity_);
    }
    std::uint64_t all_bytes = 0;
    for (const std::uint64_t bytes : trace_.bytes) all_bytes += bytes;
    trace_.cache_bytes =
        static_cast<std::uint64_t>(shape_.cache_share * static_cast<double>(all_bytes));
    make_loop();
    for (int day = 0; day < shape_.days; ++day) play(day);
    std::ranges::sort(trace_.requests, {}, [](const Trace::Request& request) {
      return std::tuple(request.unix_seconds, request.object, request.repeated);
    });
    return std::move(trace_);
  }

 private:
  using Layers = std::vector<std::uint32_t>;
  struct Image {
    std::uint32_t manifest;
    std::uint32_t config;
    Layers base;
    Layers own;
  };
  static constexpr std::int64_t start = 1'767'225'600;  // 1 January 2026
  static constexpr std::int64_t day_seconds = 86'400;

  std::uint64_t below(std::uint64_t bound) { return random_.next() % bound; }
  double normal() {
    return std::sqrt(-2 * std::log(1 - random_.unit())) *
           std::cos(2 * std::numbers::pi * random_.unit());
  }
  std::uint32_t object(std::uint64_t bytes) {
    trace_.bytes.push_back(bytes);
    return static_cast<std::uint32_t>(trace_.bytes.size() - 1);
  }
  Layers layers(std::uint64_t count, double median_bytes, double sigma) {
    constexpr double most_bytes = 2e9;
    Layers all;
    for (std::uint64_t i = 0; i < count; ++i)
      all.push_back(object(1 + static_cast<std::uint64_t>(std::min(
                                   most_bytes, median_bytes * std::exp(sigma * normal())))));
    return all;
  }
  Layers own_layers(std::uint64_t count) { return layers(count, 4e6, 2.1); }
  Image image(const Layers& base) {
    return {.manifest = object(2'000),
            .config = object(6'000),
            .base = base,
            .own = own_layers(2 + below(5))};
  }
  std::uint64_t bytes_of(const Image& image) const {
    std::uint64_t bytes = trace_.bytes[image.manifest] + trace_.bytes[image.config];
    for (const auto layer : image.own) bytes += trace_.bytes[layer];
    return bytes;
  }

  void make_loop() {
    const double wanted = shape_.loop * static_cast<double>(trace_.cache_bytes);
    for (double bytes = 0; bytes < wanted; bytes += static_cast<double>(bytes_of(loop_.back())))
      loop_.push_back(image({}));
  }

  void play(int day) {
    const std::int64_t midnight = start + day * day_seconds;
    if (shape_.shift_days > 0 && chance(1 / shape_.shift_days)) shift();
    for (std::size_t i = 0; i < images_.size(); ++i)
      if (shape_.release_days > 0 && chance(1 / shape_.release_days)) release(i);
    for (int i = 0; i < shape_.pulls_per_day; ++i) {
      const std::size_t which = popular();
      pull(chance(0.1) ? former_[which] : images_[which], midnight + seconds(day_seconds), false);
    }
    // Between one and four in the morning.
    const std::int64_t night = midnight + 3600;
    constexpr std::int64_t night_seconds = 3 * 3600;
    const double flood = (0.5 + random_.unit()) * shape_.flood;
    for (double bytes = 0; bytes < flood * static_cast<double>(trace_.cache_bytes);) {
      const Image once = image(bases_[below(bases_.size())]);
      bytes += static_cast<double>(bytes_of(once));
      pull(once, night + seconds(night_seconds), true);
    }
    for (std::size_t i = 0; i < loop_.size(); ++i)
      pull(loop_[i],
           night + static_cast<std::int64_t>(i) * night_seconds /
                       static_cast<std::int64_t>(loop_.size()),
           false);
  }
  bool chance(double probability) { return random_.unit() < probability; }
  std::int64_t seconds(std::int64_t bound) {
    return static_cast<std::int64_t>(below(static_cast<std::uint64_t>(bound)));
  }
  std::size_t popular() {
    const auto at = std::ranges::lower_bound(popularity_, random_.unit() * total_popularity_);
    return ranks_[std::min<std::size_t>(at - popularity_.begin(), ranks_.size() - 1)];
  }
  // A quarter of the images change their ranks.
  void shift() {
    for (std::size_t i = 0; i < ranks_.size() / 8; ++i)
      std::swap(ranks_[below(ranks_.size())], ranks_[below(ranks_.size())]);
  }
  // The layers from a certain one on are built anew.
  void release(std::size_t which) {
    Image& current = images_[which];
    former_[which] = current;
    const std::uint64_t kept = below(current.own.size());
    const Layers anew = own_layers(current.own.size() - kept);
    std::ranges::copy(anew, current.own.begin() + static_cast<std::ptrdiff_t>(kept));
    current.manifest = object(2'000);
    current.config = object(6'000);
  }

  void pull(const Image& image, std::int64_t when, bool one_time) {
    ask(image.manifest, when, one_time);
    ask(image.config, when, one_time);
    for (const auto layer : image.base) ask(layer, when, one_time);
    for (const auto layer : image.own) ask(layer, when, one_time);
  }
  void ask(std::uint32_t object, std::int64_t when, bool one_time) {
    trace_.requests.push_back({when, object, false, one_time});
    const auto repeats = static_cast<int>(2 * shape_.repeats * random_.unit() + 0.5);
    for (int i = 0; i < repeats; ++i)
      trace_.requests.push_back(
          {when + 1 + seconds(shape_.repeat_seconds), object, true, one_time});
  }

  TraceShape shape_;
  SeededRandom random_;
  Trace trace_;
  std::vector<Layers> bases_;
  std::vector<Image> images_;  // as they are now
  std::vector<Image> former_;  // as they were before their last release
  std::vector<Image> loop_;
  std::vector<std::size_t> ranks_;  // which image is the n-th in popularity
  std::vector<double> popularity_;  // summed up
  double total_popularity_ = 0;
};

inline Trace make_trace(const TraceShape& shape, std::uint64_t seed) {
  return TraceMaker(shape, seed).make();
}

// What the policies are compared on.
struct NamedShape {
  const char* name;
  TraceShape shape;
};
inline std::vector<NamedShape> trace_shapes() {
  return {
      {"steady", {}},
      {"releases", {.release_days = 4}},
      {"shifts", {.release_days = 4, .shift_days = 1}},
      {"floods", {.release_days = 4, .flood = 2}},
      {"great floods, shifts", {.release_days = 4, .shift_days = 2, .flood = 6}},
      {"loops", {.release_days = 4, .loop = 1.5}},
  };
}

}  // namespace staithe::cache
