// Bodies of requests to the control socket: what is accepted has the known fields alone, each a
// text and as any reader of JSON finds it; what is refused is not quoted.
#include "daemon/asked.h"

#include <array>
#include <boost/json/parse.hpp>

#include "cache/error.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/json.h"

void staithe::fuzz::one(std::string_view input) {
  constexpr std::array<std::string_view, 6> fields{
      "registry", "repository", "purpose", "service_account_token", "client_id", "tenant_id"};
  try {
    const daemon::Asked asked = daemon::Asked::parse(input, fields);
    if (input.empty()) return;
    const auto document = boost::json::parse(input);
    const auto& object = document.as_object();
    for (const auto& member : object)
      check(std::ranges::find(fields, std::string_view(member.key())) != fields.end());
    for (const std::string_view field : fields) {
      check(asked.has(field) == object.contains(field));
      if (asked.has(field)) check(says(object.at(field), asked[field]));
    }
  } catch (const Failure& failure) {
    check(failure.code() == Errc::bad_request && is_printable(failure.error().detail));
    // Of what was sent there is nothing but our own names for it.
    check(!failure.error().detail.contains("Xq7vKm2pZr9sWd4t"));
  }
}
