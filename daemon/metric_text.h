// The metrics in Prometheus' text format 0.0.4, and the one table of what there is: what is not in
// the table cannot be written, and docs/metrics.md is checked against it. Pure.
#pragma once

#include <concepts>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <string>
#include <string_view>

#include "proxy/request_meter.h"

namespace staithe::daemon {

// In the order in which they are written.
enum class Metric {
  requests,
  request_seconds,
  bytes_served,
  denied,
  connections,
  connections_refused,
  tls_handshakes,
  tls_certificate_expiry,
  upstream_requests,
  upstream_bytes,
  upstream_state,
  upstream_paused,
  throttled,
  token_expiry,
  token_renewals,
  credential_expiry,
  fills_active,
  fill_readers,
  fill_resumes,
  cache_bytes,
  cache_max_bytes,
  cache_free_bytes,
  cache_blobs,
  cache_manifests,
  cache_mode,
  evictions,
  quarantined,
  log_dropped,
  build_info,
  process_cpu,
  process_memory,
  process_start,
};

struct MetricRow {
  Metric id;
  std::string_view name;
  std::string_view type;    // "counter", "gauge", "histogram"
  std::string_view labels;  // their names, joined by commas; empty: none
  std::string_view help;    // one line, with the unit
};
std::span<const MetricRow> metric_table();

// The content type of what MetricText makes.
inline constexpr std::string_view metrics_content_type = "text/plain; version=0.0.4; charset=utf-8";

class MetricText {
 public:
  // The values of the labels, in the table's order.
  using Labels = std::initializer_list<std::string_view>;

  // All samples of one metric come after its begin(), which comes once, and in the table's order.
  void begin(Metric metric);
  template <std::integral T>
  void add(Labels labels, T value) {
    add_line({}, labels, {}, std::to_string(value));
  }
  void add(Labels labels, double value);
  void add(Labels labels, const proxy::Latency::Sums& sums);

  // Every metric of the table was begun.
  std::string take() &&;

 private:
  // `le`: of a bucket of a histogram; else empty.
  void add_line(std::string_view suffix, Labels labels, std::string_view le,
                std::string_view value);

  std::string text_;
  std::size_t begun_ = 0;  // so many of the table
};

// A label's value with what the format needs escaped.
std::string escape_label(std::string_view value);

// The rows of the table in docs/metrics.md.
std::string metrics_markdown();

}  // namespace staithe::daemon
