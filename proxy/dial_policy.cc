#include "proxy/dial_policy.h"

#include <algorithm>
#include <array>
#include <optional>

#include "cache/escape.h"
#include "proxy/url.h"

namespace staithe::proxy {
namespace {

namespace ip = boost::asio::ip;

struct NetworkV4 {
  std::uint32_t address;
  unsigned bits;
  AddressClass what;
};

constexpr std::uint32_t v4(unsigned a, unsigned b, unsigned c, unsigned d) {
  return a << 24 | b << 16 | c << 8 | d;
}

// The first that holds an address says what it is.
constexpr std::array networks_v4 = {
    NetworkV4{v4(169, 254, 169, 254), 32, AddressClass::metadata},  // every cloud's
    NetworkV4{v4(168, 63, 129, 16), 32, AddressClass::metadata},    // Azure's wire server
    NetworkV4{v4(100, 100, 100, 200), 32, AddressClass::metadata},  // Alibaba's
    NetworkV4{v4(192, 0, 0, 192), 32, AddressClass::metadata},      // Oracle's
    NetworkV4{v4(0, 0, 0, 0), 8, AddressClass::unspecified},
    NetworkV4{v4(10, 0, 0, 0), 8, AddressClass::private_use},
    NetworkV4{v4(100, 64, 0, 0), 10, AddressClass::private_use},  // RFC 6598; Azure's networks too
    NetworkV4{v4(127, 0, 0, 0), 8, AddressClass::loopback},
    NetworkV4{v4(169, 254, 0, 0), 16, AddressClass::link_local},
    NetworkV4{v4(172, 16, 0, 0), 12, AddressClass::private_use},
    NetworkV4{v4(192, 0, 0, 0), 24, AddressClass::reserved},    // RFC 6890
    NetworkV4{v4(192, 0, 2, 0), 24, AddressClass::reserved},    // documentation, RFC 5737
    NetworkV4{v4(192, 88, 99, 0), 24, AddressClass::reserved},  // 6to4's relays, RFC 7526
    NetworkV4{v4(192, 168, 0, 0), 16, AddressClass::private_use},
    NetworkV4{v4(198, 18, 0, 0), 15, AddressClass::private_use},  // RFC 2544
    NetworkV4{v4(198, 51, 100, 0), 24, AddressClass::reserved},   // documentation
    NetworkV4{v4(203, 0, 113, 0), 24, AddressClass::reserved},    // documentation
    NetworkV4{v4(224, 0, 0, 0), 4, AddressClass::multicast},
    NetworkV4{v4(255, 255, 255, 255), 32, AddressClass::broadcast},
    NetworkV4{v4(240, 0, 0, 0), 4, AddressClass::reserved},
};

struct NetworkV6 {
  std::array<std::uint16_t, 8> address;
  unsigned bits;
  AddressClass what;
};

constexpr std::array networks_v6 = {
    NetworkV6{{0xfd00, 0xec2}, 32, AddressClass::metadata},                        // Amazon's
    NetworkV6{{0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254}, 128, AddressClass::metadata},  // Google's
    NetworkV6{{}, 128, AddressClass::unspecified},
    NetworkV6{{0, 0, 0, 0, 0, 0, 0, 1}, 128, AddressClass::loopback},
    NetworkV6{{0x64, 0xff9b, 1}, 48, AddressClass::private_use},  // local NAT64, RFC 8215
    NetworkV6{{0x2001}, 23, AddressClass::reserved},              // protocols; Teredo is one
    NetworkV6{{0x2001, 0xdb8}, 32, AddressClass::reserved},       // documentation, RFC 3849
    NetworkV6{{0x3fff}, 20, AddressClass::reserved},              // documentation, RFC 9637
    NetworkV6{{0x2000}, 3, AddressClass::global},
    NetworkV6{{0xfc00}, 7, AddressClass::private_use},
    NetworkV6{{0xfe80}, 10, AddressClass::link_local},
    NetworkV6{{0xfec0}, 10, AddressClass::private_use},  // site-local, RFC 3879
    NetworkV6{{0xff00}, 8, AddressClass::multicast},
};

// Networks whose addresses hold an IPv4 address, and at which of their bytes.
struct Embedding {
  std::array<std::uint16_t, 8> address;
  unsigned bits;
  std::size_t at;
};

constexpr std::array embeddings = {
    Embedding{{0, 0, 0, 0, 0, 0xffff}, 96, 12},  // mapped: the kernel dials IPv4
    Embedding{{0x64, 0xff9b}, 96, 12},           // NAT64, RFC 6052
    Embedding{{0x2002}, 16, 2},                  // 6to4, RFC 3056
};

using Bytes = ip::address_v6::bytes_type;

bool holds(const std::array<std::uint16_t, 8>& network, unsigned bits, const Bytes& address) {
  for (unsigned i = 0; i < bits; ++i) {
    const unsigned theirs = network[i / 16] >> (15 - i % 16) & 1U;
    const unsigned ours = address[i / 8] >> (7 - i % 8) & 1U;
    if (theirs != ours) return false;
  }
  return true;
}

AddressClass class_of_v4(std::uint32_t address) {
  const auto found = std::ranges::find_if(networks_v4, [&](const NetworkV4& network) {
    return (address ^ network.address) >> (32 - network.bits) == 0;
  });
  return found == networks_v4.end() ? AddressClass::global : found->what;
}

// Mapped addresses as what they map.
ip::address plain(const ip::address& address) {
  if (!address.is_v6() || !address.to_v6().is_v4_mapped()) return address;
  return ip::make_address_v4(ip::v4_mapped, address.to_v6());
}

std::optional<ip::address> literal(std::string_view host) {
  if (host.starts_with('[') && host.ends_with(']')) host = host.substr(1, host.size() - 2);
  boost::system::error_code failed;
  const ip::address address = ip::make_address(std::string(host), failed);
  if (failed) return std::nullopt;
  return plain(address);
}

bool is_allowed(HostNamedBy named_by, std::string_view host, const ip::address& address) {
  const AddressClass what = class_of(address);
  switch (what) {
    case AddressClass::unspecified:
    case AddressClass::multicast:
    case AddressClass::broadcast:
      return false;
    case AddressClass::metadata:
      if (named_by != HostNamedBy::identity_host) return false;
      break;
    default:
      break;
  }
  if (const auto written = literal(host))
    return *written == plain(address) &&
           (named_by != HostNamedBy::upstream || what == AddressClass::global);
  if (host_under(host, "localhost"))
    return what == AddressClass::loopback && named_by != HostNamedBy::upstream;
  switch (what) {
    case AddressClass::global:
      return true;
    case AddressClass::private_use:
      return named_by != HostNamedBy::upstream;
    case AddressClass::loopback:
    case AddressClass::link_local:
    case AddressClass::metadata:
      return named_by == HostNamedBy::identity_host;
    default:
      return false;
  }
}

// What can be done about it, if the name is right and the address too.
std::string_view remedy(HostNamedBy named_by, AddressClass what) {
  if (what == AddressClass::metadata)
    return "only the request for this machine's identity goes there; correct the name in DNS or "
           "/etc/hosts, or the URL";
  if (named_by == HostNamedBy::upstream && what == AddressClass::private_use)
    return "a host that the registry names is dialled at public addresses only; if it is the "
           "registry's, add it to data_hosts or token_hosts of this [[registry]]";
  if (named_by == HostNamedBy::configuration && what == AddressClass::loopback)
    return "a name that is not localhost does not lead to this machine; correct it in DNS or "
           "/etc/hosts, or write localhost or that address as upstream";
  if (named_by == HostNamedBy::configuration && what == AddressClass::link_local)
    return "correct the name in DNS or /etc/hosts, or write that address as upstream";
  return "nothing is dialled there; correct the name in DNS or /etc/hosts";
}

}  // namespace

AddressClass class_of(const ip::address& address) {
  if (address.is_v4()) return class_of_v4(address.to_v4().to_uint());
  const Bytes bytes = address.to_v6().to_bytes();
  for (const Embedding& embedding : embeddings) {
    if (!holds(embedding.address, embedding.bits, bytes)) continue;
    const auto* const inside = bytes.data() + embedding.at;
    return class_of_v4(v4(inside[0], inside[1], inside[2], inside[3]));
  }
  const auto found = std::ranges::find_if(networks_v6, [&](const NetworkV6& network) {
    return holds(network.address, network.bits, bytes);
  });
  return found == networks_v6.end() ? AddressClass::reserved : found->what;
}

std::string_view in_words(AddressClass what) {
  switch (what) {
    case AddressClass::global:
      return "a public address";
    case AddressClass::private_use:
      return "a private address";
    case AddressClass::loopback:
      return "a loopback address";
    case AddressClass::link_local:
      return "a link-local address";
    case AddressClass::metadata:
      return "a cloud's metadata address";
    case AddressClass::unspecified:
      return "an unspecified address";
    case AddressClass::multicast:
      return "a multicast address";
    case AddressClass::broadcast:
      return "the broadcast address";
    case AddressClass::reserved:
      return "a reserved address";
  }
  return "no address";
}

Result<void> may_dial(HostNamedBy named_by, std::string_view host, const ip::address& address) {
  if (is_allowed(named_by, host, address)) return {};
  const AddressClass what = class_of(address);
  std::string detail = printable(host, 253) + " leads to " + address.to_string() + ", ";
  detail += in_words(what);
  detail += ": ";
  detail += remedy(named_by, what);
  return fail(Errc::upstream_nonsense, std::move(detail));
}

}  // namespace staithe::proxy
