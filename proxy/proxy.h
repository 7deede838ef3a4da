// The registry that clients see: routes, policy, and the counters of what was served.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "cache/sparing.h"
#include "proxy/absences.h"
#include "proxy/admission.h"
#include "proxy/answers.h"
#include "proxy/blobs.h"
#include "proxy/connection.h"
#include "proxy/fills.h"
#include "proxy/host_policy.h"
#include "proxy/manifests.h"
#include "proxy/outcome.h"
#include "proxy/peer.h"
#include "proxy/registries.h"
#include "proxy/request_meter.h"
#include "proxy/route.h"

namespace staithe::proxy {

struct Traffic {
  std::uint64_t requests = 0;
  std::uint64_t hits = 0;
  std::uint64_t misses = 0;  // brought from upstream: stored, or passed on
  std::uint64_t collapsed = 0;
  std::uint64_t stale = 0;
  std::uint64_t errors = 0;           // answered with a status of 400 or more, or cut short
  std::uint64_t denied = 0;           // of these, the requests of users that may not ask
  std::uint64_t denied_host = 0;      // likewise, by the value of Host
  std::uint64_t denied_web_page = 0;  // likewise, as another site's page's
  std::uint64_t bytes_served = 0;
  // Of these, what upstream did not send for the request that got it: the bodies of hits, collapsed
  // and stale answers, also of those that were cut short.
  std::uint64_t bytes_saved = 0;

  // The share of the answers with registry content for which upstream sent no body: hits, collapsed
  // and stale ones, of all but errors. Nothing before the first.
  std::optional<double> hit_ratio() const {
    const std::uint64_t spared = hits + collapsed + stale;
    const std::uint64_t all = spared + misses;
    if (all == 0) return std::nullopt;
    return static_cast<double>(spared) / static_cast<double>(all);
  }
};

class Proxy final : public Handler {
 public:
  // All references outlive the proxy.
  Proxy(asio::any_io_executor loop, Registries& registries, cache::Store& store, Fills& fills,
        TaskGroup& tasks, Clock& clock);
  ~Proxy() override;

  // Whose requests are taken; until this is called, none. Called once the addresses are known.
  void admit(HostPolicy policy) { admission_.set_hosts(std::move(policy)); }
  // Whether the user behind a connection may ask for registry content; by default everybody may.
  using MayUse = std::function<asio::awaitable<bool>(Peer)>;
  // Replaces the rule; an empty one lets everybody, and nobody is asked who he is.
  void restrict(MayUse may_use);
  // What /readyz says.
  void set_ready(bool ready) { ready_ = ready; }
  bool is_ready() const { return ready_; }

  asio::awaitable<void> handle(Exchange& exchange) override;
  void every_second() override { tell_uses(); }
  void handled(const Exchange& exchange, std::chrono::microseconds took,
               const Error* failure) override;

  // What was answered elsewhere from answers() included.
  Traffic traffic() const;
  // For those who answer from memory beside it. Once a second tell_uses() says to the store what
  // they used.
  const Answers& answers() const { return answers_; }
  const Admission& admission() const { return admission_; }
  // What was answered; those beside it count here too.
  RequestMeter& meter() { return meter_; }
  const RequestMeter& meter() const { return meter_; }
  void tell_uses();
  // For those who want content without a client: the same tags, checks and single flights.
  Manifests& manifests() { return manifests_; }
  Blobs& blobs() { return blobs_; }

 private:
  // The trace that the request names, if it does.
  std::optional<Trace> trace_of(const Request& request);
  asio::awaitable<bool> may_use(Exchange& exchange);
  asio::awaitable<Outcome> dispatch(Exchange& exchange, Route route);
  asio::awaitable<Outcome> serve_blob(Exchange& exchange, RegistryPtr registry,
                                      std::string repository, cache::Digest digest);

  Registries& registries_;
  cache::Store& store_;
  Clock& clock_;
  RequestMeter meter_;
  Sparing traced_;
  Answers answers_;
  Admission admission_;
  Absences absences_;
  Blobs blobs_;
  Manifests manifests_;
  MayUse may_use_;
  bool ready_ = false;
  Traffic traffic_;
};

}  // namespace staithe::proxy
