// bench_fleet: what does a registry with limits see when a whole fleet starts at once?
//
// Nodes, a registry that counts as ACR does, and time, all played; the pauses, the ramp and the
// rate limit are the product's own classes. The same figures on every machine for the same seed.
// docs/scale.md says what the model is, what it leaves out, and holds the figures.
#include <CLI/CLI.hpp>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <queue>
#include <string>
#include <vector>

#include "bench/report.h"
#include "cache/random.h"
#include "proxy/pause.h"
#include "proxy/polite_client.h"
#include "proxy/ramp.h"
#include "proxy/rate_limit.h"

namespace staithe::bench {
namespace {

using namespace std::chrono_literals;
using proxy::Pause;
using proxy::PoliteClient;
using proxy::Ramp;
using proxy::RateLimit;
using Duration = std::chrono::nanoseconds;

double seconds(Duration duration) { return std::chrono::duration<double>(duration).count(); }

// No jitter: every random time is its least.
class NoChance final : public Random {
 public:
  std::uint64_t next() override { return 0; }
};

// What a registry grants in a minute.
struct Tier {
  std::string name;
  double oauth;              // of the registry
  double reads;              // of the registry
  double reads_of_identity;  // that all nodes share
};
const std::vector<Tier> tiers{{"Standard", 10'000, 10'000, 5'000},
                              {"Premium", 20'000, 20'000, 10'000}};

// Who asks.
struct Client {
  std::string name;
  bool polite = true;         // Staithe's pauses, ramp and rate; else what containerd does
  bool shared_pauses = true;  // of a node's requests; else each finds out for itself
  bool jitter = true;
  bool cached_tokens = true;
  bool one_transfer = true;  // per node, for all who want the image; else each on its own
};
const std::vector<Client> clients{{"Staithe"},
                                  {.name = "no jitter", .jitter = false},
                                  {.name = "no shared pause", .shared_pauses = false},
                                  {.name = "no token cache", .cached_tokens = false},
                                  {.name = "no single transfer", .one_transfer = false},
                                  {.name = "none of these",
                                   .polite = false,
                                   .shared_pauses = false,
                                   .jitter = false,
                                   .cached_tokens = false,
                                   .one_transfer = false}};

struct Shape {
  std::size_t nodes = 10'000;
  int manifests = 3;  // a HEAD by tag, the index, the manifest; one after the other
  int blobs = 9;      // a config and layers, three at a time
  int consumers = 2;  // on each node that want the image at the same time
  int images = 1;
  Duration start = 1s;  // within which all begin
  Duration latency = 50ms;
};

// A limit per minute. Refused requests are not counted.
class Limit {
 public:
  Limit(double per_minute, bool by_window)
      : per_minute_(per_minute), by_window_(by_window), left_(per_minute) {}

  // How long to wait, or zero if there is room now; take() uses it.
  Duration wait(Instant now) {
    pass_to(now);
    if (left_ >= 1) return {};
    const Duration left =
        by_window_ ? 60s - now.time_since_epoch() % Duration(60s)
                   : Duration(static_cast<std::int64_t>((1 - left_) * 60e9 / per_minute_));
    return std::max<Duration>(std::chrono::ceil<std::chrono::seconds>(left), 1s);
  }
  void take() { left_ -= 1; }

 private:
  void pass_to(Instant now) {
    if (by_window_) {
      const auto minute = now.time_since_epoch() / Duration(60s);
      if (minute != minute_) left_ = per_minute_;
      minute_ = minute;
    } else {
      left_ = std::min(per_minute_, left_ + seconds(now - then_) * per_minute_ / 60);
      then_ = now;
    }
  }

  double per_minute_;
  bool by_window_;  // a new count each minute; else refilled steadily
  double left_;
  std::int64_t minute_ = 0;
  Instant then_{};
};

struct Figures {
  std::size_t requests = 0;
  std::size_t refused = 0;       // answered with 429
  std::size_t failed_pulls = 0;  // that a client has to try again
  double peak_per_second = 0;
  double half_done = 0;  // seconds until half of the nodes have all they want
  double all_done = 0;
};

class Fleet {
 public:
  Fleet(const Shape& shape, const Tier& tier, const Client& client, bool by_window,
        std::uint64_t seed)
      : shape_(shape),
        client_(client),
        random_(seed),
        oauth_(tier.oauth, by_window),
        reads_(tier.reads, by_window),
        reads_of_identity_(tier.reads_of_identity, by_window),
        nodes_(shape.nodes) {
    const int pulls = shape.images * (client.one_transfer ? 1 : shape.consumers);
    for (std::size_t n = 0; n < nodes_.size(); ++n) {
      nodes_[n].pulls_left = pulls;
      const Instant begins = start + random_.between({}, shape.start);
      for (int p = 0; p < pulls; ++p) {
        pulls_.push_back({.node = n, .manifests_left = shape.manifests, .blobs_left = shape.blobs});
        at(begins, Event::Kind::begin, pulls_.size() - 1, {});
      }
    }
  }

  Figures run() {
    while (!events_.empty()) {
      const Event event = events_.top();
      events_.pop();
      now_ = event.when;
      if (now_ - start > longest_run) break;
      Pull& pull = pulls_[event.pull];
      switch (event.kind) {
        case Event::Kind::begin:
          begin(event.pull, pull);
          break;
        case Event::Kind::turn:
          turn(event.pull, pull, event.request);
          break;
        case Event::Kind::arrival:
          arrival(event.pull, event.request);
          break;
        case Event::Kind::answer:
          answer(event.pull, pull, event.request);
          break;
      }
    }
    std::ranges::sort(done_);
    done_.resize(nodes_.size(), seconds(longest_run));
    figures_.half_done = done_[done_.size() / 2];
    figures_.all_done = done_.back();
    for (const auto count : per_second_)
      figures_.peak_per_second = std::max(figures_.peak_per_second, static_cast<double>(count));
    return figures_;
  }

 private:
  static constexpr Instant start{1h};
  // Nodes that are not done by then never are.
  static constexpr Duration longest_run = 12h;
  static constexpr int blobs_at_once = 3;
  // containerd's, at once; then its pull has failed.
  static constexpr int instant_repeats = 6;
  // kubelet's; it looks after a pod every 10 to 15 s.
  static constexpr Duration first_backoff = 10s, longest_backoff = 300s, backoff_jitter = 5s;

  enum class What { oauth, manifest, blob };
  struct Request {
    What what = What::oauth;
    Instant began = {};
    int attempts = 0;
    bool has_rate_token = false;
    std::optional<Instant> room_by = {};
    std::uint64_t epoch = 0;
    Duration told = {};  // by a 429; zero: granted
    Pause own_pause = {};
  };
  struct Event {
    enum class Kind { begin, turn, arrival, answer };
    Instant when;
    std::uint64_t order;
    Kind kind;
    std::size_t pull;
    Request request;
    bool operator<(const Event& other) const {
      return std::pair(other.when, other.order) < std::pair(when, order);
    }
  };
  struct Node {
    Pause pause;
    Ramp ramp;
    RateLimit rate{RateLimit::acr};
    int pulls_left = 0;
    bool exchanged = false;
  };
  struct Pull {
    std::size_t node;
    int oauth_left = 0;
    int manifests_left;
    int blobs_left;
    bool has_token = false;  // in the cache
    int in_flight = 0;
    bool failed = false;
    Duration backoff = first_backoff;
  };

  void at(Instant when, Event::Kind kind, std::size_t pull, Request request) {
    events_.push({when, order_++, kind, pull, std::move(request)});
  }
  Duration trip() { return random_.between(shape_.latency * 4 / 10, shape_.latency * 6 / 10); }
  Random& chance() { return client_.jitter ? static_cast<Random&>(random_) : no_chance_; }

  // A pull from its start: the tag is asked for again, and what it has is not fetched again.
  void begin(std::size_t index, Pull& pull) {
    Node& node = nodes_[pull.node];
    pull.failed = false;
    pull.oauth_left = 2;
    if (client_.cached_tokens) {
      pull.oauth_left = pull.has_token ? 0 : node.exchanged ? 1 : 2;
      node.exchanged = true;  // By this one, for the others of the node.
    }
    pull.manifests_left = 1 + std::min(pull.manifests_left, shape_.manifests - 1);
    go_on(index, pull);
  }

  void go_on(std::size_t index, Pull& pull) {
    if (pull.failed) {
      if (pull.in_flight > 0) return;
      ++figures_.failed_pulls;
      at(now_ + pull.backoff + random_.between({}, backoff_jitter), Event::Kind::begin, index, {});
      pull.backoff = std::min(2 * pull.backoff, longest_backoff);
      return;
    }
    const auto ask = [&](What what) {
      ++pull.in_flight;
      turn(index, pull, {.what = what, .began = now_});
    };
    if (pull.oauth_left > 0) {
      if (pull.in_flight == 0) ask(What::oauth);
    } else if (pull.manifests_left > 0) {
      pull.has_token = true;
      if (pull.in_flight == 0) ask(What::manifest);
    } else if (pull.blobs_left > 0) {
      while (!pull.failed && pull.in_flight < std::min(blobs_at_once, pull.blobs_left))
        ask(What::blob);
    } else if (--nodes_[pull.node].pulls_left == 0) {
      done_.push_back(seconds(now_ - start));
    }
  }

  void fail(std::size_t index, Pull& pull) {
    --pull.in_flight;
    pull.failed = true;
    go_on(index, pull);
  }

  // As PoliteClient: pause, ramp, rate.
  void turn(std::size_t index, Pull& pull, Request request) {
    Node& node = nodes_[pull.node];
    if (client_.polite) {
      const Pause& pause = client_.shared_pauses ? node.pause : request.own_pause;
      if (pause.holds(now_)) {
        if (now_ + pause.left(now_) - request.began > Pause::patience) return fail(index, pull);
        return at(pause.comes_back(chance()), Event::Kind::turn, index, request);
      }
      if (client_.shared_pauses && client_.jitter && !node.ramp.has_room()) {
        if (!request.room_by) request.room_by = now_ + PoliteClient::ramp_patience;
        if (now_ < *request.room_by)
          return at(std::min(now_ + shape_.latency / 4, *request.room_by), Event::Kind::turn, index,
                    request);
      }
      if (!std::exchange(request.has_rate_token, true) && request.what != What::oauth) {
        if (const Duration left = node.rate.take(now_); left > 0ns)
          return at(now_ + left, Event::Kind::turn, index, request);
      }
      request.epoch = node.ramp.enter();
    }
    at(now_ + trip(), Event::Kind::arrival, index, request);
  }

  void arrival(std::size_t index, Request request) {
    ++figures_.requests;
    const auto second = static_cast<std::size_t>(seconds(now_ - start));
    if (per_second_.size() <= second) per_second_.resize(second + 1);
    ++per_second_[second];
    if (request.what == What::oauth) {
      request.told = oauth_.wait(now_);
      if (request.told == 0ns) oauth_.take();
    } else {
      request.told = std::max(reads_.wait(now_), reads_of_identity_.wait(now_));
      if (request.told == 0ns) {
        reads_.take();
        reads_of_identity_.take();
      }
    }
    if (request.told > 0ns) ++figures_.refused;
    at(now_ + trip(), Event::Kind::answer, index, request);
  }

  void answer(std::size_t index, Pull& pull, Request request) {
    Node& node = nodes_[pull.node];
    if (client_.polite) node.ramp.leave(request.epoch);
    if (request.told > 0ns) {
      ++request.attempts;
      if (!client_.polite) {
        if (request.attempts > instant_repeats) return fail(index, pull);
        return turn(index, pull, request);
      }
      Pause& pause = client_.shared_pauses ? node.pause : request.own_pause;
      if (pause.begin(now_, request.told, chance())) node.ramp.begin();
      if (request.what != What::oauth) node.rate.note_throttled(now_, now_ - shape_.latency);
      if (request.attempts > PoliteClient::most_pauses) return fail(index, pull);
      return turn(index, pull, request);
    }
    if (client_.polite) node.ramp.note_answer(request.epoch);
    --pull.in_flight;
    if (request.what == What::oauth) --pull.oauth_left;
    if (request.what == What::manifest) --pull.manifests_left;
    if (request.what == What::blob) --pull.blobs_left;
    go_on(index, pull);
  }

  Shape shape_;
  Client client_;
  SeededRandom random_;
  NoChance no_chance_;
  Limit oauth_, reads_, reads_of_identity_;
  std::vector<Node> nodes_;
  std::vector<Pull> pulls_;
  std::priority_queue<Event> events_;
  std::uint64_t order_ = 0;
  Instant now_ = start;
  std::vector<std::size_t> per_second_;
  std::vector<double> done_;
  Figures figures_;
};

struct Options {
  Shape shape;
  int seeds = 1;
  bool quick = false;
  std::string json;
};

Report compare(const Options& options) {
  std::vector<std::string> names;
  for (const Client& client : clients) names.push_back(client.name);
  Report report(std::move(names));
  for (const Tier& tier : tiers) {
    for (const bool by_window : {true, false}) {
      const std::string row =
          tier.name + ", " + (by_window ? "counted per minute" : "refilled steadily") + ": ";
      for (const Client& client : clients) {
        for (int seed = 1; seed <= options.seeds; ++seed) {
          const Figures figures =
              Fleet(options.shape, tier, client, by_window, static_cast<std::uint64_t>(seed)).run();
          report.add({row + "peak", "requests/s"}, client.name, figures.peak_per_second);
          report.add({row + "requests", "thousands", 1}, client.name,
                     static_cast<double>(figures.requests) / 1000);
          report.add({row + "429", "thousands", 1}, client.name,
                     static_cast<double>(figures.refused) / 1000);
          report.add(
              {row + "failed pulls", "per node", 2}, client.name,
              static_cast<double>(figures.failed_pulls) / static_cast<double>(options.shape.nodes));
          report.add({row + "half of the nodes done", "minutes", 1}, client.name,
                     figures.half_done / 60);
          report.add({row + "all done", "minutes", 1}, client.name, figures.all_done / 60);
        }
      }
    }
  }
  return report;
}

int main_or_throw(int argc, char** argv) {
  Options options;
  CLI::App app("A fleet that starts at once on one registry's limits.", "bench_fleet");
  app.add_flag("--quick", options.quick, "100 nodes");
  app.add_option("--nodes", options.shape.nodes, "Nodes that start at once")
      ->check(CLI::Range(1, 1'000'000));
  app.add_option("--blobs", options.shape.blobs, "Blobs of the image")->check(CLI::Range(1, 1'000));
  app.add_option("--images", options.shape.images, "Images that each node needs")
      ->check(CLI::Range(1, 100));
  app.add_option("--consumers", options.shape.consumers, "Per node that want the same image")
      ->check(CLI::Range(1, 100));
  app.add_option("--seeds", options.seeds, "Runs of each")->check(CLI::Range(1, 100));
  app.add_option("--json", options.json, "File for the figures of every run");
  CLI11_PARSE(app, argc, argv);
  if (options.quick) options.shape.nodes = 100;
  const Report report = compare(options);
  std::fputs(report.table().c_str(), stdout);
  if (!options.json.empty()) std::ofstream(options.json) << report.json() << '\n';
  return 0;
}

}  // namespace
}  // namespace staithe::bench

int main(int argc, char** argv) {
  try {
    return staithe::bench::main_or_throw(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "bench_fleet: %s\n", error.what());
    return 1;
  }
}
