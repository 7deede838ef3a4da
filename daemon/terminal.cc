#include "daemon/terminal.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>

namespace staithe::daemon {
namespace {

constexpr std::string_view kGap = "  ";
constexpr std::size_t kNarrowestCell = 6;
constexpr std::size_t kUsualColumns = 80;

bool is_continuation(char c) { return (static_cast<unsigned char>(c) & 0xC0) == 0x80; }

std::string_view escape_of(Tone tone) {
  switch (tone) {
    case Tone::plain:
      return "";
    case Tone::heading:
      return "\x1b[1m";
    case Tone::good:
      return "\x1b[32m";
    case Tone::caution:
      return "\x1b[33m";
    case Tone::bad:
      return "\x1b[31m";
    case Tone::faint:
      return "\x1b[2m";
  }
  return "";
}

std::string_view variable(const char* name) {
  const char* value = std::getenv(name);
  return value ? value : "";
}

// One code point at the front of `text`, and its length; {0, 0} if it is not well-formed UTF-8.
struct CodePoint {
  std::uint32_t value;
  std::size_t bytes;
};
CodePoint front_code_point(std::string_view text) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned first = byte(0);
  std::size_t bytes = 0;
  std::uint32_t value = 0;
  std::uint32_t least = 0;
  if (first < 0x80) return {first, 1};
  if (first >= 0xC2 && first < 0xE0) bytes = 2, value = first & 0x1F, least = 0x80;
  if (first >= 0xE0 && first < 0xF0) bytes = 3, value = first & 0x0F, least = 0x800;
  if (first >= 0xF0 && first < 0xF5) bytes = 4, value = first & 0x07, least = 0x10000;
  if (bytes == 0 || text.size() < bytes) return {0, 0};
  for (std::size_t i = 1; i < bytes; ++i) {
    if (!is_continuation(text[i])) return {0, 0};
    value = value << 6 | (byte(i) & 0x3F);
  }
  const bool surrogate = value >= 0xD800 && value < 0xE000;
  if (value < least || value > 0x10FFFF || surrogate) return {0, 0};
  return {value, bytes};
}

bool is_control(std::uint32_t c) {
  return c < 0x20 || (c >= 0x7F && c < 0xA0) ||  // C0, DEL, C1
         c == 0x061C || c == 0x200E || c == 0x200F || (c >= 0x2028 && c <= 0x202E) ||
         (c >= 0x2066 && c <= 0x2069) || c == 0xFEFF;  // directions, separators, joiners
}

// Items with `gap` between them, in lines that begin with `indent` spaces and fit the width.
std::string lay_out(const std::vector<Span>& items, std::string_view gap, std::size_t indent,
                    const Style& style) {
  // A terminal too narrow for the indentation gets one column of text, not none.
  const std::size_t room =
      style.columns == 0 ? 0 : std::max<std::size_t>(style.columns, indent + 1) - indent;
  std::string text;
  Span run;  // neighbours of one tone, painted once
  std::size_t used = 0;
  const auto paint_run = [&] {
    text += paint(run, style);
    run.text.clear();
  };
  for (const Span& item : items) {
    if (item.text.empty()) continue;
    const std::string shown = room ? fit(item.text, room, style) : item.text;
    const std::size_t columns = column_count(shown);
    const bool wraps = used != 0 && room != 0 && used + gap.size() + columns > room;
    if (wraps || run.tone != item.tone) paint_run();
    run.tone = item.tone;
    if (wraps) text += "\n";
    if (wraps || used == 0) {
      text += std::string(indent, ' ');
      used = 0;
    } else {
      (run.text.empty() ? text : run.text) += gap;
      used += gap.size();
    }
    run.text += shown;
    used += columns;
  }
  paint_run();
  return text.empty() ? text : text + "\n";
}

}  // namespace

Terminal Terminal::of_stdout() {
  Terminal terminal;
  terminal.is_terminal = isatty(STDOUT_FILENO) == 1;
  std::string_view locale = variable("LC_ALL");
  if (locale.empty()) locale = variable("LC_CTYPE");
  if (locale.empty()) locale = variable("LANG");
  terminal.style.utf8 = locale.find("UTF-8") != locale.npos || locale.find("utf8") != locale.npos;
  if (!terminal.is_terminal) return terminal;
  const std::string_view kind = variable("TERM");
  terminal.style.colour = variable("NO_COLOR").empty() && !kind.empty() && kind != "dumb";
  winsize size{};
  terminal.style.columns = kUsualColumns;
  if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0) {
    terminal.style.columns = size.ws_col;
    terminal.rows = size.ws_row;
  }
  return terminal;
}

std::size_t column_count(std::string_view text) {
  return text.size() - static_cast<std::size_t>(std::ranges::count_if(text, is_continuation));
}

std::string fit(std::string_view text, std::size_t columns, const Style& style) {
  if (column_count(text) <= columns) return std::string(text);
  if (columns == 0) return {};
  std::size_t end = 0;
  for (std::size_t column = 0; end < text.size(); ++end) {
    if (!is_continuation(text[end]) && column++ == columns - 1) break;
  }
  return std::string(text.substr(0, end)) + (style.utf8 ? "\u2026" : "~");
}

std::string paint(const Span& span, const Style& style) {
  if (!style.colour || span.tone == Tone::plain || span.text.empty()) return span.text;
  return std::string(escape_of(span.tone)) + span.text + "\x1b[0m";
}

std::string flow(const std::vector<Span>& items, std::size_t indent, const Style& style) {
  return lay_out(items, kGap, indent, style);
}

std::string paragraph(const Span& text, std::size_t indent, const Style& style) {
  std::vector<Span> words;
  for (std::size_t begin = 0; begin < text.text.size();) {
    const std::size_t end = std::min(text.text.find(' ', begin), text.text.size());
    words.push_back({text.text.substr(begin, end - begin), text.tone});
    begin = end + 1;
  }
  return lay_out(words, " ", indent, style);
}

std::string table(const std::vector<Row>& rows, std::size_t indent, const Style& style) {
  std::vector<std::size_t> widths;
  for (const Row& row : rows) {
    widths.resize(std::max(widths.size(), row.cells.size()), 0);
    for (std::size_t i = 0; i < row.cells.size(); ++i) {
      widths[i] = std::max(widths[i], column_count(row.cells[i].text));
    }
  }
  if (widths.empty()) return {};
  if (style.columns != 0) {
    const std::size_t fixed = indent + kGap.size() * (widths.size() - 1);
    std::size_t total = fixed;
    for (const std::size_t width : widths) total += width;
    while (total > style.columns) {
      std::size_t& widest = *std::ranges::max_element(widths);
      if (widest <= kNarrowestCell) break;
      --widest;
      --total;
    }
  }
  const std::string margin(indent, ' ');
  std::string text;
  for (const Row& row : rows) {
    std::string line = margin;
    std::size_t pending = 0;  // spaces that are only written if something follows
    std::size_t used = indent;
    for (std::size_t i = 0; i < row.cells.size(); ++i) {
      if (i > 0) pending += kGap.size();
      std::size_t width = widths[i];
      // Narrower than the narrowest table: what does not fit is left out.
      if (style.columns != 0) {
        const std::size_t room =
            style.columns > used + pending ? style.columns - used - pending : 0;
        width = std::min(width, room);
      }
      const Span cell{fit(row.cells[i].text, width, style), row.cells[i].tone};
      const std::size_t columns = column_count(cell.text);
      if (columns > 0) {
        line += std::string(pending, ' ') + paint(cell, style);
        used += pending + columns;
        pending = 0;
      }
      pending += width - columns;
    }
    text += line + "\n";
    for (const Span& note : row.notes) text += paragraph(note, indent + kGap.size(), style);
  }
  return text;
}

std::string bar(double part, std::size_t columns, const Style& style) {
  if (columns < 3) return {};
  const std::size_t cells = columns - 2;
  const double whole = std::isfinite(part) ? std::clamp(part, 0.0, 1.0) : 0.0;
  const auto full = static_cast<std::size_t>(std::floor(whole * static_cast<double>(cells)));
  std::string text = "[";
  for (std::size_t i = 0; i < cells; ++i) {
    if (style.utf8) {
      text += i < full ? "\u2588" : "\u2591";
    } else {
      text += i < full ? '#' : '-';
    }
  }
  return text + "]";
}

std::string show_bytes(double bytes) {
  constexpr const char* kUnits[] = {"KiB", "MiB", "GiB", "TiB", "PiB"};
  char text[32];
  if (!(bytes >= 0)) bytes = 0;
  if (bytes < 1024) {
    std::snprintf(text, sizeof text, "%.0f B", bytes);
    return text;
  }
  std::size_t unit = 0;
  bytes /= 1024;
  // 1023.95 would be shown as 1024.0 of its unit.
  while (bytes >= 1023.95 && unit + 1 < std::size(kUnits)) {
    bytes /= 1024;
    ++unit;
  }
  std::snprintf(text, sizeof text, "%.1f %s", std::min(bytes, 1e9), kUnits[unit]);
  return text;
}

std::string show_seconds(double seconds) {
  if (!(seconds >= 0)) seconds = 0;
  const auto whole = static_cast<std::uint64_t>(std::min(seconds, 1e12));
  const auto pair = [](std::uint64_t big, const char* big_unit, std::uint64_t small,
                       const char* small_unit) {
    std::string text = std::to_string(big) + big_unit;
    if (small != 0) text += " " + std::to_string(small) + small_unit;
    return text;
  };
  if (whole < 60) return std::to_string(whole) + "s";
  if (whole < 3600) return pair(whole / 60, "m", whole % 60, "s");
  if (whole < 86400) return pair(whole / 3600, "h", whole % 3600 / 60, "m");
  return pair(whole / 86400, "d", whole % 86400 / 3600, "h");
}

std::string without_controls(std::string_view text) {
  std::string result;
  result.reserve(text.size());
  while (!text.empty()) {
    const auto [value, bytes] = front_code_point(text);
    if (bytes == 0) {
      result += '?';
      text.remove_prefix(1);
      continue;
    }
    if (is_control(value) && value != '\n') {
      char escape[16];
      std::snprintf(escape, sizeof escape, "\\u%04x", value);
      result += escape;
    } else {
      result += text.substr(0, bytes);
    }
    text.remove_prefix(bytes);
  }
  return result;
}

}  // namespace staithe::daemon
