#include "daemon/cli_warm_progress.h"

#include <algorithm>

#include "daemon/cli_transfers.h"
#include "daemon/json_reader.h"

namespace staithe::daemon {
namespace {

// So that digest, bar, amounts and pace have 80 columns.
constexpr std::size_t bar_columns = 12;
constexpr std::size_t digest_columns = 12;
constexpr std::size_t most_errors = 1'000;
// Before that a speed says nothing.
constexpr double least_seconds = 0.5;

std::string fitted(const std::string& text, const Style& style) {
  return style.columns > 0 ? fit(text, style.columns, style) : text;
}

std::string short_digest(std::string_view digest) {
  return std::string(digest.substr(digest.find(':') + 1).substr(0, digest_columns));
}

std::string pace(double speed, double left) {
  if (speed <= 0) return {};
  return "  " + show_bytes(speed) + "/s  " + show_seconds(std::max(left, 0.0) / speed) + " left";
}

}  // namespace

double WarmProgress::Blob::speed() const {
  if (told_speed > 0) return told_speed;
  const double passed = last_seconds - first_seconds;
  return passed < least_seconds ? 0 : std::max(bytes - first_bytes, 0.0) / passed;
}

void WarmProgress::add(const boost::json::value& value, double seconds) {
  const JsonReader line(&value);
  const std::string kind = line["kind"].text();
  const std::string state = line["state"].text();
  const double bytes = std::max(line["bytes"].number(), 0.0);
  const double total = std::max(line["total"].number(), 0.0);
  if (kind == "waiting") {
    client_fills_ = static_cast<std::size_t>(std::clamp(line["client_fills"].number(), 0.0, 1e6));
    return;
  }
  const std::string name = line["image"].text();
  if (name.empty()) return;
  Image& image = images_[name];
  if (kind == "image") {
    image.total = state == "failed" ? image.bytes : total;
    image.ended = state != "fetching";
    return;
  }
  if (kind != "blob") return;
  client_fills_ = 0;
  if (first_seconds_ < 0) first_seconds_ = seconds;
  const std::string digest = line["digest"].text();
  if (state == "fetching") {
    const auto [it, is_new] = blobs_.try_emplace(digest);
    Blob& blob = it->second;
    if (is_new) {
      blob.first_bytes = bytes;
      blob.first_seconds = seconds;
    }
    blob.image = name;
    blob.bytes = bytes;
    blob.last_seconds = seconds;
    blob.total = total;
    blob.told_speed = std::max(line["bytes_per_second"].number(), 0.0);
    return;
  }
  blobs_.erase(digest);
  image.bytes += bytes;
  if (state == "done") fetched_ += bytes;
}

std::vector<std::string> WarmProgress::bars(double seconds, const Style& style) const {
  std::vector<std::string> lines;
  for (const auto& [digest, blob] : blobs_) {
    const double part = blob.total > 0 ? std::min(blob.bytes / blob.total, 1.0) : 0;
    lines.push_back(fitted(short_digest(digest) + "  " + bar(part, bar_columns, style) + "  " +
                               show_percent(blob.bytes, blob.total) + "  " +
                               show_bytes(blob.bytes) + " of " + show_bytes(blob.total) +
                               pace(blob.speed(), blob.total - blob.bytes) + "  " + blob.image,
                           style));
  }
  lines.push_back(all(seconds, style));
  return lines;
}

std::string WarmProgress::all(double seconds, const Style& style) const {
  double total = 0;
  double bytes = 0;
  double fetched = fetched_;
  std::size_t ended = 0;
  for (const auto& [name, image] : images_) {
    total += image.total;
    bytes += image.bytes;
    ended += image.ended;
  }
  for (const auto& [digest, blob] : blobs_) {
    bytes += blob.bytes;
    fetched += std::max(blob.bytes - blob.first_bytes, 0.0);
  }
  const double passed = first_seconds_ < 0 ? 0 : seconds - first_seconds_;
  const double speed = passed < least_seconds ? 0 : fetched / passed;
  std::string text = bar(total > 0 ? std::min(bytes / total, 1.0) : 0, bar_columns, style) + "  " +
                     show_percent(bytes, total) + "  " + std::to_string(ended) + " of " +
                     std::to_string(images_.size()) +
                     (images_.size() == 1 ? " image  " : " images  ") + show_bytes(bytes) + " of " +
                     show_bytes(total);
  if (client_fills_ > 0) {
    text += "  waits for pulls: " + std::to_string(client_fills_);
  } else {
    text += pace(speed, total - bytes);
  }
  return fitted(text, style);
}

std::string render_warm_end(const boost::json::value& value) {
  const JsonReader line(&value);
  const std::string state = line["state"].text();
  if (line["kind"].text() != "image" || state == "fetching") return {};
  std::string text = line["image"].text();
  if (state == "failed") return text + "  failed";
  text += state == "cached" ? "  was warm  " : "  warm  ";
  return text + show_bytes(line["bytes"].number());
}

std::string render_warm_sum(const boost::json::value& value) {
  const JsonReader line(&value);
  const double images = line["images"].number();
  const double warm = std::max(images - line["failed"].number(), 0.0);
  char count[32];
  std::snprintf(count, sizeof count, "%.0f", std::min(warm, 1e9));
  return std::string(count) + " of " + counted(line["images"], "image") +
         (warm == 1 ? " is warm: " : " are warm: ") + show_bytes(line["bytes_fetched"].number()) +
         " fetched, " + show_bytes(line["bytes_cached"].number()) + " were here, in " +
         show_seconds(line["seconds"].number());
}

std::vector<std::string> warm_errors(const boost::json::value& value) {
  std::vector<std::string> sentences;
  for (const JsonReader& error : JsonReader(&value)["errors"].items(most_errors))
    sentences.push_back(error["image"].text() + ": " + error["error"].text(1000));
  return sentences;
}

}  // namespace staithe::daemon
