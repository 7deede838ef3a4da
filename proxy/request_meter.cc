#include "proxy/request_meter.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "proxy/outcome.h"

namespace staithe::proxy {

std::string_view to_string(RequestKind kind) {
  switch (kind) {
    case RequestKind::manifest:
      return "manifest";
    case RequestKind::blob:
      return "blob";
    case RequestKind::tags:
      return "tags";
    case RequestKind::referrers:
      return "referrers";
    case RequestKind::other:
      return "other";
  }
  std::unreachable();
}

std::string_view to_string(RequestResult result) {
  switch (result) {
    case RequestResult::hit:
      return "hit";
    case RequestResult::miss:
      return "miss";
    case RequestResult::collapsed:
      return "collapsed";
    case RequestResult::stale:
      return "stale";
    case RequestResult::pass:
      return "pass";
    case RequestResult::local:
      return "local";
    case RequestResult::not_found:
      return "not_found";
    case RequestResult::refused:
      return "refused";
    case RequestResult::denied:
      return "denied";
    case RequestResult::error:
      return "error";
    case RequestResult::gone:
      return "gone";
  }
  std::unreachable();
}

RequestResult result_of(Errc failure) {
  switch (failure) {
    case Errc::manifest_unknown:
    case Errc::blob_unknown:
    case Errc::name_unknown:
      return RequestResult::not_found;
    case Errc::bad_request:
    case Errc::name_invalid:
    case Errc::not_found:
    case Errc::unsupported:
    case Errc::registry_unknown:
    case Errc::range_not_satisfiable:
    case Errc::too_large:
      return RequestResult::refused;
    default:
      return RequestResult::error;
  }
}

std::string_view to_string(BytesSource source) {
  switch (source) {
    case BytesSource::cache:
      return "cache";
    case BytesSource::shared:
      return "shared";
    case BytesSource::upstream:
      return "upstream";
    case BytesSource::local:
      return "local";
  }
  std::unreachable();
}

BytesSource source_of(int status, std::string_view cache_status_field) {
  if (status >= 400) return BytesSource::local;
  if (cache_status_field == cache_status(Outcome::collapsed)) return BytesSource::shared;
  if (spares_upstream(cache_status_field)) return BytesSource::cache;
  if (cache_status_field == cache_status(Outcome::miss) ||
      cache_status_field == cache_status(Outcome::pass))
    return BytesSource::upstream;
  return BytesSource::local;
}

// ---- Latency -----------------------------------------------------------------------------------

std::size_t Latency::bucket_of(std::chrono::nanoseconds took) {
  // The first ones are by far the most frequent.
  std::size_t bucket = 0;
  while (bucket < bounds.size() && took > bounds[bucket]) ++bucket;
  return bucket;
}

void Latency::add_to(Sums& sums) const {
  for (std::size_t i = 0; i < buckets_.size(); ++i) sums.buckets[i] += buckets_[i].value();
  sums.nanoseconds += nanoseconds_.value();
}

std::uint64_t Latency::Sums::count() const {
  return std::accumulate(buckets.begin(), buckets.end(), std::uint64_t{0});
}

// ---- RequestMeter ------------------------------------------------------------------------------

std::uint64_t RequestMeter::Registry::count(RequestKind kind, RequestResult result) const {
  const auto k = static_cast<std::size_t>(kind);
  std::uint64_t count = main_[k][static_cast<std::size_t>(result)].value();
  if (result == RequestResult::hit && k < kinds_in_memory)
    for (const Hits& hits : hits_) count += hits.by_kind[k].value();
  return count;
}

void RequestMeter::add(Registry* registry, RequestKind kind, RequestResult result,
                       std::chrono::nanoseconds took) {
  const auto k = static_cast<std::size_t>(kind);
  const auto r = static_cast<std::size_t>(result);
  (registry ? *registry : none_).main_[k][r].add(1);
  latency_[k][r].add(took);
}

Latency::Sums RequestMeter::latency(RequestKind kind, RequestResult result) const {
  const auto k = static_cast<std::size_t>(kind);
  Latency::Sums sums;
  latency_[k][static_cast<std::size_t>(result)].add_to(sums);
  if (result == RequestResult::hit && k < kinds_in_memory)
    for (const Thread& thread : threads_) thread.hits[k].add_to(sums);
  return sums;
}

std::uint64_t RequestMeter::bytes(BytesSource source) const {
  std::uint64_t bytes = bytes_[static_cast<std::size_t>(source)].value();
  return source == BytesSource::cache ? bytes + at_front().body_bytes : bytes;
}

RequestMeter::Front RequestMeter::at_front() const {
  Front front;
  for (const Thread& thread : threads_) {
    front.requests += thread.requests.value();
    front.body_bytes += thread.body_bytes.value();
  }
  return front;
}

}  // namespace staithe::proxy
