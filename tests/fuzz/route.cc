// Request targets: whatever is accepted names only what the grammar allows, and the one plain way
// to ask for the same is understood as the same.
#include "proxy/route.h"

#include "proxy/url.h"
#include "tests/fuzz/fuzz.h"

namespace staithe::fuzz {

namespace {

// Who is asked for what, and how it is asked for plainly.
struct Asked {
  const proxy::ImageName* name = nullptr;
  std::string what;
  std::string query;
};

Asked asked(const proxy::Route& route) {
  return std::visit(
      [](const auto& r) -> Asked {
        if constexpr (requires { r.reference; }) {
          return {&r.name, "/manifests/" + r.reference.to_string(), ""};
        } else if constexpr (requires {
                               r.digest;
                               r.query;
                             }) {
          return {&r.name, "/referrers/" + r.digest.to_string(), r.query};
        } else if constexpr (requires { r.digest; }) {
          return {&r.name, "/blobs/" + r.digest.to_string(), ""};
        } else if constexpr (requires { r.query; }) {
          return {&r.name, "/tags/list", r.query};
        } else {
          return {};
        }
      },
      route);
}

}  // namespace

void one(std::string_view input) {
  const auto route = proxy::parse_route(input);
  if (!route) {
    check(is_printable(route.error().detail) && !route.error().detail.empty());
    return;
  }
  const Asked first = asked(*route);
  if (!first.name) return;
  check(proxy::is_repository(first.name->repository));
  check(first.name->registry.empty() ||
        proxy::parse_registry(first.name->registry).value_or("") == first.name->registry);
  check(first.name->registry.empty() ? !first.name->by_ns : true);
  check(first.query.empty() || first.query.starts_with('?'));
  check(first.query.find_first_of(" \r\n#") == std::string::npos);

  std::string plain = "/v2/" + first.name->repository + first.what + first.query;
  if (!first.name->registry.empty())
    plain += (first.query.empty() ? "?ns=" : "&ns=") + proxy::percent_encode(first.name->registry);
  const auto again = proxy::parse_route(plain);
  if (!again && plain.size() > input.size()) return;  // It may be too long now.
  check(again.has_value() && again->index() == route->index());
  const Asked second = asked(*again);
  check(second.name->registry == first.name->registry);
  check(second.name->repository == first.name->repository);
  check(second.what == first.what && second.query == first.query);
}

}  // namespace staithe::fuzz
