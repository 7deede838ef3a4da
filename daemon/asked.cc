#include "daemon/asked.h"

#include <algorithm>
#include <boost/json/object.hpp>
#include <string>
#include <utility>

#include "cache/error.h"
#include "proxy/auth/json.h"

namespace staithe::daemon {

Asked Asked::parse(std::string_view body, std::span<const std::string_view> fields) {
  auto document = proxy::auth::parse_json_object(body.empty() ? "{}" : body);
  if (!document) throw Failure(Errc::bad_request, "the request is not a JSON object");
  Asked asked(std::move(*document));
  for (const auto& member : asked.document_.get_object()) {
    if (std::ranges::find(fields, std::string_view(member.key())) == fields.end()) {
      std::string known;
      for (const std::string_view field : fields)
        known.append(known.empty() ? "" : ", ").append(field);
      throw Failure(Errc::bad_request,
                    "the request has a field that is not known here; known: " + known);
    }
    if (!member.value().is_string())
      throw Failure(Errc::bad_request,
                    "the request's " + std::string(member.key()) + " is not a string");
  }
  return asked;
}

std::string_view Asked::operator[](std::string_view field) const {
  const boost::json::value* value = document_.get_object().if_contains(field);
  return value ? std::string_view(value->get_string()) : std::string_view();
}

}  // namespace staithe::daemon
