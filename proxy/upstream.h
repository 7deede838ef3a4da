// A registry we pull from: one origin, asked with one identity.
//
// Adds the credential, renews it once after a 401 and repeats once, follows redirects to known blob
// hosts without the credential, bounds the connections, and remembers how the registry fares. What
// upstream answers is a response; what it does not answer is a Failure. Lives on the loop.
//
// How it is asked (pauses, retries, breaker, rate, hedging) is the business of two PoliteClients,
// one for the registry itself and one for the data hosts that it redirects to, so that neither's
// troubles are held against the other; they share one RetryBudget. What goes wrong while a token is
// fetched concerns neither.
#pragma once

#include <array>
#include <boost/asio/awaitable.hpp>
#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "cache/clock.h"
#include "cache/digest.h"
#include "cache/sparing.h"
#include "proxy/auth/authorizer.h"
#include "proxy/http.h"
#include "proxy/polite_client.h"
#include "proxy/pull_quota.h"
#include "proxy/redirect.h"
#include "proxy/slots.h"
#include "proxy/upstream_meter.h"

namespace staithe::proxy {

enum class Health { idle, ok, throttled, unreachable, unauthorized };
inline constexpr std::array healths{Health::idle, Health::ok, Health::throttled,
                                    Health::unreachable, Health::unauthorized};
const char* to_string(Health health);

// The kernel's chance, for those who have no other to hand in.
Random& system_random();

// How long a mirror may keep a request that another upstream could answer; never more than [limits]
// say. Two round trips to another continent, with TLS, fit into the first.
constexpr std::chrono::milliseconds mirror_connect{1'000};
constexpr std::chrono::milliseconds mirror_first_byte{3'000};

class Upstream {
 public:
  struct Settings {
    Url base;            // scheme, host and port; the path is not used
    std::string prefix;  // put before every repository
    std::string ca_file;
    RedirectPolicy redirects;
    std::size_t max_connections = 16;
    HttpLimits limits;
    // Where its requests are counted besides.
    std::shared_ptr<UpstreamMeter> meter = std::make_shared<UpstreamMeter>();
  };

  // `http`, `clock` and `random` outlive the upstream.
  Upstream(asio::any_io_executor loop, Settings settings,
           std::unique_ptr<auth::Authorizer> authorizer, HttpClient& http, Clock& clock,
           Random& random = system_random());

  Upstream(const Upstream&) = delete;
  Upstream& operator=(const Upstream&) = delete;

  // Where a transfer was found: the end of a redirect that its further ranges go to at once,
  // without asking the registry again. Its URL is as secret as a token. Empty at first; empty again
  // once it answers anything but 200 or 206, and then the registry is asked anew.
  struct Place {
    std::optional<Url> url;
    // Of an UpstreamList: one for each of its upstreams, so that no range ever goes to a place that
    // another of them gave; and which of them the transfer is with.
    std::vector<std::shared_ptr<Place>> each = {};
    std::optional<std::size_t> with = {};
    // Whose the last answer was: what a validator says holds among answers of one server.
    std::string server() const {
      const bool listed = with && *with < each.size() && each[*with];
      if (listed) return std::to_string(*with) + " " + each[*with]->server();
      return url ? url->origin().to_string() : std::string();
    }
  };

  struct Ask {
    std::string method = "GET";   // or HEAD
    std::string repository = {};  // without the prefix
    std::string what = {};        // "manifests/latest", "blobs/sha256:...", "tags/list?n=5"
    std::string accept = {};      // Accept, if any
    std::string range = {};       // Range, if any
    // Waits out a short pause that upstream asks for; false where a stale answer is at hand.
    bool patient = true;
    std::shared_ptr<Place> place = {};
    // Another upstream is asked if this one does not answer soon (UpstreamList): it gets
    // mirror_connect and mirror_first_byte at most, and nothing is waited out or repeated for it.
    bool has_next = false;
    // Of the request that this is for, if its way is to be told in the log.
    std::string trace = {};
  };
  // A final response (no redirect; a 401 only after the repeat; never a 429). Throws Failure:
  // unreachable, upstream_failed, upstream_nonsense, throttled (in a pause that upstream asked
  // for), and what the Authorizer throws. While upstream is known not to answer it does so at once.
  asio::awaitable<std::unique_ptr<HttpResponse>> send(Ask ask);

  // How many more transfers may begin without waiting for another one to end.
  std::size_t free_connections() const { return transfers_.free(); }

  // For transfers that go on after a break, beside the retries that send() makes by itself. Before
  // each further attempt: false means that the budget of this upstream is spent and the break at
  // hand is final.
  bool may_retry() { return budget_.take(clock_.now()); }
  // `bytes` of a blob have come that were not here before, which gives to the budget: a transfer
  // that moves may break as often as it likes, one that drips ends. Bytes that are fetched a second
  // time are no progress.
  void note_progress(std::uint64_t bytes) { budget_.note_progress(bytes); }
  // When a request for something that was not found yet, or for a further range at `place`, may go
  // out next; now or a past instant means at once. Until then send() fails at once or waits, so a
  // transfer that has time sleeps until then, and a random moment longer.
  Instant next_try(const Place* place = nullptr) const;

  Health health() const;
  std::chrono::seconds paused() const;  // left of a pause that upstream asked for
  // How long until upstream, or its data host, is tried again after it did not answer; nullopt
  // while it answers.
  std::optional<std::chrono::seconds> retry_in() const;
  // The pulls that it still grants, where it says so.
  const std::optional<PullQuota>& quota() const { return quota_; }
  // Why the last request failed, until one succeeds.
  std::optional<Error> last_error() const {
    return trouble().or_else([&] { return last_error_; });
  }
  auth::Authorizer& authorizer() { return *authorizer_; }
  const auth::Authorizer& authorizer() const { return *authorizer_; }
  std::string url() const { return settings_.base.origin().to_string(); }
  const UpstreamStats& stats() const { return *stats_; }
  Clock& clock() const { return clock_; }

 private:
  // Every request goes through one of these.
  PoliteClient& client_of(const Ask& ask) {
    return ask.place && ask.place->url ? elsewhere_ : home_;
  }
  asio::awaitable<std::unique_ptr<HttpResponse>> send_once(const Ask& ask, Patience& patience);
  // What goes into Authorization. A short pause of the token server is waited out too.
  asio::awaitable<auth::Authorization> token(const Ask& ask, Patience& patience);
  // Why a host is left alone at present, if one is.
  std::optional<Error> trouble() const;
  // What answered at the end of the redirects, and whether that was the registry itself.
  struct Answer {
    std::unique_ptr<HttpResponse> response;
    bool at_home = false;
    Url url;  // that answered
  };
  asio::awaitable<Answer> walk(const Ask& ask, const auth::Authorization& authorization,
                               Patience& patience);
  // What answers where the transfer was found before; nullopt if that is over.
  asio::awaitable<std::optional<Answer>> revisit(const Ask& ask, Patience& patience);
  HttpRequest request(const Ask& ask, const Url& url) const;
  void note(const HttpResponse& response);
  // That the credential is refused, or taken again, is told.
  void set_health(Health health, const Error* why = nullptr);
  // For who follows a trace.
  void tell(const Ask& ask, Instant asked, const HttpResponse* response,
            const Error* failure) const;

  Settings settings_;
  std::unique_ptr<auth::Authorizer> authorizer_;
  Clock& clock_;
  Random& random_;
  Slots transfers_;  // max_connections of them
  Slots questions_;  // short requests, which must not wait behind long transfers
  Health health_ = Health::idle;
  // Two repositories may differ in this, and are asked for in turns.
  Sparing credential_lines_{{.lines = 2, .interval = std::chrono::minutes(1)}};
  Instant token_paused_until_{};  // where the token server asked for a pause
  std::optional<Error> last_error_;
  std::optional<PullQuota> quota_;
  std::shared_ptr<UpstreamStats> stats_ = std::make_shared<UpstreamStats>();
  RetryBudget budget_;
  PoliteClient home_;       // the registry itself
  PoliteClient elsewhere_;  // the hosts that it redirects to
};

// What a response that is not a success means, as an Error that names the registry, what was asked,
// and what upstream said (escaped, shortened). `absent` is the Errc for 404. Reads at most 64 KiB
// of the body.
asio::awaitable<Error> error_of(HttpResponse& response, std::string asked, Errc absent);

}  // namespace staithe::proxy
