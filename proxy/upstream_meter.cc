#include "proxy/upstream_meter.h"

#include <algorithm>
#include <array>

namespace staithe::proxy {

namespace {

struct Code {
  int status;
  std::string_view label;
};
// What registries, their storage and the proxies before them answer.
constexpr auto codes =
    std::to_array<Code>({{200, "200"}, {206, "206"}, {301, "301"}, {302, "302"}, {303, "303"},
                         {304, "304"}, {307, "307"}, {308, "308"}, {400, "400"}, {401, "401"},
                         {403, "403"}, {404, "404"}, {405, "405"}, {408, "408"}, {416, "416"},
                         {429, "429"}, {500, "500"}, {502, "502"}, {503, "503"}, {504, "504"}});
constexpr std::array<std::string_view, 5> classes{"1xx", "2xx", "3xx", "4xx", "5xx"};

}  // namespace

std::string_view to_string(UpstreamKind kind) {
  switch (kind) {
    case UpstreamKind::manifest:
      return "manifest";
    case UpstreamKind::blob:
      return "blob";
    case UpstreamKind::tags:
      return "tags";
    case UpstreamKind::referrers:
      return "referrers";
  }
  std::unreachable();
}

UpstreamKind upstream_kind_of(std::string_view what) {
  if (what.starts_with("blobs/")) return UpstreamKind::blob;
  if (what.starts_with("tags/")) return UpstreamKind::tags;
  if (what.starts_with("referrers/")) return UpstreamKind::referrers;
  return UpstreamKind::manifest;
}

std::string_view code_label(int status) {
  const auto known = std::ranges::find(codes, status, &Code::status);
  if (known != codes.end()) return known->label;
  if (status == 0) return "none";
  if (status < 100 || status > 599) return "other";
  return classes[static_cast<std::size_t>(status / 100 - 1)];
}

}  // namespace staithe::proxy
