// Which requests come from a program on this machine and not from a web page in its browser: pure
// (threat T4: DNS rebinding, cross-site requests).
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace staithe::proxy {

class HostPolicy {
 public:
  // `listen`: the addresses served ("127.0.0.1:5050", "[::1]:5050", "unix:..."); `hosts`: further
  // Host values from [access] hosts, with or without a port.
  HostPolicy(const std::vector<std::string>& listen, const std::vector<std::string>& hosts);

  // True for a Host that names this machine's loopback, or is configured.
  bool accepts(std::string_view host) const;

 private:
  std::vector<std::string> names_;  // without port
  std::vector<std::string> exact_;  // configured with a port
};

// True if the fields that browsers add say that another site's page makes this request.
bool is_cross_site(std::string_view sec_fetch_site, std::string_view origin);

}  // namespace staithe::proxy
