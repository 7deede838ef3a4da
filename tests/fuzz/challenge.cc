// WWW-Authenticate as a hostile upstream sends it.
#include "proxy/auth/challenge.h"

#include "tests/fuzz/fuzz.h"

void staithe::fuzz::one(std::string_view input) {
  std::vector<std::string_view> fields;  // One per line.
  while (!input.empty()) {
    const std::size_t end = input.find('\n');
    fields.push_back(input.substr(0, end));
    if (end == std::string_view::npos) break;
    input.remove_prefix(end + 1);
  }
  const auto challenges = proxy::auth::parse_challenges(fields);
  if (!challenges) {
    check(!challenges.error().detail.empty());
    return;
  }
  for (const auto& challenge : *challenges) check(!challenge.scheme.empty());
}
