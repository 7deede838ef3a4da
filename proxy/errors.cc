#include "proxy/errors.h"

#include <boost/beast/http/status.hpp>
#include <boost/json.hpp>

namespace staithe::proxy {

ErrorReply reply_for(Errc code) {
  switch (code) {
    case Errc::bad_request:
      return {400, "UNSUPPORTED"};
    case Errc::name_invalid:
      return {400, "NAME_INVALID"};
    case Errc::digest_invalid:
      return {400, "DIGEST_INVALID"};
    case Errc::range_not_satisfiable:
      return {416, "UNSUPPORTED"};
    case Errc::not_found:
      return {404, "UNSUPPORTED"};
    case Errc::unsupported:
      return {405, "UNSUPPORTED"};
    case Errc::registry_unknown:
      return {404, "NAME_UNKNOWN"};
    case Errc::name_unknown:
      return {404, "NAME_UNKNOWN"};
    case Errc::manifest_unknown:
      return {404, "MANIFEST_UNKNOWN"};
    case Errc::blob_unknown:
      return {404, "BLOB_UNKNOWN"};
    case Errc::denied:
    case Errc::unauthorized:
    case Errc::firewall:
      return {403, "DENIED"};
    case Errc::too_large:
      return {431, "UNSUPPORTED"};
    case Errc::identity_missing:
    case Errc::throttled:
    case Errc::unreachable:
    case Errc::cancelled:
      return {503, "UNAVAILABLE"};
    case Errc::upstream_failed:
    case Errc::upstream_nonsense:
      return {502, "UNAVAILABLE"};
    case Errc::storage_full:
    case Errc::storage_failed:
    case Errc::in_use:
    case Errc::config:
      return {500, "UNKNOWN"};
  }
  return {500, "UNKNOWN"};
}

ErrorReply reply_for_blob(Errc code) {
  const ErrorReply reply = reply_for(code);
  const bool asked_wrongly = reply.status == 400 || reply.status == 405 || reply.status == 416;
  if (asked_wrongly || code == Errc::registry_unknown || code == Errc::name_unknown) return reply;
  return {404, "BLOB_UNKNOWN"};
}

std::string error_body(std::string_view code, std::string_view message) {
  boost::json::object error{{"code", code}, {"message", message}};
  return boost::json::serialize(
      boost::json::object{{"errors", boost::json::array{std::move(error)}}});
}

bool tells_of_firewall(std::string_view body) {
  return body.contains("is not allowed access") || body.contains("not allowed by network rules");
}

std::string_view reason_phrase(int status) {
  const auto phrase = boost::beast::http::obsolete_reason(
      boost::beast::http::int_to_status(static_cast<unsigned>(status)));
  return {phrase.data(), phrase.size()};
}

}  // namespace staithe::proxy
