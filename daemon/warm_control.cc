#include "daemon/warm_control.h"

#include <boost/json/array.hpp>
#include <boost/json/serialize.hpp>
#include <set>
#include <string>
#include <utility>

#include "daemon/owner_request.h"
#include "proxy/auth/json.h"

namespace staithe::daemon {

namespace json = boost::json;

namespace {

// Each holds its images' names and a connection.
constexpr std::size_t most_at_once = 16;
constexpr std::string_view form =
    R"(the request is {"images":["NAME",...],"platform":"linux/amd64"}, the platform may be "all" )"
    R"(or left out)";

}  // namespace

Result<Warmer::Order> parse_warm_order(std::string_view body) {
  const auto document = proxy::auth::parse_json_object(body);
  if (!document) return fail(Errc::bad_request, std::string(form));
  const json::object& question = document->get_object();
  const json::value* images = question.if_contains("images");
  const json::value* platform = question.if_contains("platform");
  if (!images || !images->is_array() || (platform && !platform->is_string()) ||
      question.size() != (platform ? 2u : 1u))
    return fail(Errc::bad_request, std::string(form));
  const json::array& names = images->get_array();
  if (names.empty() || names.size() > most_warm_images)
    return fail(Errc::bad_request, "a warm is for 1 to " + std::to_string(most_warm_images) +
                                       " images, not " + std::to_string(names.size()));
  Warmer::Order order{.asker = "request", .images = {}, .platform = {}};
  std::set<std::string> known;  // under two names it is one image
  for (const json::value& name : names) {
    if (!name.is_string()) return fail(Errc::bad_request, std::string(form));
    auto image = parse_image_name(std::string_view(name.get_string()));
    if (!image) return std::unexpected(image.error());
    if (known.insert(full_name(*image)).second) order.images.push_back(*std::move(image));
  }
  auto choice = parse_platform_choice(platform ? std::string_view(platform->get_string()) : "");
  if (!choice) return std::unexpected(choice.error());
  order.platform = *std::move(choice);
  return order;
}

asio::awaitable<void> WarmControl::handle(proxy::Exchange& exchange) {
  if (!co_await admit_post(exchange)) co_return;
  if (!co_await admit_owner(exchange, sources_.access, "have images fetched ahead")) co_return;
  auto order = parse_warm_order(exchange.request().body);
  if (!order) {
    co_await exchange.reply_error(400, "UNSUPPORTED", order.error().detail);
    co_return;
  }
  if (running_ == most_at_once) {
    co_await exchange.reply_error(
        409, "DENIED",
        std::to_string(most_at_once) + " warms are under way already: wait until one has ended");
    co_return;
  }
  ++running_;
  const struct Ended {
    std::size_t& running;
    ~Ended() { --running; }
  } ended{running_};
  co_await exchange.begin(200, "application/x-ndjson", std::nullopt);
  co_await sources_.warmer.run(*std::move(order), [&](json::object line) -> asio::awaitable<void> {
    // In the frame, since sending goes on after this expression.
    const std::string text = json::serialize(line) + "\n";
    co_await exchange.send(text);
  });
  co_await exchange.finish();
}

}  // namespace staithe::daemon
