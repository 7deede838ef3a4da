#include "bench/report.h"

#include <algorithm>
#include <array>
#include <boost/json.hpp>
#include <cstdio>
#include <fstream>

#include "bench/statistics.h"
#include "cache/error.h"

namespace staithe::bench {

namespace {

constexpr double spread_worth_telling = 0.01;

// With thin separators between thousands: 125,915.
std::string number(double value, int decimals) {
  std::array<char, 64> buffer;
  const int n = std::snprintf(buffer.data(), buffer.size(), "%.*f", decimals, value);
  std::string text(buffer.data(), static_cast<std::size_t>(n));
  std::size_t end = text.find('.');
  if (end == std::string::npos) end = text.size();
  for (std::size_t at = end; at > 3 && at - 3 > (text.front() == '-' ? 1U : 0U);) {
    at -= 3;
    text.insert(at, ",");
  }
  return text;
}

std::string cell(const std::vector<double>& runs, int decimals) {
  const Summary summary = summary_of(runs);
  std::string text = number(summary.median, decimals);
  if (summary.spread() >= spread_worth_telling)
    text += " ±" + number(100 * summary.spread(), 0) + "%";
  return text;
}

// Characters as a terminal counts them.
std::size_t width(const std::string& text) {
  return static_cast<std::size_t>(
      std::ranges::count_if(text, [](char c) { return (c & 0xC0) != 0x80; }));
}

std::string padded(const std::string& text, std::size_t to, bool left) {
  const std::string space(to - std::min(to, width(text)), ' ');
  return left ? text + space : space + text;
}

}  // namespace

void Report::add(const Measure& measure, const std::string& peer, double value) {
  auto row = std::ranges::find_if(rows_, [&](const Row& known) {
    return known.measure.name == measure.name && known.measure.unit == measure.unit;
  });
  if (row == rows_.end()) row = rows_.insert(rows_.end(), Row{.measure = measure, .runs = {}});
  row->runs[peer].push_back(value);
}

void Report::note(std::string_view name, std::string_view value) {
  notes_.emplace_back(name, value);
}

std::string Report::table() const {
  std::vector<std::vector<std::string>> lines;
  lines.push_back({"measure", "unit"});
  lines.front().insert(lines.front().end(), peers_.begin(), peers_.end());
  const bool has_goals =
      std::ranges::any_of(rows_, [](const Row& row) { return !row.measure.goal.empty(); });
  if (has_goals) lines.front().emplace_back("goal for staithe");
  for (const Row& row : rows_) {
    std::vector<std::string> line = {row.measure.name, row.measure.unit};
    for (const std::string& peer : peers_) {
      const auto runs = row.runs.find(peer);
      line.push_back(runs == row.runs.end() ? "" : cell(runs->second, row.measure.decimals));
    }
    if (has_goals) line.push_back(row.measure.goal);
    lines.push_back(std::move(line));
  }
  std::vector<std::size_t> widths(lines.front().size());
  for (const auto& line : lines) {
    for (std::size_t i = 0; i < line.size(); ++i) widths[i] = std::max(widths[i], width(line[i]));
  }
  // As Markdown, which reads well on a terminal too and goes into the README as it is.
  std::string text;
  for (std::size_t number_of_line = 0; number_of_line < lines.size(); ++number_of_line) {
    const auto& line = lines[number_of_line];
    for (std::size_t i = 0; i < line.size(); ++i) {
      const bool left = i < 2 || (has_goals && i + 1 == line.size());
      text += (i == 0 ? "| " : " | ") + padded(line[i], widths[i], left);
    }
    text += " |\n";
    if (number_of_line > 0) continue;
    for (std::size_t i = 0; i < line.size(); ++i) {
      const bool left = i < 2 || (has_goals && i + 1 == line.size());
      text += (i == 0 ? "|" : "") + std::string(widths[i] + 1, '-') + (left ? "-|" : ":|");
    }
    text += "\n";
  }
  return text;
}

std::string Report::json() const {
  boost::json::object notes;
  for (const auto& [name, value] : notes_) notes[name] = value;
  boost::json::array rows;
  for (const Row& row : rows_) {
    boost::json::object peers;
    for (const auto& [peer, runs] : row.runs) {
      const Summary summary = summary_of(runs);
      peers[peer] = {{"median", summary.median},
                     {"low", summary.low},
                     {"high", summary.high},
                     {"runs", boost::json::value_from(runs)}};
    }
    rows.push_back({{"measure", row.measure.name},
                    {"unit", row.measure.unit},
                    {"goal", row.measure.goal},
                    {"peers", std::move(peers)}});
  }
  return boost::json::serialize(
      boost::json::object{{"notes", std::move(notes)}, {"rows", std::move(rows)}});
}

void Report::print(const std::string& json_file) const {
  std::printf("%s", table().c_str());
  if (json_file.empty()) return;
  std::ofstream file(json_file);
  file << json() << '\n';
  if (!file.flush()) throw Failure(Errc::storage_failed, "cannot write " + json_file);
}

}  // namespace staithe::bench
