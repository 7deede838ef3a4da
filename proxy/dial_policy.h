// Which addresses a request may be sent to: pure policy, asked at every dial with the address that
// the socket would go to (threats T10, T11, F33).
//
// Names are judged elsewhere, before anything is resolved (redirect.h, auth/trust.h). Here is
// judged what a name has become: whatever DNS, /etc/hosts, a change between two look-ups or a
// spelling has made of it, the kernel is told one address in its binary form, and that is looked
// at.
#pragma once

#include <boost/asio/ip/address.hpp>
#include <cstdint>
#include <string>
#include <string_view>

#include "cache/error.h"

namespace staithe::proxy {

// What an address is for (IANA's special-purpose registries, RFC 6890). An IPv4 address inside an
// IPv6 one (mapped, NAT64, 6to4) is what it is alone.
enum class AddressClass {
  global,       // one of the public Internet
  private_use,  // RFC 1918, RFC 4193, carriers' and benchmarks' ranges, site-local, local NAT64
  loopback,
  link_local,
  metadata,     // a cloud's own services for the machine: who may talk to them is the machine
  unspecified,  // 0.0.0.0/8 and ::, which Linux takes for this machine
  multicast,
  broadcast,
  reserved,  // documentation, tunnels, and what was never given to anybody
};

AddressClass class_of(const boost::asio::ip::address& address);
// "a loopback address".
std::string_view in_words(AddressClass what);

// Who has named the host of a request, and so what it may turn out to be.
enum class HostNamedBy : std::uint8_t {
  // A registry, in a challenge or a redirect: public addresses only.
  upstream,
  // The operator, or the built-in list of Azure's own hosts, which private endpoints give private
  // addresses: those too. A literal address is what was written, and `localhost` is this machine.
  configuration,
  // This machine, of the service that gives it its identity (`imds_endpoint`, IDENTITY_ENDPOINT):
  // what a machine and its own network have, and alone the metadata addresses.
  identity_host,
};

// Whether a socket to `address` may be opened for a request to `host`, which is in the form of
// Origin::host. Nobody is let through to an unspecified, multicast or broadcast address. The error
// is upstream_nonsense, what DNS says being no more than another answer: it is not asked again for
// the same request, other upstreams are, and what is cached is served. Its sentence names host,
// address and remedy.
Result<void> may_dial(HostNamedBy named_by, std::string_view host,
                      const boost::asio::ip::address& address);

}  // namespace staithe::proxy
