#include "cache/error.h"

#include <system_error>

namespace staithe {

const char* to_string(Errc code) {
  switch (code) {
    case Errc::bad_request:
      return "bad_request";
    case Errc::name_invalid:
      return "name_invalid";
    case Errc::digest_invalid:
      return "digest_invalid";
    case Errc::range_not_satisfiable:
      return "range_not_satisfiable";
    case Errc::not_found:
      return "not_found";
    case Errc::unsupported:
      return "unsupported";
    case Errc::registry_unknown:
      return "registry_unknown";
    case Errc::name_unknown:
      return "name_unknown";
    case Errc::manifest_unknown:
      return "manifest_unknown";
    case Errc::blob_unknown:
      return "blob_unknown";
    case Errc::denied:
      return "denied";
    case Errc::unauthorized:
      return "unauthorized";
    case Errc::identity_missing:
      return "identity_missing";
    case Errc::firewall:
      return "firewall";
    case Errc::throttled:
      return "throttled";
    case Errc::unreachable:
      return "unreachable";
    case Errc::upstream_failed:
      return "upstream_failed";
    case Errc::upstream_nonsense:
      return "upstream_nonsense";
    case Errc::too_large:
      return "too_large";
    case Errc::storage_full:
      return "storage_full";
    case Errc::storage_failed:
      return "storage_failed";
    case Errc::in_use:
      return "in_use";
    case Errc::cancelled:
      return "cancelled";
    case Errc::config:
      return "config";
  }
  return "unknown";
}

std::string describe_errno(int error_number) {
  return std::generic_category().message(error_number);
}

}  // namespace staithe
