#include "daemon/status_line.h"

#include <algorithm>
#include <cmath>

#include "daemon/terminal.h"

namespace staithe::daemon {

namespace {

// Of a sentence that is not ours to shorten by words; systemctl shows one line.
constexpr std::size_t longest_sentence = 300;

std::string count(std::size_t number, const std::string& noun) {
  return std::to_string(number) + " " + noun + (number == 1 ? "" : "s");
}

// Lines of the notification are told apart by their ends.
std::string one_line(std::string text) {
  std::ranges::replace_if(text, [](unsigned char c) { return c < ' ' || c == 0x7f; }, ' ');
  if (text.size() > longest_sentence) text.resize(longest_sentence);
  return text;
}

}  // namespace

std::string status_line(const StatusFigures& figures) {
  const cache::Store::Stats& cache = figures.cache;
  std::string text = "serving; " + count(figures.connections, "connection") + ", " +
                     count(figures.transfers, "transfer") + "; " +
                     show_bytes(static_cast<double>(cache.bytes)) + " of " +
                     show_bytes(static_cast<double>(cache.max_bytes)) + " cached";
  if (figures.hit_ratio)
    text += ", " + std::to_string(std::lround(*figures.hit_ratio * 100)) + "% hits";
  if (cache.mode == cache::Store::Mode::pass_through)
    text += "; the cache takes nothing: " + one_line(cache.mode_reason);
  if (cache.mode == cache::Store::Mode::read_only)
    text += "; the cache is read only: " + one_line(cache.mode_reason);
  if (!figures.fault.empty()) text += "; configuration not reloaded: " + one_line(figures.fault);
  return text;
}

}  // namespace staithe::daemon
