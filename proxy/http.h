// HTTP as a client: the narrow interface that upstreams and identities need, so that tests can
// play the network. CurlLoop is the real one.
//
// One exchange: send a request, get a response whose head has arrived, read its body in pieces.
// Redirects are never followed here, credentials are only the headers that the caller gives, and
// nothing from the environment (proxies, netrc, CA overrides) is used. Lives on the loop.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "proxy/auth/secret.h"
#include "proxy/dial_policy.h"
#include "proxy/url.h"

namespace staithe::proxy {

namespace asio = boost::asio;

// Header fields in the order received; names compare without case (RFC 9110 section 5.1). Values
// are wiped when they go, since one may be a credential.
class Headers {
 public:
  using Field = std::pair<std::string, std::string>;

  Headers() = default;
  Headers(const Headers&) = default;
  Headers(Headers&&) noexcept = default;
  Headers& operator=(const Headers&) = default;
  Headers& operator=(Headers&&) noexcept = default;
  ~Headers() {
    for (auto& [name, value] : fields_) auth::wipe(value);
  }

  void add(std::string name, std::string value) {
    fields_.emplace_back(std::move(name), std::move(value));
  }
  // The first field of that name, or nullptr.
  const std::string* find(std::string_view name) const;
  std::string_view get(std::string_view name) const {
    const std::string* value = find(name);
    return value ? std::string_view(*value) : std::string_view();
  }
  std::vector<std::string_view> all(std::string_view name) const;
  const std::vector<Field>& fields() const { return fields_; }
  bool empty() const { return fields_.empty(); }

 private:
  std::vector<Field> fields_;
};

// Case-insensitive comparison of ASCII text, as header names need it.
bool iequals(std::string_view a, std::string_view b);

// How long each phase may take; [limits] of the configuration.
struct HttpLimits {
  std::chrono::milliseconds connect{5'000};      // DNS, TCP and TLS together
  std::chrono::milliseconds first_byte{20'000};  // from request sent to response head whole
  std::chrono::milliseconds stall{15'000};       // silence in the middle of a body
  std::size_t head_bytes = 64 * 1024;            // response head, all fields together
};

struct HttpRequest {
  std::string method = "GET";
  Url url;
  Headers headers = {};
  std::string body = {};  // with POST; wiped after it is sent, since it may hold a token
  std::string ca_file =
      {};  // trust these certificates besides the system's; empty = the system's only
  std::string ca_pem = {};  // trust these instead of all others; empty = as above
  // Of the one certificate that is trusted instead of all others, whatever its name: the SHA-1 of
  // its DER form in hex, as Service Fabric tells it; empty = as above.
  std::string certificate_thumbprint = {};
  std::string connect_to = {};  // "host:port" to dial instead of the URL's; empty = the URL's
  // Of the host that is dialled: who does not say it is dialled at public addresses alone.
  HostNamedBy host_named_by = HostNamedBy::upstream;
  HttpLimits limits;
};

// A response whose head has arrived. Destroying it gives the transfer up.
class HttpResponse {
 public:
  virtual ~HttpResponse() = default;

  virtual int status() const = 0;
  virtual const Headers& headers() const = 0;

  // What the request carried that its answer may echo and nobody may be shown.
  virtual std::vector<auth::Secret> secrets() const { return {}; }

  // Replaces `piece` by bytes of the body that have arrived, at least one, at most 1 MiB; false
  // at the true end of the body. Throws Failure: unreachable if the peer is silent for
  // `limits.stall`, or brings less than 1 KiB/s over that time; upstream_failed if the connection
  // breaks or the body is short.
  virtual asio::awaitable<bool> read(std::vector<char>& piece) = 0;
};

class HttpClient {
 public:
  virtual ~HttpClient() = default;

  // Throws Failure: unreachable (DNS, connect, TLS, time-out), upstream_failed (broken off),
  // upstream_nonsense (an address that may_dial() refuses, a head beyond the limit or not HTTP).
  // Any status is a response, not an error.
  virtual asio::awaitable<std::unique_ptr<HttpResponse>> send(HttpRequest request) = 0;
};

// The whole body as text. Throws Failure(too_large) beyond `limit` bytes.
asio::awaitable<std::string> read_all(HttpResponse& response, std::size_t limit);

}  // namespace staithe::proxy
