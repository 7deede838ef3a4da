#include "daemon/standing_warm.h"

#include <algorithm>
#include <boost/asio/experimental/awaitable_operators.hpp>
#include <boost/json/array.hpp>
#include <utility>

#include "cache/log.h"

namespace staithe::daemon {

namespace json = boost::json;

namespace {

using namespace std::chrono_literals;

constexpr std::chrono::milliseconds first_pause = 30s;
constexpr std::chrono::milliseconds longest_pause = 1h;
// The log has them all.
constexpr std::size_t most_errors_shown = 10;

}  // namespace

std::chrono::milliseconds warm_pause(int failures, double unit) {
  std::chrono::milliseconds pause = first_pause;
  for (int i = 1; i < failures && pause < longest_pause; ++i) pause *= 2;
  pause = std::min(pause, longest_pause);
  return std::chrono::milliseconds(
      static_cast<std::int64_t>(static_cast<double>(pause.count()) * (0.5 + unit / 2)));
}

StandingWarm::StandingWarm(asio::any_io_executor loop, Sources sources,
                           const WarmSettings& settings)
    : sources_(sources), changed_(std::move(loop)) {
  set(settings);
}

void StandingWarm::set(const WarmSettings& settings) {
  if (generation_ > 0 && settings == settings_) return;
  std::vector<Entry> before;
  if (settings.platform == settings_.platform) before = std::move(entries_);
  entries_.clear();
  settings_ = settings;
  for (const std::string& text : settings_.images) {
    ImageName image = value_or_throw(parse_image_name(text));
    std::string name = full_name(image);
    if (std::ranges::find(entries_, name, &Entry::name) != entries_.end()) continue;
    const auto known = std::ranges::find(before, name, &Entry::name);
    entries_.push_back({.image = std::move(image),
                        .name = std::move(name),
                        .warm = known != before.end() && known->warm});
  }
  ++generation_;
  changed_.notify_all();
}

asio::awaitable<void> StandingWarm::run() {
  using namespace asio::experimental::awaitable_operators;
  int failures = 0;
  for (;;) {
    Warmer::Order order{.asker = "boot",
                        .images = {},
                        .platform = value_or_throw(parse_platform_choice(settings_.platform))};
    for (const Entry& entry : entries_)
      if (!entry.warm) order.images.push_back(entry.image);
    if (order.images.empty()) {
      failures = 0;
      co_await changed_.wait();
      continue;
    }
    const std::size_t generation = generation_;
    std::optional<Error> stopped;
    try {
      co_await sources_.warmer.run(std::move(order),
                                   [this](json::object line) -> asio::awaitable<void> {
                                     note(line);
                                     co_return;
                                   });
    } catch (const Failure& failure) {
      stopped = failure.error();
    }
    if (stopped) co_return;
    if (generation != generation_ || std::ranges::all_of(entries_, &Entry::warm)) continue;
    const auto pause = warm_pause(++failures, sources_.random.unit());
    next_try_ = sources_.clock.now() + pause;
    co_await (sources_.clock.sleep_until(*next_try_) || changed_.wait());
    next_try_.reset();
  }
}

void StandingWarm::note(const json::object& line) {
  const auto text = [&](std::string_view key) {
    const json::value* value = line.if_contains(key);
    return value && value->is_string() ? std::string(value->get_string()) : std::string();
  };
  const std::string state = text("state");
  if (text("kind") != "image" || state == "fetching") return;
  const auto entry = std::ranges::find(entries_, text("image"), &Entry::name);
  if (entry == entries_.end()) return;  // A reload took it away.
  entry->warm = state != "failed";
  entry->error = text("error");
  if (!entry->warm)
    log::warn("image not warmed", {{"image", entry->name}, {"error", entry->error}});
}

json::object StandingWarm::status() const {
  json::array errors;
  std::size_t failed = 0;
  for (const Entry& entry : entries_) {
    if (entry.error.empty()) continue;
    ++failed;
    if (errors.size() < most_errors_shown)
      errors.push_back(json::object{{"image", entry.name}, {"error", entry.error}});
  }
  json::value next = nullptr;
  if (next_try_) {
    const auto ahead =
        std::chrono::duration_cast<std::chrono::seconds>(*next_try_ - sources_.clock.now());
    next = std::max<std::int64_t>(ahead.count(), 0);
  }
  return {{"images", entries_.size()},
          {"warm", std::ranges::count_if(entries_, &Entry::warm)},
          {"failed", failed},
          {"next_try_in_seconds", std::move(next)},
          {"errors", std::move(errors)}};
}

}  // namespace staithe::daemon
