#include "daemon/metrics_door.h"

#include "cache/log.h"
#include "daemon/metric_text.h"
#include "daemon/status_page.h"

namespace staithe::daemon {

asio::awaitable<void> MetricsDoor::handle(proxy::Exchange& exchange) {
  const proxy::Request& request = exchange.request();
  if (!hosts_ || !hosts_->accepts(request.host)) {
    co_await exchange.reply_error(403, "DENIED",
                                  "this address serves programs on this machine that call it "
                                  "localhost or 127.0.0.1; add further names to access.hosts");
    co_return;
  }
  if (!(sources_.status && opens_status_page(request)) &&
      proxy::is_cross_site(request.field("Sec-Fetch-Site"), request.field("Origin"))) {
    co_await exchange.reply_error(403, "DENIED", "requests of web pages are not served");
    co_return;
  }
  if (request.method != "GET" && request.method != "HEAD") {
    exchange.add("Allow", "GET, HEAD");
    co_await exchange.reply_error(405, "UNSUPPORTED", "this address is asked with GET");
    co_return;
  }
  const std::string_view path = request.target.substr(0, request.target.find('?'));
  if (path == "/metrics") {
    co_await exchange.reply(200, metrics_content_type, metrics_text(sources_.metrics));
  } else if (path == "/healthz") {
    co_await exchange.reply(200, "application/json", "{\"status\":\"live\"}\n");
  } else if (path == "/readyz") {
    const bool ready = sources_.is_ready();
    co_await exchange.reply(ready ? 200 : 503, "application/json",
                            ready ? "{\"status\":\"ready\"}\n" : "{\"status\":\"not ready\"}\n");
  } else if (path == "/" && sources_.status) {
    co_await reply_with_status_page(exchange, sources_.status(), sources_.clock.wall());
  } else {
    co_await exchange.reply_error(404, "UNSUPPORTED",
                                  "there is nothing at this path; this address answers /metrics, "
                                  "/healthz and /readyz, and with listen.status_page / (a page)");
  }
}

void MetricsDoor::handled(const proxy::Exchange& exchange, std::chrono::microseconds took,
                          const Error* failure) {
  const std::string_view target = exchange.request().target;
  log::debug("metrics request", {{"path", target.substr(0, target.find('?'))},
                                 {"status", exchange.status()},
                                 {"microseconds", took.count()},
                                 {"error", failure ? failure->detail : std::string()}});
}

}  // namespace staithe::daemon
