// What a terminal can show, and text that fits it. Pure but for Terminal::of_stdout().
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace staithe::daemon {

// How to draw. A pipe has no colour, and no width to keep to.
struct Style {
  std::size_t columns = 0;  // 0: as wide as it needs
  bool colour = false;
  bool utf8 = false;  // else ASCII only
};

struct Terminal {
  bool is_terminal = false;
  std::size_t rows = 0;
  Style style;

  // Asks the system and the environment: TERM, NO_COLOR (no-color.org), LC_ALL, LC_CTYPE, LANG.
  static Terminal of_stdout();
};

enum class Tone { plain, heading, good, caution, bad, faint };

// A piece of a line: printable text with its tone. `columns` is what it takes on the screen.
struct Span {
  std::string text;
  Tone tone = Tone::plain;
};
// How many columns UTF-8 text of single-width characters takes.
std::size_t column_count(std::string_view text);
// Cut to `columns`, with a mark where something is missing.
std::string fit(std::string_view text, std::size_t columns, const Style& style);
std::string paint(const Span& span, const Style& style);

// Items beside each other, `gap` apart, in as many lines as the width asks for.
std::string flow(const std::vector<Span>& items, std::size_t indent, const Style& style);

// Words in as many lines as the width asks for; a word that is wider than a line is cut.
std::string paragraph(const Span& text, std::size_t indent, const Style& style);

struct Row {
  std::vector<Span> cells;
  std::vector<Span> notes;  // paragraphs below the row
};
// An aligned table without rules. What is too wide is cut, in the widest columns first.
std::string table(const std::vector<Row>& rows, std::size_t indent, const Style& style);

// "[######----]", `columns` wide with its brackets; `part` is 0 to 1.
std::string bar(double part, std::size_t columns, const Style& style);

// "512 B", "1.5 KiB", "80.0 GiB".
std::string show_bytes(double bytes);
// "45s", "12m 30s", "3h 4m", "3d 4h".
std::string show_seconds(double seconds);

// UTF-8 text for a terminal or a pipe, line feeds kept: every other control character, and every
// character that changes the direction of text, becomes \uXXXX, as JSON and TOML write it; bytes
// that are not UTF-8 become "?".
std::string without_controls(std::string_view text);

}  // namespace staithe::daemon
