#include "daemon/metric_text.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <regex>
#include <set>
#include <sstream>

#include "tests/fake/metrics.h"

namespace staithe::daemon {
namespace {

using fake::Metrics;
using testing::HasSubstr;

std::string contents(const std::filesystem::path& path) {
  std::ifstream file(std::filesystem::path(STAITHE_SOURCE_DIR) / path);
  EXPECT_TRUE(file) << path;
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

// The whole table, with what `fill` adds after each head.
std::string whole(const std::function<void(MetricText&, Metric)>& fill) {
  MetricText text;
  for (const MetricRow& row : metric_table()) {
    text.begin(row.id);
    fill(text, row.id);
  }
  return std::move(text).take();
}

TEST(MetricText, EscapesWhatTheFormatNeedsEscaped) {
  EXPECT_EQ(escape_label(R"(a\b"c)"), R"(a\\b\"c)");
  EXPECT_EQ(escape_label("two\nlines"), "two\\nlines");
  const std::string odd = "x\\\"\n{}=,# \xc3\xa9";
  const std::string text = whole([&](MetricText& out, Metric metric) {
    if (metric == Metric::upstream_bytes) out.add({odd}, 5);
  });
  EXPECT_EQ(Metrics(text).value("staithe_upstream_bytes_total", {{"registry", odd}}), 5);
}

TEST(MetricText, WritesNumbersThatMeanWhatTheyAre) {
  const std::string text = whole([](MetricText& out, Metric metric) {
    if (metric == Metric::cache_bytes) out.add({}, std::uint64_t{18'446'744'073'709'551'615U});
    if (metric == Metric::throttled) out.add({"r"}, 0.1);
    if (metric == Metric::token_expiry) out.add({"r", "entra"}, -5);
  });
  EXPECT_THAT(text, HasSubstr("\nstaithe_cache_bytes 18446744073709551615\n"));
  EXPECT_THAT(text, HasSubstr("\nstaithe_throttled_seconds_total{registry=\"r\"} 0.1\n"));
  EXPECT_THAT(text,
              HasSubstr("\nstaithe_token_expiry_seconds{registry=\"r\",kind=\"entra\"} -5\n"));
}

TEST(MetricText, WritesAHistogramThatAddsUp) {
  proxy::Latency latency;
  latency.add(std::chrono::microseconds(50), 3);
  latency.add(std::chrono::milliseconds(3));
  latency.add(std::chrono::hours(1));
  proxy::Latency::Sums sums;
  latency.add_to(sums);
  const std::string text = whole([&](MetricText& out, Metric metric) {
    if (metric == Metric::request_seconds) out.add({"blob", "hit"}, sums);
  });
  const Metrics metrics(text);
  const auto bucket = [&](const std::string& le) {
    return metrics.value("staithe_request_seconds_bucket",
                         {{"kind", "blob"}, {"result", "hit"}, {"le", le}});
  };
  EXPECT_EQ(bucket("0.0001"), 3);
  EXPECT_EQ(bucket("0.0025"), 3);
  EXPECT_EQ(bucket("0.005"), 4);
  EXPECT_EQ(bucket("300"), 4);
  EXPECT_EQ(bucket("+Inf"), 5);
  EXPECT_NEAR(metrics.value("staithe_request_seconds_sum", {{"kind", "blob"}, {"result", "hit"}}),
              3600.00315, 1e-9);
}

TEST(MetricTable, NamesAreAsPrometheusWantsThem) {
  std::set<std::string_view> names;
  for (const MetricRow& row : metric_table()) {
    EXPECT_TRUE(names.insert(row.name).second) << row.name;
    EXPECT_EQ(row.name.ends_with("_total"), row.type == "counter") << row.name;
    EXPECT_TRUE(row.help.ends_with('.')) << row.name;
    EXPECT_EQ(row.help.find_first_of("\\\n|"), row.help.npos) << row.name;
    const bool standard = row.name.starts_with("process_");
    EXPECT_TRUE(standard || row.name.starts_with("staithe_")) << row.name;
  }
}

TEST(MetricTable, HasWhatTheContractNames) {
  const std::map<std::string_view, std::string_view> contract{
      {"staithe_requests_total", "registry,kind,result"},
      {"staithe_request_seconds", "kind,result"},
      {"staithe_bytes_served_total", "source"},
      {"staithe_upstream_requests_total", "registry,kind,code"},
      {"staithe_upstream_bytes_total", "registry"},
      {"staithe_fills_active", ""},
      {"staithe_fill_readers", ""},
      {"staithe_fill_resumes_total", ""},
      {"staithe_cache_bytes", ""},
      {"staithe_cache_max_bytes", ""},
      {"staithe_cache_blobs", ""},
      {"staithe_evictions_total", "reason"},
      {"staithe_quarantined_total", ""},
      {"staithe_token_expiry_seconds", "registry,kind"},
      {"staithe_token_renewals_total", "registry,kind,result"},
      {"staithe_throttled_seconds_total", "registry"},
      {"staithe_denied_total", "reason"},
      {"staithe_build_info", "version"}};
  std::map<std::string_view, std::string_view> there;
  for (const MetricRow& row : metric_table()) there.emplace(row.name, row.labels);
  for (const auto& [name, labels] : contract) {
    ASSERT_TRUE(there.contains(name)) << name;
    EXPECT_EQ(there.at(name), labels) << name;
  }
}

TEST(MetricTable, StandsInTheDocumentation) {
  const std::string page = contents("docs/metrics.md");
  EXPECT_THAT(page, HasSubstr("| --- | --- | --- | --- |\n" + metrics_markdown()))
      << "the table there is:\n"
      << metrics_markdown();
}

// What a query asks for has to be there, or an alert never fires and a panel stays empty.
TEST(MetricTable, HasEveryMetricThatRulesDashboardAndDocumentationAskFor) {
  std::set<std::string> known;
  for (const MetricRow& row : metric_table()) {
    known.emplace(row.name);
    if (row.type != "histogram") continue;
    for (const char* suffix : {"_bucket", "_sum", "_count"})
      known.insert(std::string(row.name) + suffix);
  }
  for (const char* file :
       {"etc/prometheus/staithe.rules.yml", "etc/grafana/staithe.json", "docs/metrics.md"}) {
    const std::string text = contents(file);
    const std::regex name(R"(\b(staithe|process)_[a-z_]+)");
    int found = 0;
    for (std::sregex_iterator it(text.begin(), text.end(), name), end; it != end; ++it, ++found)
      EXPECT_TRUE(known.contains(it->str())) << file << ": " << it->str();
    EXPECT_GT(found, 10) << file;
  }
}

}  // namespace
}  // namespace staithe::daemon
