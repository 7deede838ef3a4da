#include "daemon/ending_watch.h"

#include "cache/log.h"
#include "proxy/upstream_list.h"

namespace staithe::daemon {
namespace {

constexpr std::chrono::minutes look_interval{1};
constexpr std::size_t max_remembered = 10'000;

// "29 days", "3 hours", "12 minutes".
std::string in_words(std::chrono::seconds left) {
  using std::chrono::duration_cast;
  const auto say = [](auto count, const char* unit) {
    return std::to_string(count) + " " + unit + (count == 1 ? "" : "s");
  };
  if (left >= std::chrono::days(2))
    return say(duration_cast<std::chrono::days>(left).count(), "day");
  if (left >= std::chrono::hours(2))
    return say(duration_cast<std::chrono::hours>(left).count(), "hour");
  return say(duration_cast<std::chrono::minutes>(left).count(), "minute");
}

}  // namespace

std::chrono::nanoseconds warning_interval(std::chrono::seconds expires_in) {
  using namespace std::chrono_literals;
  return expires_in >= 24h ? std::chrono::nanoseconds(24h) : std::chrono::nanoseconds(10min);
}

asio::awaitable<void> EndingWatch::run() {
  for (;;) {
    look();
    co_await clock_.sleep_for(look_interval);
  }
}

void EndingWatch::look() {
  if (own_) {
    for (const auto& ending : own_())
      if (ending.is_near()) warn("", ending);
  }
  for (const auto& [name, registry] : registries_.used()) {
    for (const auto& [identities, upstream] : registry->upstreams()) {
      for (const proxy::auth::Authorizer* authorizer : upstream->authorizers()) {
        for (const auto& ending : authorizer->endings()) {
          if (ending.is_near()) warn(name, ending);
        }
      }
    }
  }
  for (const std::string& name : identities_.drop_ended_sign_ins()) {
    log::warn(
        "sign-in ended",
        {{"registry", name},
         {"detail", "the configured identity is used again; to go on as before: staithe login " +
                        name + " --token-stdin"}});
    registries_.use_identity(name, {});
  }
}

void EndingWatch::warn(const std::string& registry, const proxy::auth::Ending& ending) {
  const Instant now = clock_.now();
  // The same secret may serve many registries; one warning names one of them.
  const auto last = warned_.find(ending.what);
  if (last != warned_.end() && now - last->second < warning_interval(ending.expires_in)) return;
  if (warned_.size() >= max_remembered) warned_.clear();
  warned_[ending.what] = now;
  const bool over = ending.expires_in.count() <= 0;
  std::string detail = ending.what;
  if (!over) detail += " ends in " + in_words(ending.expires_in);
  if (!ending.remedy.empty()) {
    detail += (over ? " has ended: " : ": ") + ending.remedy;
  } else {
    detail += over ? " has ended: put a new one in its place, which is seen at once"
                   : ": put a new one in its place before, which is seen at once";
  }
  if (over) {
    log::error("credential ended", {{"registry", log::if_any(registry)}, {"detail", detail}});
  } else {
    log::warn("credential ends soon", {{"registry", log::if_any(registry)}, {"detail", detail}});
  }
}

}  // namespace staithe::daemon
