// Location headers: whatever is followed leads to the registry or to a host that is known.
#include "proxy/redirect.h"

#include "tests/fuzz/fuzz.h"

void staithe::fuzz::one(std::string_view input) {
  static const proxy::Url from =
      *proxy::Url::parse("https://contoso.azurecr.io/v2/app/blobs/sha256:0");
  static const proxy::RedirectPolicy policy{
      .registry = from.origin(), .data_hosts = {"cdn.example"}, .acr_suffixes = {"azurecr.io"}};
  const auto to = from.resolve(input);
  if (!to) {
    check(!to.error().detail.empty());
    return;
  }
  check(to->target().starts_with('/'));
  check(to->printable().find('?') == std::string::npos);
  if (!proxy::may_follow(policy, from, *to)) return;
  const auto& origin = to->origin();
  check(origin.scheme == "https");
  check(origin == from.origin() || origin.host == "cdn.example" ||
        origin.host.ends_with(".blob.core.windows.net") ||
        origin.host.ends_with(".blob.core.chinacloudapi.cn") ||
        origin.host.ends_with(".blob.core.usgovcloudapi.net") ||
        (origin.host.starts_with("contoso.") && origin.host.ends_with(".data.azurecr.io")));
}
