#include "daemon/metrics.h"

#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <map>
#include <optional>

#include "cache/log.h"
#include "daemon/metric_text.h"

namespace staithe::daemon {

namespace {

using proxy::RequestKind;
using proxy::RequestResult;

// Of requests that name no registry, or none that is configured. No registry is called so.
constexpr std::string_view no_registry = "(none)";

void add_requests(MetricText& text, const proxy::RequestMeter& meter) {
  const auto add_all = [&](std::string_view name, const proxy::RequestMeter::Registry& registry) {
    for (std::size_t k = 0; k < proxy::request_kinds; ++k) {
      for (std::size_t r = 0; r < proxy::request_results; ++r) {
        const auto kind = static_cast<RequestKind>(k);
        const auto result = static_cast<RequestResult>(r);
        if (const std::uint64_t count = registry.count(kind, result))
          text.add({name, to_string(kind), to_string(result)}, count);
      }
    }
  };
  text.begin(Metric::requests);
  for (const auto& [name, registry] : meter.registries()) add_all(name, registry);
  add_all(no_registry, meter.of_no_registry());

  text.begin(Metric::request_seconds);
  for (std::size_t k = 0; k < proxy::request_kinds; ++k) {
    for (std::size_t r = 0; r < proxy::request_results; ++r) {
      const auto kind = static_cast<RequestKind>(k);
      const auto result = static_cast<RequestResult>(r);
      const auto sums = meter.latency(kind, result);
      if (sums.count() > 0) text.add({to_string(kind), to_string(result)}, sums);
    }
  }

  text.begin(Metric::bytes_served);
  for (std::size_t s = 0; s < proxy::bytes_sources; ++s) {
    const auto source = static_cast<proxy::BytesSource>(s);
    text.add({to_string(source)}, meter.bytes(source));
  }
}

void add_refusals(MetricText& text, const proxy::Traffic& traffic, const Access& access,
                  const proxy::Server::Figures& connections) {
  text.begin(Metric::denied);
  text.add({"host"}, traffic.denied_host);
  text.add({"web_page"}, traffic.denied_web_page);
  text.add({"malformed"}, traffic.malformed);
  text.add({"user"}, traffic.denied - traffic.denied_unknown);
  text.add({"unknown"}, traffic.denied_unknown);
  text.add({"caller"}, traffic.denied_caller);
  text.add({"control"}, access.denied(Right::look) + access.denied(Right::credential) +
                            access.denied(Right::own));
  text.add({"address"}, connections.refused_address);
  text.begin(Metric::connections);
  text.add({}, connections.open);
  text.begin(Metric::connections_refused);
  text.add({"user"}, connections.refused_user);
  text.add({"full"}, connections.refused_full);
  text.add({"descriptors"}, connections.refused_descriptors);
}

// Without a TLS listener there is no series.
void add_tls(MetricText& text, const std::optional<TlsState>& tls) {
  text.begin(Metric::tls_handshakes);
  if (tls) {
    text.add({"ok"}, tls->figures.handshakes);
    text.add({"error"}, tls->figures.failed);
  }
  text.begin(Metric::tls_certificate_expiry);
  if (tls) text.add({}, tls->expires_in.count());
}

// What the upstreams of one [[registry]] are at: several, where a wildcard or several identities
// make several of it.
struct Now {
  std::array<std::uint64_t, proxy::healths.size()> states{};
  std::chrono::seconds paused{};
  std::map<std::string, std::chrono::seconds> tokens;  // by kind, until the first ends
  std::optional<std::chrono::seconds> credential;      // likewise
};

std::map<std::string, Now> present(const proxy::Registries& registries) {
  std::map<std::string, Now> all;
  for (const auto& [name, registry] : registries.used()) {
    Now& now = all[registry->settings().name];
    for (const auto& [identities, upstream] : registry->upstreams()) {
      ++now.states[static_cast<std::size_t>(upstream->health())];
      now.paused = std::max(now.paused, upstream->paused());
      for (const proxy::auth::Authorizer* authorizer : upstream->authorizers()) {
        for (const auto& token : authorizer->tokens()) {
          const auto [known, first] = now.tokens.emplace(token.kind, token.expires_in);
          if (!first) known->second = std::min(known->second, token.expires_in);
        }
        for (const auto& ending : authorizer->endings())
          now.credential = std::min(now.credential.value_or(ending.expires_in), ending.expires_in);
      }
    }
  }
  return all;
}

void add_upstreams(MetricText& text, const proxy::Registries& registries,
                   const proxy::UpstreamMeters& meters) {
  const std::map<std::string, Now> all = present(registries);
  text.begin(Metric::upstream_requests);
  for (const auto& [name, meter] : meters.all())
    for (const auto& [what, count] : meter->requests())
      text.add({name, to_string(what.first), what.second}, count);
  text.begin(Metric::upstream_bytes);
  for (const auto& [name, meter] : meters.all()) text.add({name}, meter->bytes());
  text.begin(Metric::upstream_state);
  for (const auto& [name, now] : all)
    for (const proxy::Health health : proxy::healths)
      text.add({name, to_string(health)}, now.states[static_cast<std::size_t>(health)]);
  text.begin(Metric::upstream_paused);
  for (const auto& [name, now] : all) text.add({name}, now.paused.count());
  text.begin(Metric::throttled);
  for (const auto& [name, meter] : meters.all())
    text.add({name}, std::chrono::duration<double>(meter->paused()).count());
  text.begin(Metric::token_expiry);
  for (const auto& [name, now] : all)
    for (const auto& [kind, left] : now.tokens) text.add({name, kind}, left.count());
  text.begin(Metric::token_renewals);
  for (const auto& [name, meter] : meters.all()) {
    for (const proxy::auth::Kind kind : proxy::auth::TokenMeter::kinds) {
      const std::uint64_t fetched = meter->tokens().fetched(kind);
      const std::uint64_t failed = meter->tokens().failed(kind);
      if (fetched + failed == 0) continue;  // Both, so that the first failure is seen as one.
      text.add({name, to_string(kind), "ok"}, fetched);
      text.add({name, to_string(kind), "error"}, failed);
    }
  }
  text.begin(Metric::credential_expiry);
  for (const auto& [name, now] : all)
    if (now.credential) text.add({name}, now.credential->count());
}

void add_fills(MetricText& text, const proxy::Fills& fills) {
  const auto progress = fills.progress();
  std::size_t readers = 0;
  for (const auto& fill : progress) readers += fill.readers;
  text.begin(Metric::fills_active);
  text.add({}, progress.size());
  text.begin(Metric::fill_readers);
  text.add({}, readers);
  text.begin(Metric::fill_resumes);
  text.add({}, fills.resumes());
}

void add_cache(MetricText& text, const cache::Store& store) {
  const auto stats = store.stats();
  text.begin(Metric::cache_bytes);
  text.add({}, stats.bytes);
  text.begin(Metric::cache_max_bytes);
  text.add({}, stats.max_bytes);
  text.begin(Metric::cache_free_bytes);
  text.add({}, stats.free_bytes);
  text.begin(Metric::cache_blobs);
  text.add({}, stats.blobs);
  text.begin(Metric::cache_manifests);
  text.add({}, stats.manifests);
  text.begin(Metric::cache_mode);
  using Mode = cache::Store::Mode;
  for (const Mode mode : {Mode::read_write, Mode::pass_through, Mode::read_only})
    text.add({cache::to_string(mode)}, stats.mode == mode ? 1 : 0);
  text.begin(Metric::evictions);
  for (std::size_t i = 0; i < stats.evicted_for.size(); ++i)
    text.add({cache::to_string(static_cast<cache::Store::Evicted>(i))}, stats.evicted_for[i]);
  text.begin(Metric::quarantined);
  text.add({}, stats.quarantined);
}

double processor_seconds() {
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& time) {
    return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) / 1e6;
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

std::uint64_t resident_bytes() {
  std::FILE* const file = std::fopen("/proc/self/statm", "re");
  if (!file) return 0;
  unsigned long long size = 0;
  unsigned long long resident = 0;
  const int read = std::fscanf(file, "%llu %llu", &size, &resident);
  std::fclose(file);
  return read == 2 ? resident * static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE)) : 0;
}

void add_process(MetricText& text, WallTime started) {
  text.begin(Metric::log_dropped);
  text.add({}, log::dropped());
  text.begin(Metric::build_info);
  text.add({STAITHE_VERSION}, 1);
  text.begin(Metric::process_cpu);
  text.add({}, processor_seconds());
  text.begin(Metric::process_memory);
  text.add({}, resident_bytes());
  text.begin(Metric::process_start);
  text.add({},
           std::chrono::duration_cast<std::chrono::seconds>(started.time_since_epoch()).count());
}

}  // namespace

std::string metrics_text(const MetricSources& sources) {
  MetricText text;
  add_requests(text, sources.proxy.meter());
  add_refusals(text, sources.proxy.traffic(), sources.access,
               sources.connections ? sources.connections() : proxy::Server::Figures());
  add_tls(text, sources.tls ? sources.tls() : std::nullopt);
  add_upstreams(text, sources.registries, sources.upstreams);
  add_fills(text, sources.fills);
  add_cache(text, sources.store);
  add_process(text, sources.started);
  return std::move(text).take();
}

}  // namespace staithe::daemon
