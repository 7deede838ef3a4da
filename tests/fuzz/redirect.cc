// Location headers: whatever is followed leads to the registry or to a host that is known, and what
// is shown of it has neither query nor user.
#include "proxy/redirect.h"

#include <string>

#include "tests/fuzz/fuzz.h"

namespace staithe::fuzz {

namespace {

constexpr std::string_view secret = "sig=Xq7vKm2pZr9sWd4t";

void check_one(std::string_view location) {
  static const proxy::Url from =
      *proxy::Url::parse("https://contoso.azurecr.io/v2/app/blobs/sha256:0");
  static const proxy::RedirectPolicy policy{
      .registry = from.origin(), .data_hosts = {"cdn.example"}, .acr_suffixes = {"azurecr.io"}};
  const auto to = from.resolve(location);
  if (!to) {
    check(is_printable(to.error().detail) && !to.error().detail.contains(secret));
    return;
  }
  check(to->target().starts_with('/'));
  check(to->printable().find('?') == std::string::npos);
  check(!to->printable().contains(secret));
  // What is sent is one line of a request.
  check(is_printable(to->wire()) && !to->wire().contains(' '));
  const auto may = proxy::may_follow(policy, from, *to);
  if (!may) {
    check(is_printable(may.error().detail) && !may.error().detail.contains(secret));
    return;
  }
  const auto& origin = to->origin();
  check(origin.scheme == "https");
  check(!proxy::is_ip_literal(origin.host));
  check(origin == from.origin() || origin.host == "cdn.example" ||
        origin.host.ends_with(".blob.core.windows.net") ||
        origin.host.ends_with(".blob.core.chinacloudapi.cn") ||
        origin.host.ends_with(".blob.core.usgovcloudapi.net") ||
        (origin.host.starts_with("contoso.") && origin.host.ends_with(".data.azurecr.io")));
}

}  // namespace

void one(std::string_view input) {
  if (input.contains(secret)) return;  // In a path it is nobody's secret.
  check_one(input);
  // The same as a signed URL.
  if (input.contains('#')) return;
  std::string with_secret(input);
  with_secret += input.contains('?') ? '&' : '?';
  check_one(with_secret.append(secret));
}

}  // namespace staithe::fuzz
