#include "proxy/listen_address.h"

#include <sys/un.h>

#include <boost/asio/ip/address.hpp>
#include <charconv>

namespace staithe::proxy {

namespace asio = boost::asio;

Result<ListenAddress> ListenAddress::parse(std::string_view text) {
  ListenAddress address;
  address.tls = text.starts_with("tls:");
  if (address.tls) text.remove_prefix(4);
  if (!address.tls && text.starts_with("unix:")) {
    address.unix_path = std::string(text.substr(5));
    if (!address.unix_path.starts_with('/') ||
        address.unix_path.size() >= sizeof(sockaddr_un::sun_path))
      return fail(Errc::config,
                  "a Unix socket is written unix:/absolute/path of at most 107 bytes");
    return address;
  }
  const std::size_t colon = text.rfind(':');
  std::string_view host = text.substr(0, colon);
  if (host.starts_with('[') && host.ends_with(']')) host = host.substr(1, host.size() - 2);
  boost::system::error_code error;
  address.ip = asio::ip::make_address(std::string(host), error).to_string();
  const std::string_view port =
      colon == std::string_view::npos ? std::string_view() : text.substr(colon + 1);
  const auto parsed = std::from_chars(port.data(), port.data() + port.size(), address.port);
  const bool is_ip = !error && !host.contains('\0');
  if (!is_ip || port.empty() || parsed.ec != std::errc() || parsed.ptr != port.data() + port.size())
    return fail(
        Errc::config,
        "an address is written 127.0.0.1:5050, [::1]:5050, unix:/path or tls:127.0.0.1:5443");
  return address;
}

std::string ListenAddress::to_string() const {
  if (!unix_path.empty()) return "unix:" + unix_path;
  const bool v6 = ip.find(':') != std::string::npos;
  return (tls ? "tls:" : "") + (v6 ? "[" + ip + "]" : ip) + ":" + std::to_string(port);
}

}  // namespace staithe::proxy
