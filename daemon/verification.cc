#include "daemon/verification.h"

#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <boost/json/serialize.hpp>
#include <chrono>
#include <string>
#include <vector>

#include "daemon/owner_request.h"

namespace staithe::daemon {

namespace json = boost::json;

namespace {

using namespace std::chrono_literals;

constexpr auto line_interval = 250ms;

json::object describe(const cache::Verification& so_far, bool done) {
  return {{"done", done},
          {"objects", so_far.objects},
          {"total_objects", so_far.total_objects},
          {"bytes", so_far.bytes},
          {"total_bytes", so_far.total_bytes},
          {"damaged", so_far.damaged},
          {"unreadable", so_far.unreadable}};
}

json::array describe(const std::vector<cache::Digest>& digests) {
  json::array texts;
  for (const cache::Digest& digest : digests) texts.emplace_back(digest.to_string());
  return texts;
}

}  // namespace

asio::awaitable<void> Verifier::handle(proxy::Exchange& exchange) {
  if (!co_await admit_post(exchange)) co_return;
  if (!co_await admit_owner(exchange, sources_.access, "have the whole cache verified")) co_return;
  if (running_) {
    co_await exchange.reply_error(409, "DENIED",
                                  "the cache is being verified already: wait until that has ended");
    co_return;
  }
  running_ = true;
  const struct Ended {
    bool& running;
    ~Ended() { running = false; }
  } ended{running_};
  co_await verify(exchange);
}

asio::awaitable<void> Verifier::verify(proxy::Exchange& exchange) {
  const Instant began = sources_.clock.now();
  Instant last_line = began;
  co_await exchange.begin(200, "application/x-ndjson", std::nullopt);
  const auto send = [&](const json::object& line) -> asio::awaitable<void> {
    // In the frame, since sending goes on after this expression.
    const std::string text = json::serialize(line) + "\n";
    co_await exchange.send(text);
  };
  // That the client has left shows when a line is sent to it, and ends the verification.
  const auto result = co_await sources_.store.scrub().verify_all(
      [&](const cache::Verification& so_far) -> asio::awaitable<void> {
        if (sources_.clock.now() - last_line < line_interval) co_return;
        last_line = sources_.clock.now();
        co_await send(describe(so_far, false));
      });
  json::object last = describe(result, true);
  last["seconds"] = std::chrono::duration<double>(sources_.clock.now() - began).count();
  last["damaged_digests"] = describe(result.damaged_digests);
  last["unreadable_digests"] = describe(result.unreadable_digests);
  last["broken_off"] =
      result.broken_off.empty() ? json::value(nullptr) : json::value(result.broken_off);
  co_await send(last);
  co_await exchange.finish();
}

}  // namespace staithe::daemon
