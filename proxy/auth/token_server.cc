#include "proxy/auth/token_server.h"

#include <algorithm>

#include "proxy/auth/source.h"

namespace staithe::proxy::auth {
namespace {

using namespace std::chrono_literals;

constexpr int most_tries = 2;
constexpr std::chrono::milliseconds shortest_rest = 250ms;  // between the two tries, with jitter
constexpr std::chrono::milliseconds longest_rest = 750ms;
constexpr std::chrono::seconds unnamed_pause = 5s;    // a 429 without Retry-After
constexpr std::chrono::seconds longest_pause = 300s;  // whatever a server names

}  // namespace

asio::awaitable<Answer> TokenServer::get(HttpRequest request, std::string step) {
  return call(std::move(request), Form(), std::move(step));
}

asio::awaitable<Answer> TokenServer::post(HttpRequest request, Form form, std::string step) {
  request.method = "POST";
  request.headers.add("Content-Type", "application/x-www-form-urlencoded");
  return call(std::move(request), std::move(form), std::move(step));
}

void TokenServer::check_pause(const std::string& step) const {
  const Instant now = environment_.clock.now();
  if (now >= paused_until_) return;
  const std::chrono::nanoseconds left = paused_until_ - now;
  throw Postponed(Errc::throttled,
                  step + ": not asked again for " +
                      std::to_string(std::chrono::ceil<std::chrono::seconds>(left).count()) +
                      " s, because the server has throttled us",
                  left);
}

asio::awaitable<Answer> TokenServer::call(HttpRequest request, Form form, std::string step) {
  if (request.ca_file.empty()) request.ca_file = ca_file_;
  request.limits = environment_.limits;
  for (int tries = 1;; ++tries) {
    check_pause(step);
    if (limit_) {
      co_await environment_.clock.sleep_for(limit_->take(environment_.clock.now()));
      check_pause(step);  // another call may have met it meanwhile
    }
    const Instant sent = environment_.clock.now();
    HttpRequest once = request;
    once.body = form.text();
    std::optional<Answer> answer;
    try {
      answer.emplace(co_await ask(environment_, std::move(once), step));
    } catch (const Failure& failure) {
      if (tries == most_tries || failure.code() != Errc::upstream_failed) throw;
    }
    if (answer && answer->status == 429) {
      const auto named = std::min(answer->retry_after().value_or(unnamed_pause), longest_pause);
      const Instant now = environment_.clock.now();
      paused_until_ = now + environment_.random.between(named, named * 6 / 5);
      if (limit_) limit_->note_throttled(now, sent);
    }
    const bool passing = !answer || (answer->status >= 500 && !answer->retry_after());
    if (!passing || tries == most_tries) co_return std::move(*answer);
    co_await environment_.clock.sleep_for(environment_.random.between(shortest_rest, longest_rest));
  }
}

}  // namespace staithe::proxy::auth
