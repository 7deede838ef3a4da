// Request targets: whatever is accepted names only what the grammar allows.
#include "proxy/route.h"

#include "tests/fuzz/fuzz.h"

void staithe::fuzz::one(std::string_view input) {
  const auto route = proxy::parse_route(input);
  if (!route) {
    check(!route.error().detail.empty());
    return;
  }
  std::visit(
      [](const auto& r) {
        if constexpr (requires { r.name; }) {
          check(proxy::is_repository(r.name.repository));
          check(r.name.registry.empty() || proxy::parse_registry(r.name.registry).has_value());
        }
        if constexpr (requires { r.query; })
          check(r.query.find_first_of(" \r\n#") == std::string::npos);
      },
      *route);
}
