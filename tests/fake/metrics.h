// Prometheus' text format 0.0.4, read as strictly as it is specified: what a scraper would make of
// it, or a failure of the test that says what is wrong.
#pragma once

#include <gtest/gtest.h>

#include <cctype>
#include <charconv>
#include <limits>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>

namespace staithe::fake {

class Metrics {
 public:
  struct Family {
    std::string help;
    std::string type;
  };
  using Labels = std::map<std::string, std::string>;

  explicit Metrics(std::string_view text) {
    if (!text.ends_with('\n')) ADD_FAILURE() << "the last line has no end";
    while (!text.empty()) {
      const std::size_t end = std::min(text.find('\n'), text.size());
      read_line(text.substr(0, end));
      text.remove_prefix(std::min(end + 1, text.size()));
    }
    check_histograms();
  }

  const std::map<std::string, Family>& families() const { return families_; }
  bool has(const std::string& name, const Labels& labels = {}) const {
    return samples_.contains({name, labels});
  }
  // 0 if there is none.
  double value(const std::string& name, const Labels& labels = {}) const {
    const auto found = samples_.find({name, labels});
    return found == samples_.end() ? 0 : found->second;
  }
  // Of all samples called so that have these labels among theirs.
  double sum(const std::string& name, const Labels& some = {}) const {
    double sum = 0;
    for (const auto& [key, value] : samples_) {
      if (key.first != name) continue;
      bool fits = true;
      for (const auto& [label, text] : some) {
        const auto found = key.second.find(label);
        fits = fits && found != key.second.end() && found->second == text;
      }
      if (fits) sum += value;
    }
    return sum;
  }
  std::set<std::string> values_of(const std::string& label) const {
    std::set<std::string> values;
    for (const auto& [key, value] : samples_)
      if (const auto found = key.second.find(label); found != key.second.end())
        values.insert(found->second);
    return values;
  }
  // Of every sample of counters and histograms.
  std::map<std::pair<std::string, Labels>, double> counters() const {
    std::map<std::pair<std::string, Labels>, double> all;
    for (const auto& [key, value] : samples_)
      if (families_.at(family_of(key.first)).type != "gauge") all.emplace(key, value);
    return all;
  }

 private:
  static bool is_name(std::string_view text) {
    if (text.empty() || std::isdigit(static_cast<unsigned char>(text.front()))) return false;
    for (const char c : text)
      if (!std::isalnum(static_cast<unsigned char>(c)) && c != '_' && c != ':') return false;
    return true;
  }

  std::string family_of(const std::string& name) const {
    for (const std::string_view suffix : {"_bucket", "_sum", "_count"}) {
      if (!name.ends_with(suffix)) continue;
      const std::string base = name.substr(0, name.size() - suffix.size());
      if (const auto found = families_.find(base);
          found != families_.end() && found->second.type == "histogram")
        return base;
    }
    return name;
  }

  void read_line(std::string_view line) {
    if (line.starts_with("# HELP ") || line.starts_with("# TYPE ")) {
      const bool help = line[2] == 'H';
      line.remove_prefix(7);
      const std::string name(line.substr(0, line.find(' ')));
      const std::string rest(line.substr(std::min(name.size() + 1, line.size())));
      EXPECT_TRUE(is_name(name)) << name;
      EXPECT_FALSE(rest.empty()) << name;
      if (help) {
        EXPECT_TRUE(families_.emplace(name, Family{.help = rest, .type = {}}).second)
            << name << " comes twice";
      } else {
        EXPECT_EQ(current_, name) << "HELP comes before TYPE";
        EXPECT_TRUE(rest == "counter" || rest == "gauge" || rest == "histogram") << rest;
        families_[name].type = rest;
      }
      current_ = name;
      return;
    }
    ASSERT_FALSE(line.starts_with('#')) << line;
    read_sample(line);
  }

  void read_sample(std::string_view line) {
    const std::string_view whole = line;
    const std::string name(line.substr(0, line.find_first_of("{ ")));
    ASSERT_TRUE(is_name(name)) << whole;
    ASSERT_EQ(family_of(name), current_) << "samples of a metric stand together: " << whole;
    line.remove_prefix(name.size());
    Labels labels;
    if (line.starts_with('{')) {
      line.remove_prefix(1);
      for (;;) {
        const std::string label(line.substr(0, line.find('=')));
        ASSERT_TRUE(is_name(label) && label.find(':') == label.npos) << whole;
        line.remove_prefix(label.size());
        ASSERT_TRUE(line.starts_with("=\"")) << whole;
        line.remove_prefix(2);
        std::string value;
        while (!line.empty() && line.front() != '"') {
          char c = line.front();
          if (c == '\\') {
            ASSERT_GE(line.size(), 2U) << whole;
            line.remove_prefix(1);
            ASSERT_TRUE(line.front() == '\\' || line.front() == '"' || line.front() == 'n')
                << whole;
            c = line.front() == 'n' ? '\n' : line.front();
          }
          value += c;
          line.remove_prefix(1);
        }
        ASSERT_FALSE(line.empty()) << whole;
        line.remove_prefix(1);
        ASSERT_TRUE(labels.emplace(label, value).second) << whole;
        if (!line.starts_with(',')) break;
        line.remove_prefix(1);
      }
      ASSERT_TRUE(line.starts_with('}')) << whole;
      line.remove_prefix(1);
    }
    ASSERT_TRUE(line.starts_with(' ')) << whole;
    line.remove_prefix(1);
    double value = 0;
    const auto [end, error] = std::from_chars(line.data(), line.data() + line.size(), value);
    ASSERT_TRUE(error == std::errc() && end == line.data() + line.size()) << whole;
    ASSERT_TRUE(samples_.emplace(std::pair(name, labels), value).second)
        << "comes twice: " << whole;
    if (families_[current_].type == "counter") {
      EXPECT_GE(value, 0) << whole;
    }
  }

  void check_histograms() {
    std::map<std::pair<std::string, Labels>, std::map<double, double>> histograms;
    for (const auto& [key, value] : samples_) {
      if (!key.first.ends_with("_bucket")) continue;
      Labels labels = key.second;
      const std::string text = labels.extract("le").mapped();
      double le = std::numeric_limits<double>::infinity();
      if (text != "+Inf") std::from_chars(text.data(), text.data() + text.size(), le);
      histograms[{family_of(key.first), labels}][le] = value;
    }
    for (const auto& [key, buckets] : histograms) {
      double last = 0;
      for (const auto& [le, count] : buckets) {
        EXPECT_GE(count, last) << key.first << " is not cumulative at " << le;
        last = count;
      }
      EXPECT_EQ(buckets.rbegin()->first, std::numeric_limits<double>::infinity());
      EXPECT_EQ(value(key.first + "_count", key.second), last) << key.first;
      EXPECT_TRUE(has(key.first + "_sum", key.second)) << key.first;
    }
  }

  std::map<std::string, Family> families_;
  std::map<std::pair<std::string, Labels>, double> samples_;
  std::string current_;
};

}  // namespace staithe::fake
