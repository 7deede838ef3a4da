// Server URLs of credential helpers: whatever is accepted is one host of the grammar.
#include "daemon/server_url.h"

#include "daemon/image_name.h"
#include "proxy/reference.h"
#include "tests/fuzz/fuzz.h"

void staithe::fuzz::one(std::string_view input) {
  const auto url = daemon::parse_server_url(input);
  if (url) {
    check(proxy::parse_registry(url->registry).value_or("") == url->registry);
    check(url->repository.empty() || proxy::is_repository(url->repository));
    const auto again = daemon::parse_server_url(daemon::to_server_url(url->registry));
    check(again && again->registry == url->registry && again->repository.empty());
    for (const char c : input) check(c > ' ' && c <= '~' && c != '@' && c != '?');
  } else {
    for (const char c : url.error().detail) check(c >= ' ' && c <= '~');
  }
  if (const auto image = daemon::parse_image_name(input)) {
    check(proxy::is_repository(image->repository));
    check(proxy::parse_registry(image->host).value_or("") == image->registry);
  }
}
