#include "proxy/listings.h"

namespace staithe::proxy {

namespace {

// A list of 10,000 tags of 128 characters is 1.3 MB.
constexpr std::size_t max_listing_bytes = 8 * 1024 * 1024;

}  // namespace

asio::awaitable<Outcome> serve_listing(Exchange& exchange, RegistryPtr registry,
                                       std::string repository, std::string what, Errc absent) {
  auto response = co_await registry->upstream(repository)
                      .send({.repository = repository,
                             .what = what,
                             .accept = "application/json, */*;q=0.1",
                             .trace = exchange.told_trace()});
  if (response->status() != 200)
    throw Failure(co_await error_of(*response, registry->name() + "/" + repository, absent));
  const std::string body = co_await read_all(*response, max_listing_bytes);
  exchange.add("Cache-Status", cache_status(Outcome::pass));
  if (const std::string link =
          rewrite_link(response->headers().get("Link"), exchange.request().target);
      !link.empty())
    exchange.add("Link", link);
  if (response->headers().get("OCI-Filters-Applied") == "artifactType")
    exchange.add("OCI-Filters-Applied", "artifactType");
  const bool index = what.starts_with("referrers/");
  co_await exchange.reply(
      200, index ? "application/vnd.oci.image.index.v1+json" : "application/json", body);
  co_return Outcome::pass;
}

}  // namespace staithe::proxy
