// A registry we pull from: one origin, asked with one identity.
//
// Adds the credential, renews it once after a 401 and repeats once, follows redirects to known blob
// hosts without the credential, bounds the connections, and remembers how the registry fares. What
// upstream answers is a response; what it does not answer is a Failure. Lives on the loop.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "cache/clock.h"
#include "cache/digest.h"
#include "proxy/auth/authorizer.h"
#include "proxy/http.h"
#include "proxy/redirect.h"
#include "proxy/slots.h"

namespace staithe::proxy {

enum class Health { idle, ok, throttled, unreachable, unauthorized };
const char* to_string(Health health);

struct UpstreamStats {
  std::uint64_t requests = 0;
  std::uint64_t bytes = 0;  // of response bodies
};

class Upstream {
 public:
  struct Settings {
    Url base;            // scheme, host and port; the path is not used
    std::string prefix;  // put before every repository
    std::string ca_file;
    RedirectPolicy redirects;
    std::size_t max_connections = 16;
    HttpLimits limits;
  };

  // `http` and `clock` outlive the upstream.
  Upstream(asio::any_io_executor loop, Settings settings,
           std::unique_ptr<auth::Authorizer> authorizer, HttpClient& http, Clock& clock);

  // Where a transfer was found: the end of a redirect that its further ranges go to at once,
  // without asking the registry again. Its URL is as secret as a token. Empty at first; empty again
  // once it answers anything but 200 or 206, and then the registry is asked anew.
  struct Place {
    std::optional<Url> url;
  };

  struct Ask {
    std::string method = "GET";   // or HEAD
    std::string repository = {};  // without the prefix
    std::string what = {};        // "manifests/latest", "blobs/sha256:...", "tags/list?n=5"
    std::string accept = {};      // Accept, if any
    std::string range = {};       // Range, if any
    // Waits out a short pause that upstream asks for; false where a stale answer is at hand.
    bool patient = true;  // validator for it
    std::shared_ptr<Place> place = {};
  };
  // A final response (no redirect; a 401 only after the repeat). Throws Failure: unreachable,
  // upstream_failed, upstream_nonsense, throttled (in a pause that upstream asked for), and what
  // the Authorizer throws.
  asio::awaitable<std::unique_ptr<HttpResponse>> send(Ask ask);

  // How many more transfers may begin without waiting for another one to end.
  std::size_t free_connections() const { return transfers_.free(); }

  Health health() const;
  std::chrono::seconds paused() const;  // left of a pause that upstream asked for
  // Why the last request failed, until one succeeds.
  const std::optional<Error>& last_error() const { return last_error_; }
  auth::Authorizer& authorizer() { return *authorizer_; }
  const auth::Authorizer& authorizer() const { return *authorizer_; }
  std::string url() const { return settings_.base.origin().to_string(); }
  const UpstreamStats& stats() const { return *stats_; }

 private:
  asio::awaitable<std::unique_ptr<HttpResponse>> send_once(const Ask& ask);
  // What answered at the end of the redirects, and whether that was the registry itself.
  struct Answer {
    std::unique_ptr<HttpResponse> response;
    bool at_home = false;
    Url url;  // that answered
  };
  asio::awaitable<Answer> walk(const Ask& ask, const auth::Authorization& authorization);
  // What answers where the transfer was found before; nullopt if that is over.
  asio::awaitable<std::optional<Answer>> revisit(const Ask& ask);
  HttpRequest request(const Ask& ask, const Url& url) const;
  void note(const HttpResponse& response);

  Settings settings_;
  std::unique_ptr<auth::Authorizer> authorizer_;
  HttpClient& http_;
  Clock& clock_;
  Slots transfers_;  // max_connections of them
  Slots questions_;  // short requests, which must not wait behind long transfers
  Health health_ = Health::idle;
  Instant paused_until_{};
  std::optional<Error> last_error_;
  std::shared_ptr<UpstreamStats> stats_ = std::make_shared<UpstreamStats>();
};

// What a response that is not a success means, as an Error that names the registry, what was asked,
// and what upstream said (escaped, shortened). `absent` is the Errc for 404. Reads at most 64 KiB
// of the body.
asio::awaitable<Error> error_of(HttpResponse& response, std::string asked, Errc absent);

}  // namespace staithe::proxy
