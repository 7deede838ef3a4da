#include "daemon/metric_text.h"

#include <algorithm>
#include <array>
#include <cassert>
#include <charconv>
#include <ranges>

namespace staithe::daemon {

namespace {

constexpr auto table = std::to_array<MetricRow>({
    {Metric::requests, "staithe_requests_total", "counter", "registry,kind,result",
     "Requests of clients that were answered."},
    {Metric::request_seconds, "staithe_request_seconds", "histogram", "kind,result",
     "Seconds from a request's head to the last byte of its answer."},
    {Metric::bytes_served, "staithe_bytes_served_total", "counter", "source",
     "Bytes of bodies sent to clients, by where they came from."},
    {Metric::denied, "staithe_denied_total", "counter", "reason",
     "Requests and connections that were turned away because of who or what makes them."},
    {Metric::connections, "staithe_connections", "gauge", "",
     "Connections of clients that are open on the registry's listeners."},
    {Metric::connections_refused, "staithe_connections_refused_total", "counter", "reason",
     "Connections of clients that were turned away because too many are open."},
    {Metric::tls_handshakes, "staithe_tls_handshakes_total", "counter", "result",
     "TLS handshakes of clients, where listen.tls has addresses."},
    {Metric::tls_certificate_expiry, "staithe_tls_certificate_expiry_seconds", "gauge", "",
     "Seconds until the certificate ends that listen.tls serves; a person renews it."},
    {Metric::upstream_requests, "staithe_upstream_requests_total", "counter", "registry,kind,code",
     "Requests sent upstream, repeats included, by the status of the answer."},
    {Metric::upstream_bytes, "staithe_upstream_bytes_total", "counter", "registry",
     "Bytes of bodies received from upstream."},
    {Metric::upstream_state, "staithe_upstream_state", "gauge", "registry,state",
     "How many upstreams of a registry that was asked for are in this state."},
    {Metric::upstream_paused, "staithe_upstream_paused_seconds", "gauge", "registry",
     "Seconds that are left of a pause that upstream asks for; 0 without one."},
    {Metric::throttled, "staithe_throttled_seconds_total", "counter", "registry",
     "Seconds of pauses that upstream has asked for, counted when it does."},
    {Metric::token_expiry, "staithe_token_expiry_seconds", "gauge", "registry,kind",
     "Seconds until the first of the tokens of this kind ends; they are renewed ahead of it."},
    {Metric::token_renewals, "staithe_token_renewals_total", "counter", "registry,kind,result",
     "Fetches of tokens, the first ones included."},
    {Metric::credential_expiry, "staithe_credential_expiry_seconds", "gauge", "registry",
     "Seconds until the first of the secrets, certificates and tokens ends that a person renews."},
    {Metric::fills_active, "staithe_fills_active", "gauge", "",
     "Blobs that are being fetched from upstream."},
    {Metric::fill_readers, "staithe_fill_readers", "gauge", "",
     "Clients that are being sent a blob while it is fetched."},
    {Metric::fill_resumes, "staithe_fill_resumes_total", "counter", "",
     "Times that the fetching of a blob went on after it had broken off."},
    {Metric::cache_bytes, "staithe_cache_bytes", "gauge", "",
     "Bytes that the cache takes on its file system."},
    {Metric::cache_max_bytes, "staithe_cache_max_bytes", "gauge", "",
     "Bytes that the cache may take at this moment, by cache.max_size and cache.min_free."},
    {Metric::cache_free_bytes, "staithe_cache_free_bytes", "gauge", "",
     "Bytes that are free on the file system of the cache."},
    {Metric::cache_blobs, "staithe_cache_blobs", "gauge", "", "Blobs in the cache."},
    {Metric::cache_manifests, "staithe_cache_manifests", "gauge", "", "Manifests in the cache."},
    {Metric::cache_mode, "staithe_cache_mode", "gauge", "mode",
     "1 for the mode that the cache is in: read-write, pass-through or read-only; 0 for others."},
    {Metric::evictions, "staithe_evictions_total", "counter", "reason",
     "Blobs and manifests removed from the cache to make room."},
    {Metric::quarantined, "staithe_quarantined_total", "counter", "",
     "Blobs and manifests set aside because their bytes on disk were damaged."},
    {Metric::log_dropped, "staithe_log_dropped_total", "counter", "",
     "Lines of the log that were lost because their sink was too slow."},
    {Metric::build_info, "staithe_build_info", "gauge", "version",
     "Always 1; the version of the daemon is the label."},
    {Metric::process_cpu, "process_cpu_seconds_total", "counter", "",
     "Seconds of processor time that the daemon has used, user and system."},
    {Metric::process_memory, "process_resident_memory_bytes", "gauge", "",
     "Bytes of memory that the daemon has in use."},
    {Metric::process_start, "process_start_time_seconds", "gauge", "",
     "When the daemon started, in seconds since 1970-01-01 UTC."},
});
static_assert([] {
  for (std::size_t i = 0; i < table.size(); ++i)
    if (static_cast<std::size_t>(table[i].id) != i) return false;
  return true;
}());

// Without an exponent, as other programs write the bounds of buckets.
std::string number(double value) {
  std::array<char, 512> text;
  const auto end =
      std::to_chars(text.data(), text.data() + text.size(), value, std::chars_format::fixed).ptr;
  return {text.data(), end};
}

std::string seconds(std::chrono::nanoseconds duration) {
  return number(std::chrono::duration<double>(duration).count());
}

}  // namespace

std::span<const MetricRow> metric_table() { return table; }

std::string escape_label(std::string_view value) {
  std::string escaped;
  for (const char c : value) {
    if (c == '\n') {
      escaped += "\\n";
    } else {
      if (c == '\\' || c == '"') escaped += '\\';
      escaped += c;
    }
  }
  return escaped;
}

void MetricText::begin(Metric metric) {
  assert(static_cast<std::size_t>(metric) == begun_);
  const MetricRow& row = table[begun_++];
  text_.append("# HELP ").append(row.name).append(" ").append(row.help).append("\n# TYPE ");
  text_.append(row.name).append(" ").append(row.type).append("\n");
}

void MetricText::add(Labels labels, double value) { add_line({}, labels, {}, number(value)); }

void MetricText::add(Labels labels, const proxy::Latency::Sums& sums) {
  std::uint64_t so_far = 0;
  for (std::size_t i = 0; i < proxy::Latency::bounds.size(); ++i) {
    so_far += sums.buckets[i];
    add_line("_bucket", labels, seconds(proxy::Latency::bounds[i]), std::to_string(so_far));
  }
  const std::string count = std::to_string(so_far + sums.buckets.back());
  add_line("_bucket", labels, "+Inf", count);
  add_line("_sum", labels, {},
           seconds(std::chrono::nanoseconds(static_cast<std::int64_t>(sums.nanoseconds))));
  add_line("_count", labels, {}, count);
}

void MetricText::add_line(std::string_view suffix, Labels labels, std::string_view le,
                          std::string_view value) {
  assert(begun_ > 0);
  const MetricRow& row = table[begun_ - 1];
  text_.append(row.name).append(suffix);
  char before = '{';
  const auto add_label = [&](std::string_view name, std::string_view text) {
    text_.append(1, before).append(name).append("=\"").append(escape_label(text)).append("\"");
    before = ',';
  };
  auto value_of = labels.begin();
  if (!row.labels.empty()) {
    for (const auto name : std::views::split(row.labels, ',')) {
      assert(value_of != labels.end());
      add_label(std::string_view(name), *value_of++);
    }
  }
  assert(value_of == labels.end());
  if (!le.empty()) add_label("le", le);
  if (before == ',') text_ += '}';
  text_.append(" ").append(value).append("\n");
}

std::string MetricText::take() && {
  assert(begun_ == table.size());
  return std::move(text_);
}

std::string metrics_markdown() {
  std::string text;
  for (const MetricRow& row : table) {
    std::string labels;
    if (!row.labels.empty())
      for (const auto name : std::views::split(row.labels, ','))
        labels.append(labels.empty() ? "`" : ", `").append(std::string_view(name)).append("`");
    text.append("| `").append(row.name).append("` | ").append(row.type).append(" | ");
    text.append(labels).append(" | ").append(row.help).append(" |\n");
  }
  return text;
}

}  // namespace staithe::daemon
