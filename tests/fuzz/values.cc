// Single values of staithe.toml: what is accepted has one form, which is accepted and is that form.
#include "daemon/values.h"

#include "proxy/auth/trust.h"
#include "proxy/reference.h"
#include "proxy/url.h"
#include "tests/fuzz/fuzz.h"

namespace staithe::fuzz {

namespace {

using daemon::Parsed;

// The accepted value, after what all of them have in common.
template <class Parse>
std::string settled(std::string_view input, const Parse& parse) {
  const Parsed<std::string> value = parse(input);
  if (!value) {
    check(is_printable(value.error()) && !value.error().empty());
    return {};
  }
  check(parse(*value).value_or("\1") == *value);
  return *value;
}

}  // namespace

void one(std::string_view input) {
  if (const auto duration = daemon::parse_duration(input)) {
    check(duration->count() >= 0);
    check(daemon::parse_duration(daemon::format_duration(*duration)) == duration);
  }
  if (const auto size = daemon::parse_size(input)) {
    const auto again = daemon::parse_size(daemon::format_size(*size));
    check(again && again->bytes == size->bytes && again->share == size->share);
  }
  if (const std::string address = settled(input, daemon::parse_listen_address); !address.empty()) {
    std::string_view place = address;
    if (place.starts_with("tls:")) place.remove_prefix(4);
    check(place.starts_with("unix:/") || place.starts_with("127.") || place.starts_with("[::1]:"));
  }
  for (const auto parse : {daemon::parse_host, daemon::parse_registry_name}) {
    const std::string host = settled(input, parse);
    if (!host.empty() && !host.starts_with("*.")) check(proxy::parse_registry(host).has_value());
  }
  settled(input, daemon::parse_host_pattern);
  settled(input, daemon::parse_host_suffix);
  for (const auto parse :
       {daemon::parse_origin_url, daemon::parse_upstream_url, daemon::parse_authority}) {
    const std::string url = settled(input, parse);
    if (url.empty()) continue;
    check(url.find_first_of("?#@ ") == std::string::npos);
    const auto parsed = proxy::Url::parse(url);
    // Ports and addresses that no connection can go to are told when they are used.
    if (parsed && parsed->origin().scheme == "http" && parse == daemon::parse_authority)
      check(proxy::auth::reach_of(parsed->origin().host) == proxy::auth::Reach::loopback);
  }
  settled(input, daemon::parse_audience);
  if (const std::string prefix = settled(input, daemon::parse_repository_prefix); !prefix.empty())
    check(prefix.ends_with('/') && proxy::is_repository(prefix.substr(0, prefix.size() - 1)));
  settled(input, daemon::parse_guid);
  settled(input, daemon::parse_azure_resource_id);
  settled(input, daemon::parse_account);
  settled(input, daemon::parse_identity_name);
  settled(input, daemon::parse_helper_name);
  settled(input, daemon::parse_plain_text);
  const std::string path = settled(
      input, [](std::string_view text) { return daemon::parse_path(text, "/run/credentials/x"); });
  if (!path.empty()) check(path.starts_with('/') && !path.contains("/../"));
}

}  // namespace staithe::fuzz
