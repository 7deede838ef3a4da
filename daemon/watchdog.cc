#include "daemon/watchdog.h"

#include <utility>

#include "cache/log.h"

namespace staithe::daemon {

Watchdog::Watchdog(Clock& clock, TaskGroup& tasks, std::vector<Part> parts,
                   std::function<void()> give_sign)
    : clock_(clock), tasks_(tasks), parts_(std::move(parts)), give_sign_(std::move(give_sign)) {}

asio::awaitable<void> Watchdog::run(std::chrono::nanoseconds interval) {
  for (;;) {
    co_await clock_.sleep_for(interval);
    if (!asked_) {
      tasks_.spawn("watchdog round", go_round());
    } else if (asked_ != std::exchange(reported_, asked_)) {
      const auto seconds =
          std::chrono::duration_cast<std::chrono::seconds>(clock_.now() - since_).count();
      log::error("a part of the daemon stands still; without it the watchdog gets no sign of life",
                 {{"part", asked_->name}, {"seconds", seconds}});
    }
  }
}

asio::awaitable<void> Watchdog::go_round() {
  for (const Part& part : parts_) {
    asked_ = &part;
    since_ = clock_.now();
    co_await part.come_round();
    if (asked_ == reported_) log::info("a part of the daemon goes on", {{"part", part.name}});
    reported_ = nullptr;
  }
  asked_ = nullptr;
  give_sign_();
}

}  // namespace staithe::daemon
