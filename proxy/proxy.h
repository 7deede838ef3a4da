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
#include "proxy/caller_proofs.h"
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
  std::uint64_t denied_unknown = 0;   // of these, those whose user the kernel does not tell
  std::uint64_t denied_host = 0;      // likewise, by the value of Host
  std::uint64_t denied_web_page = 0;  // likewise, as another site's page's
  std::uint64_t malformed = 0;        // refused before they were requests (request_head.h)
  std::uint64_t denied_caller = 0;    // likewise, without a proof of the caller's own right
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
  // Until when the caller may ask for content of a registry, given by the name of its [[registry]],
  // without being judged again; nothing: he may not. Without a registry: whether he may ask this
  // daemon for anything at all. By default everybody may.
  using MayUse = std::function<asio::awaitable<std::optional<Instant>>(
      Caller, std::optional<std::string> registry)>;
  // Replaces the rule; an empty one lets everybody, and nobody is asked who he is. Every connection
  // is judged anew.
  void restrict(MayUse may_use);
  // Who judges the callers of registries with verify_callers; without one nobody is served there.
  using Judge = std::function<asio::awaitable<CallerProofs::Verdict>(CallerProofs::Question)>;
  void judge_callers_by(Judge judge) { judge_ = std::move(judge); }
  // What /readyz says.
  void set_ready(bool ready) { ready_ = ready; }
  bool is_ready() const { return ready_; }

  asio::awaitable<void> handle(Exchange& exchange) override;
  void refused() override { ++traffic_.malformed; }
  // Only where the request names a registry that verifies its callers. One without a name is a
  // mirror's of dockerd, which offers Docker Hub's password to whoever asks (moby#42022).
  bool wants_credential(std::string_view target) const override;
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
  const RegistrySettings* entry_of(std::string_view target) const;
  asio::awaitable<bool> may_use(Exchange& exchange);
  // Whether the caller has shown that it may read this repository itself. Answers if not.
  asio::awaitable<bool> has_right(Exchange& exchange, RegistryPtr registry, std::string repository,
                                  std::string what, bool named);
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
  Judge judge_;
  bool ready_ = false;
  Traffic traffic_;
};

}  // namespace staithe::proxy
