// What setup shows and takes back: a diff applied to the old text gives the new one, and taking our
// change back gives what was before, also after somebody else's change elsewhere.
//
// The input is two texts, with a byte 0 between them.
#include "daemon/unified_diff.h"

#include <charconv>
#include <string>
#include <vector>

#include "tests/fuzz/fuzz.h"

namespace staithe::fuzz {

namespace {

std::vector<std::string_view> lines_of(std::string_view text) {
  std::vector<std::string_view> lines;
  for (Input rest(text); !rest.empty();) lines.push_back(rest.line());
  return lines;
}

// As patch(1) does it.
std::string patched(std::string_view before, std::string_view diff) {
  const auto old_lines = lines_of(before);
  const bool old_ends_bare = !before.empty() && !before.ends_with('\n');
  std::string result;
  std::size_t at = 0;  // in old_lines
  const auto copy = [&](std::size_t line) {
    result += old_lines.at(line);
    if (line + 1 < old_lines.size() || !old_ends_bare) result += '\n';
  };
  const auto parts = lines_of(diff);
  check(parts.size() > 2 && parts[0].starts_with("--- ") && parts[1].starts_with("+++ "));
  for (std::size_t i = 2; i < parts.size(); ++i) {
    const std::string_view part = parts[i];
    check(!part.empty());
    if (part.starts_with("@@ -")) {
      std::size_t begin = 0;
      const auto end = std::from_chars(part.data() + 4, part.data() + part.size(), begin).ptr;
      std::size_t count = 1;
      if (*end == ',') std::from_chars(end + 1, part.data() + part.size(), count);
      const std::size_t first = count == 0 ? begin : begin - 1;
      check(first >= at && first + count <= old_lines.size());
      while (at < first) copy(at++);
      continue;
    }
    if (part.front() == '\\') continue;
    const bool bare = i + 1 < parts.size() && parts[i + 1].starts_with('\\');
    if (part.front() == ' ' || part.front() == '-') {
      check(at < old_lines.size() && old_lines[at] == part.substr(1));
      if (part.front() == ' ') copy(at);
      ++at;
    } else {
      check(part.front() == '+');
      result += part.substr(1);
      if (!bare) result += '\n';
    }
  }
  while (at < old_lines.size()) copy(at++);
  return result;
}

}  // namespace

void one(std::string_view input) {
  const std::size_t half = input.find('\0');
  if (half == std::string_view::npos || input.size() > 4096) return;
  const std::string before(input.substr(0, half));
  const std::string after(input.substr(half + 1));
  const std::string diff = daemon::unified_diff("file", before, after);
  check(diff.empty() == (before == after));
  if (!diff.empty()) check(patched(before, diff) == after);

  // Nobody else: what was before, byte by byte.
  check(daemon::without_change(before, after, after).value_or("\1") == before);
  check(daemon::without_change(before, before, after).value_or("\1") == after);
  // Somebody else's lines, far enough from ours, stay.
  const std::string far = "1\n2\n3\n4\n";
  const auto undone = daemon::without_change(far + before, far + after, "theirs\n" + far + after);
  check(undone.value_or("\1") == "theirs\n" + far + before);

  const std::string shown = daemon::without_secrets(diff);
  check(std::ranges::count(shown, '\n') == std::ranges::count(diff, '\n'));
}

}  // namespace staithe::fuzz
