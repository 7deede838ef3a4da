#include "daemon/unified_diff.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

namespace staithe::daemon {
namespace {

constexpr std::size_t context_lines = 3;
// Longer middles than that are shown as replaced: the table below has a number for each pair.
constexpr std::size_t most_pairs = 16 << 20;

using Lines = std::vector<std::string_view>;

// Each with its line feed, so that a missing last one is a difference.
Lines split(std::string_view text) {
  Lines lines;
  while (!text.empty()) {
    const std::size_t size = std::min(text.find('\n'), text.size() - 1) + 1;
    lines.push_back(text.substr(0, size));
    text.remove_prefix(size);
  }
  return lines;
}

// Lines [old_begin, old_end) became [new_begin, new_end).
struct Hunk {
  std::size_t old_begin;
  std::size_t old_end;
  std::size_t new_begin;
  std::size_t new_end;
};

// The longest common subsequence of the parts between the common beginning and end.
std::vector<Hunk> compare(const Lines& before, const Lines& after) {
  std::size_t head = 0;
  while (head < before.size() && head < after.size() && before[head] == after[head]) ++head;
  std::size_t tail = 0;
  while (tail < before.size() - head && tail < after.size() - head &&
         before[before.size() - 1 - tail] == after[after.size() - 1 - tail]) {
    ++tail;
  }
  const std::size_t rows = before.size() - head - tail;
  const std::size_t columns = after.size() - head - tail;
  if (rows == 0 && columns == 0) return {};
  if (rows == 0 || columns == 0 || rows > most_pairs / columns)
    return {{head, head + rows, head, head + columns}};

  // best[r][c]: the longest of before[r..] and after[c..].
  std::vector<std::uint32_t> best((rows + 1) * (columns + 1), 0);
  const auto at = [&](std::size_t row, std::size_t column) -> std::uint32_t& {
    return best[row * (columns + 1) + column];
  };
  for (std::size_t row = rows; row-- > 0;) {
    for (std::size_t column = columns; column-- > 0;) {
      at(row, column) = before[head + row] == after[head + column]
                            ? at(row + 1, column + 1) + 1
                            : std::max(at(row + 1, column), at(row, column + 1));
    }
  }
  std::vector<Hunk> hunks;
  std::size_t row = 0;
  std::size_t column = 0;
  while (row < rows || column < columns) {
    if (row < rows && column < columns && before[head + row] == after[head + column]) {
      ++row;
      ++column;
      continue;
    }
    Hunk hunk{head + row, head + row, head + column, head + column};
    while (row < rows || column < columns) {
      if (row < rows && column < columns && before[head + row] == after[head + column]) break;
      if (column == columns || (row < rows && at(row + 1, column) >= at(row, column + 1))) {
        ++row;
      } else {
        ++column;
      }
    }
    hunk.old_end = head + row;
    hunk.new_end = head + column;
    hunks.push_back(hunk);
  }
  return hunks;
}

std::string range(std::size_t begin, std::size_t count) {
  // A range of nothing names the line before it.
  return std::to_string(count == 0 ? begin : begin + 1) +
         (count == 1 ? "" : "," + std::to_string(count));
}

void add(std::string& text, char sign, std::string_view line) {
  text += sign;
  text += line;
  if (!line.ends_with('\n')) text += "\n\\ No newline at end of file\n";
}

}  // namespace

std::string unified_diff(std::string_view name, const std::optional<std::string>& before,
                         const std::optional<std::string>& after) {
  const Lines old_lines = split(before ? std::string_view(*before) : std::string_view());
  const Lines new_lines = split(after ? std::string_view(*after) : std::string_view());
  const std::vector<Hunk> hunks = compare(old_lines, new_lines);
  if (hunks.empty() && before.has_value() == after.has_value()) return {};
  const std::string shown(name);
  std::string text =
      "--- " + (before ? shown : "/dev/null") + "\n+++ " + (after ? shown : "/dev/null") + "\n";
  for (std::size_t first = 0; first < hunks.size();) {
    // Hunks whose contexts touch are shown as one.
    std::size_t last = first;
    while (last + 1 < hunks.size() &&
           hunks[last + 1].old_begin - hunks[last].old_end <= 2 * context_lines) {
      ++last;
    }
    const std::size_t lead = std::min(hunks[first].old_begin, context_lines);
    const std::size_t trail = std::min(old_lines.size() - hunks[last].old_end, context_lines);
    const std::size_t old_begin = hunks[first].old_begin - lead;
    const std::size_t new_begin = hunks[first].new_begin - lead;
    text += "@@ -" + range(old_begin, hunks[last].old_end + trail - old_begin) + " +" +
            range(new_begin, hunks[last].new_end + trail - new_begin) + " @@\n";
    std::size_t at = old_begin;
    for (std::size_t i = first; i <= last; ++i) {
      for (; at < hunks[i].old_begin; ++at) add(text, ' ', old_lines[at]);
      for (; at < hunks[i].old_end; ++at) add(text, '-', old_lines[at]);
      for (std::size_t n = hunks[i].new_begin; n < hunks[i].new_end; ++n)
        add(text, '+', new_lines[n]);
    }
    for (; at < hunks[last].old_end + trail; ++at) add(text, ' ', old_lines[at]);
    first = last + 1;
  }
  return text;
}

namespace {

// A line of a diff that is a piece of a PEM file's body: of a private key, for all that one sees of
// it.
bool is_base64(std::string_view line) {
  constexpr std::size_t least = 32;
  while (line.ends_with('\n') || line.ends_with('\r')) line.remove_suffix(1);
  return line.size() > least && std::ranges::all_of(line.substr(1), [](unsigned char c) {
           return std::isalnum(c) || c == '+' || c == '/' || c == '=';
         });
}

}  // namespace

std::string without_secrets(std::string_view diff) {
  static constexpr std::array<std::string_view, 5> names{"password", "passwd", "token", "secret",
                                                         "auth"};
  std::string result;
  for (const std::string_view line : split(diff)) {
    std::string lower(line);
    std::ranges::transform(lower, lower.begin(),
                           [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
    std::size_t shown = is_base64(line) ? 1 : line.size();
    for (const std::string_view name : names) {
      for (std::size_t at = lower.find(name); at != lower.npos; at = lower.find(name, at + 1)) {
        const std::size_t sign = lower.find_first_not_of("\"' \t", at + name.size());
        if (sign != lower.npos && (lower[sign] == '=' || lower[sign] == ':'))
          shown = std::min(shown, sign + 1);
      }
    }
    result += line.substr(0, shown);
    if (shown < line.size()) result += line.ends_with('\n') ? " (not shown)\n" : " (not shown)";
  }
  return result;
}

std::optional<std::string> without_change(std::string_view before, std::string_view after,
                                          std::string_view current) {
  const Lines before_lines = split(before);
  const Lines after_lines = split(after);
  const Lines current_lines = split(current);
  const std::vector<Hunk> ours = compare(after_lines, before_lines);  // back
  const std::vector<Hunk> theirs = compare(after_lines, current_lines);
  std::string result;
  std::size_t at = 0;  // in current_lines
  std::ptrdiff_t shift = 0;
  std::size_t next = 0;  // of theirs
  for (const Hunk& hunk : ours) {
    for (; next < theirs.size() && theirs[next].old_end < hunk.old_begin; ++next) {
      shift = static_cast<std::ptrdiff_t>(theirs[next].new_end) -
              static_cast<std::ptrdiff_t>(theirs[next].old_end);
    }
    // Even a neighbour may belong to it: a comment, a comma.
    if (next < theirs.size() && theirs[next].old_begin <= hunk.old_end) return std::nullopt;
    const auto place = [&](std::size_t line) {
      return static_cast<std::size_t>(static_cast<std::ptrdiff_t>(line) + shift);
    };
    for (; at < place(hunk.old_begin); ++at) result += current_lines[at];
    for (std::size_t n = hunk.new_begin; n < hunk.new_end; ++n) result += before_lines[n];
    at = place(hunk.old_end);
  }
  for (; at < current_lines.size(); ++at) result += current_lines[at];
  return result;
}

}  // namespace staithe::daemon
