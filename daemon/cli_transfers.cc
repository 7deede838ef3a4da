#include "daemon/cli_transfers.h"

#include <algorithm>
#include <cstdio>
#include <string_view>
#include <utility>
#include <vector>

namespace staithe::daemon {
namespace {

constexpr std::size_t indent = 2;
constexpr std::size_t most_fills = 30;
constexpr std::size_t most_warms = 16;
constexpr std::size_t most_errors = 10;
constexpr std::size_t bar_columns = 12;
constexpr std::size_t short_digest = 19;  // "sha256:" and twelve digits

Span heading(std::string text) { return {std::move(text), Tone::heading}; }

std::string amount(double bytes, double total) {
  return show_bytes(bytes) + (total > 0 ? " of " + show_bytes(total) : "");
}

}  // namespace

std::string describe_pace(const JsonReader& fill) {
  std::string text;
  const auto add = [&](const std::string& what) { text += (text.empty() ? "" : ", ") + what; };
  if (fill["bytes_per_second"].is_number())
    add(show_bytes(fill["bytes_per_second"].number()) + "/s");
  if (fill["seconds_left"].is_number()) add(show_seconds(fill["seconds_left"].number()) + " left");
  if (fill["connections"].is_number()) add(counted(fill["connections"], "connection"));
  return text;
}

std::string counted(const JsonReader& number, std::string_view what) {
  const std::string count = number.count();
  return count + " " + std::string(what) + (count == "1" ? "" : "s");
}

std::string show_percent(double part, double whole) {
  char text[32];
  std::snprintf(text, sizeof text, "%.1f%%",
                whole > 0 ? std::clamp(100 * part / whole, 0.0, 100.0) : 0.0);
  return text;
}

std::string render_fills(const JsonReader& fills, const Style& style) {
  if (fills.size() == 0) return {};
  std::string text = flow({heading("FILLS")}, 0, style);
  std::vector<Row> rows;
  for (const JsonReader& fill : fills.items(most_fills)) {
    const double bytes = fill["bytes"].number();
    const double total = fill["total"].number();
    const std::string registry = fill["registry"].text();
    Row row{{{fill["digest"].text().substr(0, short_digest), Tone::faint},
             {registry + (registry.empty() ? "" : "/") + fill["repository"].text()},
             {bar(total > 0 ? bytes / total : 0, bar_columns, style)},
             {total > 0 ? show_percent(bytes, total) : "?"},
             {counted(fill["readers"], "reader")}},
            {}};
    // Below, so that the name has room.
    const std::string pace = describe_pace(fill);
    row.notes.push_back({amount(bytes, total) + (pace.empty() ? "" : ", " + pace), Tone::faint});
    rows.push_back(std::move(row));
  }
  text += table(rows, indent, style);
  if (fills.size() > most_fills)
    text += flow({{"and " + std::to_string(fills.size() - most_fills) + " more"}}, indent, style);
  return text;
}

std::string render_warms(const JsonReader& warm, const Style& style) {
  const JsonReader running = warm["running"];
  const JsonReader configured = warm["configured"];
  if (running.size() == 0 && configured["images"].number() == 0) return {};
  std::string text = flow({heading("WARM")}, 0, style);
  for (const JsonReader& one : running.items(most_warms)) {
    const double bytes = one["bytes"].number();
    const double total = one["total"].number();
    std::vector<Span> line{{one["asker"].text() == "boot" ? "at boot" : "on request"},
                           {one["platform"].text()},
                           {bar(total > 0 ? bytes / total : 0, bar_columns, style)},
                           {amount(bytes, total)},
                           {counted(one["images_left"], "image") + " left"},
                           {counted(one["blobs_left"], "blob") + " left"}};
    if (one["waits_for_client_fills"].number() > 0)
      line.push_back(
          {"waits for " + counted(one["waits_for_client_fills"], "pulled blob"), Tone::caution});
    text += flow(line, indent, style);
  }
  if (configured["images"].number() > 0) {
    std::vector<Span> line{
        {"configured"},
        {configured["warm"].count() + " of " + counted(configured["images"], "image") + " warm"}};
    if (configured["failed"].number() > 0)
      line.push_back({configured["failed"].count() + " failed", Tone::bad});
    if (configured["next_try_in_seconds"].is_number())
      line.push_back({"next try in " + show_seconds(configured["next_try_in_seconds"].number())});
    text += flow(line, indent, style);
  }
  for (const JsonReader& error : configured["errors"].items(most_errors))
    text += paragraph({error["image"].text() + ": " + error["error"].text(1000), Tone::bad}, indent,
                      style);
  return text;
}

}  // namespace staithe::daemon
