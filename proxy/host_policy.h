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

  // True for a Host (request_head.h: is_host) that names this machine's loopback, or is configured.
  // Names are compared as they are written, without regard to case: "localhost." and other
  // spellings of ::1 are none of them. Of loopback names and of those configured without a port any
  // port is taken: a forwarded port reaches us under another one, and no page can be served under
  // such a name by somebody else's name server.
  bool accepts(std::string_view host) const;

 private:
  std::vector<std::string> names_;  // without port
  std::vector<std::string> exact_;  // configured with a port
};

// True if the fields that browsers add say that another site's page makes this request. A browser
// adds Origin wherever an answer could be read or something be changed, and Sec-Fetch-Site to all.
// Referer is not asked: a page decides what stands there, and Go's client adds it after redirects.
bool is_cross_site(std::string_view sec_fetch_site, std::string_view origin);

}  // namespace staithe::proxy
