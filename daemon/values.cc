#include "daemon/values.h"

#include <arpa/inet.h>
#include <netinet/in.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <limits>
#include <utility>
#include <vector>

#include "cache/escape.h"
#include "proxy/auth/trust.h"

namespace staithe::daemon {
namespace {

bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_lower(char c) { return c >= 'a' && c <= 'z'; }
bool is_upper(char c) { return c >= 'A' && c <= 'Z'; }
bool is_alnum(char c) { return is_digit(c) || is_lower(c) || is_upper(c); }

std::string lower(std::string_view text) {
  std::string result(text);
  for (char& c : result) {
    if (is_upper(c)) c = static_cast<char>(c - 'A' + 'a');
  }
  return result;
}

std::unexpected<std::string> wrong(std::string what) { return std::unexpected(std::move(what)); }

// All of `text` as a decimal number without sign; nothing if it is not one or does not fit.
template <class T>
std::expected<T, std::errc> number(std::string_view text) {
  T value{};
  if (text.empty() || !std::ranges::all_of(text, is_digit)) {
    return std::unexpected(std::errc::invalid_argument);
  }
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc()) return std::unexpected(error);
  return value;
}

std::size_t digits_at_front(std::string_view text) {
  return static_cast<std::size_t>(std::ranges::find_if_not(text, is_digit) - text.begin());
}

struct DurationUnit {
  std::string_view name;
  std::int64_t milliseconds;
};
constexpr std::array<DurationUnit, 5> kDurationUnits{
    {{"d", 86'400'000}, {"h", 3'600'000}, {"m", 60'000}, {"s", 1'000}, {"ms", 1}}};
constexpr std::string_view kDurationAccepted =
    "accepted: a whole number with ms, s, m, h or d, as in \"30s\"";
// Far beyond every option's range, and far from overflow in nanoseconds.
constexpr std::int64_t kMaxDurationMs = 36'500LL * 86'400'000;

struct SizeUnit {
  std::string_view name;
  std::uint64_t bytes;
};
constexpr std::array<SizeUnit, 4> kSizeUnits{
    {{"TiB", 1ULL << 40}, {"GiB", 1ULL << 30}, {"MiB", 1ULL << 20}, {"KiB", 1ULL << 10}}};
constexpr std::string_view kSizeAccepted =
    "accepted: a whole number of bytes, or with KiB, MiB, GiB or TiB, or a share of the filesystem "
    "as in \"80%\"";

constexpr std::size_t kMaxHostBytes = 253;  // RFC 1035 section 2.3.4, as text
constexpr std::size_t kMaxLabelBytes = 63;
constexpr std::size_t kMaxRepositoryBytes = 255;  // as the clients limit it

// What is wrong with a DNS name or an IPv4 address in lower case; empty if nothing.
std::string host_name_fault(std::string_view name) {
  if (name.empty()) return "the host name is empty";
  if (name.size() > kMaxHostBytes) return "the host name is longer than 253 characters";
  if (std::ranges::any_of(name, is_upper)) return "a host is written in lower case";
  std::size_t begin = 0;
  while (begin <= name.size()) {
    const std::size_t end = std::min(name.find('.', begin), name.size());
    const std::string_view label = name.substr(begin, end - begin);
    if (label.empty()) return "a host name has no empty labels (two dots, or one at an end)";
    if (label.size() > kMaxLabelBytes) return "a label of a host name has at most 63 characters";
    for (const char c : label) {
      if (!is_digit(c) && !is_lower(c) && c != '-') {
        return "a host is made of a-z, 0-9, \"-\" and \".\"";
      }
    }
    if (label.front() == '-' || label.back() == '-') {
      return "a label of a host name neither begins nor ends with \"-\"";
    }
    begin = end + 1;
  }
  return {};
}

std::size_t label_count(std::string_view name) {
  return static_cast<std::size_t>(std::ranges::count(name, '.')) + 1;
}

Parsed<std::uint16_t> parse_port(std::string_view text, unsigned least) {
  const auto port = number<std::uint32_t>(text);
  if (!port || *port < least || *port > 65535 || (text.size() > 1 && text.front() == '0')) {
    return wrong("the port " + shown(text) + " is not a number from " + std::to_string(least) +
                 " to 65535");
  }
  return static_cast<std::uint16_t>(*port);
}

struct HostPort {
  std::string host;  // an IPv6 literal stands in brackets
  std::string port;  // empty: none
};

// Whether it is one as a whole: for inet_pton it ends at a NUL.
bool is_address(int family, const std::string& text, void* to) {
  return !text.contains('\0') && inet_pton(family, text.c_str(), to) == 1;
}

// host[:port] with nothing decided about what the host may be, but that it is one.
Parsed<HostPort> split_host(std::string_view text) {
  HostPort result;
  std::string_view rest;
  if (text.starts_with('[')) {
    const std::size_t end = text.find(']');
    if (end == text.npos) return wrong("an IPv6 address stands in brackets, as in \"[::1]\"");
    const std::string literal(text.substr(1, end - 1));
    in6_addr address{};
    if (!is_address(AF_INET6, literal, &address)) {
      return wrong(shown(literal) + " is not an IPv6 address");
    }
    if (std::ranges::any_of(literal, is_upper)) return wrong("a host is written in lower case");
    result.host = "[" + literal + "]";
    rest = text.substr(end + 1);
    if (!rest.empty() && rest.front() != ':') {
      return wrong("after the brackets of an IPv6 address comes \":port\" or nothing");
    }
  } else {
    const std::size_t colon = std::min(text.find(':'), text.size());
    result.host = text.substr(0, colon);
    if (std::string fault = host_name_fault(result.host); !fault.empty()) {
      return wrong(std::move(fault));
    }
    rest = text.substr(colon);
  }
  if (!rest.empty()) {
    const auto port = parse_port(rest.substr(1), 1);
    if (!port) return wrong(port.error());
    result.port = std::to_string(*port);
  }
  return result;
}

std::string join(const HostPort& parts) {
  return parts.port.empty() ? parts.host : parts.host + ":" + parts.port;
}

// "*.suffix" -> "suffix", checked.
Parsed<std::string> parse_wildcard(std::string_view text) {
  auto suffix = parse_host_suffix(text.substr(2));
  if (!suffix) {
    return wrong(shown(text) + " is not a wildcard that can be used: " + suffix.error());
  }
  return "*." + *suffix;
}

// `accepted` ends every fault.
Parsed<std::string> parse_origin(std::string_view text, const std::string& accepted) {
  // These three are looked for first, and the value is not shown: it may hold a secret.
  if (text.find('@') != text.npos) {
    return wrong(
        "a URL in this file holds no user name or password: give the registry an "
        "identity; " +
        accepted);
  }
  if (text.find_first_of("?#") != text.npos) {
    return wrong("a URL in this file holds no query and no fragment; " + accepted);
  }
  std::string scheme;
  for (const std::string_view candidate : {"https://", "http://"}) {
    if (lower(text.substr(0, candidate.size())) == candidate) scheme = candidate;
  }
  if (scheme.empty()) return wrong(shown(text) + " does not begin with https://; " + accepted);
  std::string_view authority = text.substr(scheme.size());
  if (authority.ends_with('/')) authority.remove_suffix(1);
  if (authority.find('/') != authority.npos) {
    return wrong(shown(text) + " has a path; " + accepted);
  }
  const auto parts = split_host(lower(authority));
  if (!parts) return wrong(shown(text) + ": " + parts.error() + "; " + accepted);
  return scheme + join(*parts);
}

}  // namespace

std::string shown(std::string_view text) {
  constexpr std::size_t kMaxShown = 80;
  return "\"" + printable(text, kMaxShown) + "\"";
}

std::size_t edit_distance(std::string_view a, std::string_view b) {
  // Optimal string alignment: rows are prefixes of `a`; a swap of neighbours looks two rows back.
  constexpr std::size_t kLongest = 64;
  a = a.substr(0, kLongest);
  b = b.substr(0, kLongest);
  std::vector<std::array<std::size_t, kLongest + 1>> d(a.size() + 1);
  for (std::size_t i = 0; i <= a.size(); ++i) d[i][0] = i;
  for (std::size_t j = 0; j <= b.size(); ++j) d[0][j] = j;
  for (std::size_t i = 1; i <= a.size(); ++i) {
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t replace = d[i - 1][j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1);
      d[i][j] = std::min({d[i - 1][j] + 1, d[i][j - 1] + 1, replace});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) {
        d[i][j] = std::min(d[i][j], d[i - 2][j - 2] + 1);
      }
    }
  }
  return d[a.size()][b.size()];
}

Parsed<std::chrono::milliseconds> parse_duration(std::string_view text) {
  const std::size_t digits = digits_at_front(text);
  const auto unit = std::ranges::find(kDurationUnits, text.substr(digits), &DurationUnit::name);
  if (digits == 0 || unit == kDurationUnits.end()) {
    return wrong(shown(text) + " is not a duration; " + std::string(kDurationAccepted));
  }
  const auto count = number<std::int64_t>(text.substr(0, digits));
  if (!count || *count > kMaxDurationMs / unit->milliseconds) {
    return wrong(shown(text) + " is longer than a hundred years");
  }
  return std::chrono::milliseconds(*count * unit->milliseconds);
}

std::string format_duration(std::chrono::milliseconds duration) {
  if (duration.count() == 0) return "0s";
  for (const DurationUnit& unit : kDurationUnits) {
    if (duration.count() % unit.milliseconds == 0) {
      return std::to_string(duration.count() / unit.milliseconds) + std::string(unit.name);
    }
  }
  std::unreachable();  // the last unit divides everything
}

Parsed<cache::Size> parse_size(std::string_view text) {
  const std::size_t digits = digits_at_front(text);
  const std::string_view suffix = text.substr(digits);
  if (digits == 0) return wrong(shown(text) + " is not a size; " + std::string(kSizeAccepted));
  const auto count = number<std::uint64_t>(text.substr(0, digits));
  if (suffix == "%") {
    if (!count || *count > 100) {
      return wrong(shown(text) + " is not a share of the filesystem; accepted: 0% to 100%");
    }
    return cache::Size{.bytes = 0, .share = static_cast<double>(*count) / 100};
  }
  std::uint64_t factor = 1;
  if (!suffix.empty()) {
    const auto unit = std::ranges::find(kSizeUnits, suffix, &SizeUnit::name);
    if (unit == kSizeUnits.end()) {
      return wrong(shown(text) + " is not a size; " + std::string(kSizeAccepted));
    }
    factor = unit->bytes;
  }
  constexpr std::uint64_t kMost = std::numeric_limits<std::int64_t>::max();  // what a file can have
  if (!count || *count > kMost / factor) return wrong(shown(text) + " is more than 8 EiB");
  return cache::Size{.bytes = *count * factor, .share = 0};
}

std::string format_size(const cache::Size& size) {
  if (size.share > 0) return std::to_string(std::lround(size.share * 100)) + "%";
  for (const SizeUnit& unit : kSizeUnits) {
    if (size.bytes != 0 && size.bytes % unit.bytes == 0) {
      return std::to_string(size.bytes / unit.bytes) + std::string(unit.name);
    }
  }
  return std::to_string(size.bytes);
}

Parsed<std::string> parse_listen_address(std::string_view text) {
  constexpr std::string_view kAccepted =
      "; accepted: \"127.0.0.1:5050\", \"[::1]:5050\" or \"unix:/path\"";
  if (text.starts_with("unix:")) {
    auto path = parse_path(text.substr(5), "");
    if (!path) return wrong(path.error());
    if (path->size() > kMaxSocketPath) {
      return wrong(shown(text) + " is longer than the 107 bytes that a Unix socket's path has");
    }
    return "unix:" + *path;
  }
  const bool bracketed = text.starts_with('[');
  const std::size_t host_end = bracketed ? text.find(']') : text.rfind(':');
  if (host_end == text.npos || (bracketed && text.substr(host_end + 1, 1) != ":")) {
    return wrong(shown(text) + " is not an address with a port" + std::string(kAccepted));
  }
  const std::string host(bracketed ? text.substr(1, host_end - 1) : text.substr(0, host_end));
  const auto port = parse_port(text.substr(host_end + (bracketed ? 2 : 1)), 0);
  if (!port) return wrong(shown(text) + ": " + port.error() + std::string(kAccepted));

  in_addr v4{};
  in6_addr v6{};
  const bool is_v4 = !bracketed && is_address(AF_INET, host, &v4);
  const bool is_v6 = bracketed && is_address(AF_INET6, host, &v6);
  if (!is_v4 && !is_v6) {
    return wrong(shown(text) + " does not name a numeric address" +
                 (host == "localhost" ? " (write 127.0.0.1, [::1] or both)" : "") +
                 std::string(kAccepted));
  }
  const bool loopback = is_v4 ? (ntohl(v4.s_addr) >> 24) == 127 : IN6_IS_ADDR_LOOPBACK(&v6) != 0;
  if (!loopback) {
    return wrong(shown(text) +
                 " is not a loopback address: whoever reaches this port pulls with "
                 "this machine's identity, so it is offered to this machine only; listen on "
                 "127.0.0.1 or [::1], or on a unix: socket that is mounted where it is needed");
  }
  std::array<char, INET6_ADDRSTRLEN> canonical{};
  inet_ntop(is_v4 ? AF_INET : AF_INET6, is_v4 ? static_cast<const void*>(&v4) : &v6,
            canonical.data(), canonical.size());
  const std::string ip = canonical.data();
  return (is_v4 ? ip : "[" + ip + "]") + ":" + std::to_string(*port);
}

Parsed<std::string> parse_host(std::string_view text) {
  const auto parts = split_host(text);
  if (!parts) {
    return wrong(shown(text) + " is not a host: " + parts.error() +
                 "; accepted: host[:port] as image names have it");
  }
  return join(*parts);
}

Parsed<std::string> parse_registry_name(std::string_view text) {
  if (text.find('*') != text.npos) {
    if (!text.starts_with("*.")) {
      return wrong(shown(text) +
                   ": a wildcard stands only for the first labels; accepted: a "
                   "registry host as image names have it, or \"*.suffix\"");
    }
    return parse_wildcard(text);
  }
  if (text.find("://") != text.npos) {
    return wrong(shown(text) +
                 " is a URL; the name is the host as image names have it, and the "
                 "URL goes into upstream");
  }
  if (text.find('/') != text.npos) {
    return wrong(shown(text) +
                 " has a path; the name is the host alone, and what stands before "
                 "the repository upstream goes into prefix");
  }
  auto name = parse_host(text);
  if (name && name->find_first_of(".:") == name->npos && *name != "localhost") {
    return wrong(shown(text) +
                 " would be read as part of a repository in an image name; "
                 "accepted: a host with a dot or a port, or localhost");
  }
  return name;
}

Parsed<std::string> parse_host_pattern(std::string_view text) {
  if (text.starts_with("*.")) return parse_wildcard(text);
  const auto parts = split_host(text);
  if (parts && parts->port.empty()) return parts->host;
  return wrong(shown(text) +
               " is not a host: " + (parts ? "a port does not belong to it" : parts.error()) +
               "; accepted: a host, or \"*.suffix\"");
}

Parsed<std::string> parse_host_suffix(std::string_view text) {
  if (text.starts_with('.') || text.starts_with('*')) {
    return wrong(shown(text) + " is written without the dot before it, as in \"azurecr.io\"");
  }
  if (std::string fault = host_name_fault(text); !fault.empty()) {
    return wrong(shown(text) + " is not a host suffix: " + fault);
  }
  if (label_count(text) < 2) {
    return wrong(shown(text) +
                 " is a suffix of one label and would take in too much; accepted: "
                 "two labels or more, as in \"azurecr.io\"");
  }
  return std::string(text);
}

Parsed<std::string> parse_origin_url(std::string_view text) {
  return parse_origin(text, "accepted: \"https://host[:port]\", or http:// written out");
}

Parsed<std::string> parse_upstream_url(std::string_view text) {
  const std::string accepted = "accepted: \"https://host[:port][/prefix]\", or http:// written out";
  const std::size_t scheme_end = text.find("://");
  const std::size_t slash = scheme_end == text.npos ? text.npos : text.find('/', scheme_end + 3);
  if (slash == text.npos || text.find_first_of("@?#") != text.npos) {
    return parse_origin(text, accepted);
  }
  auto origin = parse_origin(text.substr(0, slash), accepted);
  std::string prefix(text.substr(slash + 1));
  if (!origin || prefix.empty()) return origin;
  if (!prefix.ends_with('/')) prefix += '/';
  if (prefix.starts_with("v2/")) {
    return wrong(shown(text) +
                 ": the path is what stands before a repository's name there, and /v2/ is no part "
                 "of a name; " +
                 accepted);
  }
  if (auto good = parse_repository_prefix(prefix); !good) return wrong(good.error());
  prefix.pop_back();
  return *origin + "/" + prefix;
}

Parsed<std::string> parse_authority(std::string_view text) {
  const std::string accepted = "accepted: \"https://host[:port]\", or http:// with a loopback name";
  auto origin = parse_origin(text, accepted);
  if (!origin || !origin->starts_with("http://")) return origin;
  std::string_view host = std::string_view(*origin).substr(7);
  if (!host.ends_with(']')) host = host.substr(0, host.rfind(':'));
  if (proxy::auth::reach_of(host) == proxy::auth::Reach::loopback) return origin;
  return wrong(shown(text) + " is not encrypted; " + accepted);
}

Parsed<std::string> parse_audience(std::string_view text) {
  constexpr std::size_t kMaxAudience = 255;
  const bool plain = std::ranges::all_of(text, [](char c) {
    return is_alnum(c) || std::string_view("-._~:/%").find(c) != std::string_view::npos;
  });
  const std::size_t scheme_end = text.find("://");
  if (!plain || text.size() > kMaxAudience || scheme_end == text.npos || scheme_end == 0 ||
      scheme_end + 3 == text.size()) {
    // Not quoted: a user name or a key may have strayed into it.
    return wrong(
        "this is not the identifier of a resource; accepted: a URI without query, such "
        "as \"https://containerregistry.azure.net\"");
  }
  return std::string(text);
}

Parsed<std::string> parse_repository_prefix(std::string_view text) {
  constexpr std::string_view kAccepted =
      "; accepted: repository components in lower case, each with its slash, as in \"team-a/\"";
  if (text.size() > kMaxRepositoryBytes) return wrong("a prefix has at most 255 characters");
  if (!text.ends_with('/')) {
    return wrong(shown(text) + " does not end in \"/\"" + std::string(kAccepted));
  }
  // [a-z0-9]+((\.|_|__|-+)[a-z0-9]+)* per component
  std::size_t begin = 0;
  while (begin < text.size()) {
    const std::size_t end = text.find('/', begin);
    const std::string_view component = text.substr(begin, end - begin);
    const auto plain = [](char c) { return is_digit(c) || is_lower(c); };
    bool good = !component.empty() && plain(component.front()) && plain(component.back());
    for (std::size_t i = 0; good && i < component.size(); ++i) {
      if (plain(component[i])) continue;
      const std::size_t run =
          std::min(component.find_first_not_of(component[i], i), component.size()) - i;
      good = component[i] == '-' || (component[i] == '.' && run == 1) ||
             (component[i] == '_' && run <= 2);
      i += run - 1;
      good = good && plain(component[i + 1]);
    }
    if (!good) {
      return wrong(shown(text) + " is not the beginning of a repository's name" +
                   std::string(kAccepted));
    }
    begin = end + 1;
  }
  return std::string(text);
}

Parsed<std::string> parse_guid(std::string_view text) {
  constexpr std::string_view kShape = "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx";
  std::string guid = lower(text);
  bool good = guid.size() == kShape.size();
  for (std::size_t i = 0; good && i < guid.size(); ++i) {
    good =
        kShape[i] == '-' ? guid[i] == '-' : is_digit(guid[i]) || (guid[i] >= 'a' && guid[i] <= 'f');
  }
  if (!good) {
    return wrong(
        shown(text) +
        " is not a GUID; accepted: \"xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx\" in hexadecimal");
  }
  return guid;
}

Parsed<std::string> parse_azure_resource_id(std::string_view text) {
  constexpr std::string_view kAccepted =
      "; accepted: \"/subscriptions/<guid>/resourceGroups/<name>/providers/"
      "Microsoft.ManagedIdentity/userAssignedIdentities/<name>\"";
  constexpr std::size_t kMaxResourceId = 1024;
  std::vector<std::string_view> parts;
  for (std::size_t begin = 1; begin <= text.size();) {
    const std::size_t end = std::min(text.find('/', begin), text.size());
    parts.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  // Azure compares resource ids without regard to case. Names hold letters, digits and "-._()".
  const bool plain = std::ranges::all_of(text, [](char c) {
    return is_alnum(c) || std::string_view("/-._()").find(c) != std::string_view::npos;
  });
  const bool whole = parts.size() == 8 && std::ranges::none_of(parts, &std::string_view::empty);
  if (!text.starts_with('/') || text.size() > kMaxResourceId || !plain || !whole ||
      lower(parts[0]) != "subscriptions" || !parse_guid(parts[1]) ||
      lower(parts[2]) != "resourcegroups" || lower(parts[4]) != "providers") {
    return wrong(shown(text) + " is not the resource id of an identity" + std::string(kAccepted));
  }
  return std::string(text);
}

Parsed<std::string> parse_account(std::string_view text) {
  constexpr std::size_t kMaxName = 32;  // useradd(8)
  const bool is_number = !text.empty() && std::ranges::all_of(text, is_digit);
  if (is_number) {
    // The last one means "no change" to chown(2) and is no account.
    const auto id = number<std::uint32_t>(text);
    if (!id || *id == std::numeric_limits<std::uint32_t>::max()) {
      return wrong(shown(text) + " is not the number of an account; accepted: 0 to 4294967294");
    }
    return std::to_string(*id);
  }
  const bool good =
      !text.empty() && text.size() <= kMaxName && text.front() != '-' &&
      std::ranges::all_of(text, [](char c) {
        return is_alnum(c) || std::string_view("-._@").find(c) != std::string_view::npos;
      });
  if (!good) {
    return wrong(shown(text) +
                 " is not an account; accepted: a name of at most 32 letters, "
                 "digits, \"-\", \"_\", \".\", \"@\", or a number");
  }
  return std::string(text);
}

Parsed<std::string> parse_identity_name(std::string_view text) {
  const bool good = !text.empty() && text.size() <= 64 && is_alnum(text.front()) &&
                    std::ranges::all_of(text, [](char c) {
                      return is_alnum(c) || c == '-' || c == '_' || c == '.';
                    });
  if (!good) {
    return wrong(shown(text) +
                 " is not a name for an identity; accepted: 1 to 64 letters, "
                 "digits, \"-\", \"_\" and \".\", the first a letter or digit");
  }
  return std::string(text);
}

Parsed<std::string> parse_path(std::string_view text, std::string_view credentials_directory) {
  constexpr std::string_view kVariable = "${CREDENTIALS_DIRECTORY}";
  constexpr std::size_t kMaxPath = 4095;  // PATH_MAX without its NUL
  std::string path(text);
  if (text.starts_with(kVariable)) {
    if (credentials_directory.empty()) {
      return wrong(
          "$CREDENTIALS_DIRECTORY is not set: systemd sets it for a unit with "
          "LoadCredential=; to check a file by hand, set it to a directory that holds the "
          "same names");
    }
    path = std::string(credentials_directory) + path.substr(kVariable.size());
  }
  if (path.find("${") != path.npos) {
    return wrong(shown(text) +
                 ": only ${CREDENTIALS_DIRECTORY} may be used, at the beginning of "
                 "a path");
  }
  const auto is_control = [](char c) { return static_cast<unsigned char>(c) < ' ' || c == 0x7f; };
  if (path.size() > kMaxPath || std::ranges::any_of(path, is_control)) {
    return wrong(shown(text) + " is not a path: control characters, or more than 4095 bytes");
  }
  if (!path.starts_with('/')) {
    return wrong(shown(text) +
                 " is not absolute; accepted: a path that begins with \"/\" or "
                 "\"${CREDENTIALS_DIRECTORY}/\"");
  }
  for (std::size_t begin = 1; begin <= path.size();) {
    const std::size_t end = std::min(path.find('/', begin), path.size());
    const std::string_view part = std::string_view(path).substr(begin, end - begin);
    if (part == "." || part == "..") {
      return wrong(shown(text) + " has \".\" or \"..\" in it; write the path out");
    }
    begin = end + 1;
  }
  return path;
}

Parsed<std::string> parse_helper_name(std::string_view text) {
  constexpr std::size_t kMaxHelper = 64;
  const auto plain = [](char c) { return is_digit(c) || is_lower(c); };
  if (text.empty() || text.size() > kMaxHelper || !plain(text.front()) ||
      !std::ranges::all_of(text, [&](char c) { return plain(c) || c == '-'; })) {
    return wrong(shown(text) +
                 " is not the suffix of a docker-credential program; accepted: 1 to 64 of a-z, 0-9 "
                 "and \"-\", as in \"ecr-login\" for docker-credential-ecr-login");
  }
  return std::string(text);
}

Parsed<std::chrono::sys_days> check_date(int year, unsigned month, unsigned day) {
  const std::chrono::year_month_day date{std::chrono::year(year), std::chrono::month(month),
                                         std::chrono::day(day)};
  if (!date.ok() || year < 2000 || year > 9999) {
    return wrong("this is not a day; accepted: a date without quotes, such as 2027-01-31");
  }
  return std::chrono::sys_days(date);
}

std::string format_date(std::chrono::sys_days date) {
  const std::chrono::year_month_day parts(date);
  char text[40];
  std::snprintf(text, sizeof text, "%04d-%02u-%02u", static_cast<int>(parts.year()),
                static_cast<unsigned>(parts.month()), static_cast<unsigned>(parts.day()));
  return text;
}

Parsed<std::string> parse_plain_text(std::string_view text) {
  const auto is_control = [](char c) { return static_cast<unsigned char>(c) < ' ' || c == 0x7f; };
  if (text.size() > 255 || std::ranges::any_of(text, is_control)) {
    return wrong("accepted: at most 255 bytes without control characters");
  }
  return std::string(text);
}

}  // namespace staithe::daemon
