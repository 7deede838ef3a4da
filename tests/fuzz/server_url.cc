// Server URLs of credential helpers and names of images: whatever is accepted is one host of the
// grammar, and is said again in one way (threat T21).
#include "daemon/server_url.h"

#include <string>

#include "daemon/image_list.h"
#include "daemon/image_name.h"
#include "proxy/reference.h"
#include "tests/fuzz/fuzz.h"

namespace staithe::fuzz {

namespace {

void check_image(std::string_view input) {
  const auto image = daemon::parse_image_name(input);
  if (!image) {
    check(is_printable(image.error().detail));
    return;
  }
  check(proxy::is_repository(image->repository));
  check(proxy::parse_registry(image->host).value_or("") == image->registry);
  check(image->reference.empty() || proxy::Reference::parse(image->reference).has_value());
  std::string plain = image->host + "/" + image->repository;
  if (!image->reference.empty())
    plain += (image->reference.contains(':') ? "@" : ":") + image->reference;
  const auto again = daemon::parse_image_name(plain);
  check(again && *again == *image);
}

}  // namespace

void one(std::string_view input) {
  const auto url = daemon::parse_server_url(input);
  if (url) {
    check(proxy::parse_registry(url->registry).value_or("") == url->registry);
    check(url->repository.empty() || proxy::is_repository(url->repository));
    const auto again = daemon::parse_server_url(daemon::to_server_url(url->registry));
    check(again && again->registry == url->registry && again->repository.empty());
    for (const char c : input) check(c > ' ' && c <= '~' && c != '@' && c != '?');
  } else {
    check(is_printable(url.error().detail));
  }
  check_image(input);
  const auto list = daemon::parse_image_list(input, "images");
  if (list) {
    for (const std::string& name : *list) check(daemon::parse_image_name(name).has_value());
  } else {
    check(!list.error().empty());
    for (const std::string& fault : list.error()) check(is_printable(fault));
  }
}

}  // namespace staithe::fuzz
