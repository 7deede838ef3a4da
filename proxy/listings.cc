#include "proxy/listings.h"

namespace staithe::proxy {

namespace {

// A list of 10,000 tags of 128 characters is 1.3 MB.
constexpr std::size_t max_listing_bytes = 8 * 1024 * 1024;

// The parameter `name` of a query, with its name, as it stands there.
std::string_view parameter(std::string_view query, std::string_view name) {
  while (!query.empty()) {
    const std::size_t end = query.find('&');
    const std::string_view pair = query.substr(0, end);
    if (pair.starts_with(name) && pair.substr(name.size()).starts_with('=')) return pair;
    if (end == std::string_view::npos) break;
    query.remove_prefix(end + 1);
  }
  return {};
}

}  // namespace

std::string rewrite_link(std::string_view link, std::string_view request_target) {
  const std::size_t open = link.find('<');
  const std::size_t close = link.find('>');
  if (open == std::string_view::npos || close == std::string_view::npos || close < open ||
      link.find("rel=\"next\"", close) == std::string_view::npos)
    return {};
  const std::string_view target = link.substr(open + 1, close - open - 1);
  const std::size_t question = target.find('?');
  if (question == std::string_view::npos) return {};
  const std::string_view next = target.substr(question + 1);
  const std::size_t own_question = request_target.find('?');
  std::string result = "<";
  result += request_target.substr(0, own_question);
  char separator = '?';
  const auto append = [&](std::string_view pair) {
    if (pair.empty()) return;
    for (const char c : pair) {
      if (c <= ' ' || c >= '\x7f' || c == '<' || c == '>' || c == '"') return;
    }
    result += separator;
    result += pair;
    separator = '&';
  };
  append(parameter(next, "last"));
  append(parameter(next, "n"));
  if (separator == '?') return {};
  if (own_question != std::string_view::npos)
    append(parameter(request_target.substr(own_question + 1), "ns"));
  return result + ">; rel=\"next\"";
}

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
