#include "daemon/terminal.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>
#include <string>

namespace staithe::daemon {
namespace {

const Style kPlain{};
const Style kUtf8{.columns = 0, .colour = false, .utf8 = true};

Style wide(std::size_t columns) { return {.columns = columns, .colour = false, .utf8 = true}; }

TEST(Fit, CutsAtCharactersAndMarksTheCut) {
  EXPECT_EQ(fit("abc", 3, kPlain), "abc");
  EXPECT_EQ(fit("abcd", 3, kPlain), "ab~");
  EXPECT_EQ(fit("abcd", 3, kUtf8), "ab\u2026");
  EXPECT_EQ(fit("\u2588\u2588\u2588\u2588", 3, kUtf8), "\u2588\u2588\u2026");
  EXPECT_EQ(fit("abcd", 1, kPlain), "~");
  EXPECT_EQ(fit("abcd", 0, kPlain), "");
}

TEST(Paint, ColoursOnlyWhereColourIsWanted) {
  EXPECT_EQ(paint({"x", Tone::bad}, kPlain), "x");
  const Style colour{.columns = 0, .colour = true, .utf8 = false};
  EXPECT_EQ(paint({"x", Tone::bad}, colour), "\x1b[31mx\x1b[0m");
  EXPECT_EQ(paint({"x", Tone::plain}, colour), "x");
  EXPECT_EQ(paint({"", Tone::bad}, colour), "");
}

TEST(Flow, WrapsBetweenItems) {
  EXPECT_EQ(flow({{"one"}, {"two"}, {"three"}}, 2, kPlain), "  one  two  three\n");
  EXPECT_EQ(flow({{"one"}, {"two"}, {"three"}}, 2, wide(12)), "  one  two\n  three\n");
  EXPECT_EQ(flow({{"one"}, {""}, {"two"}}, 0, kPlain), "one  two\n");
  EXPECT_EQ(flow({}, 2, kPlain), "");
}

TEST(Paragraph, WrapsBetweenWordsAndPaintsEachLineOnce) {
  const Style style{.columns = 10, .colour = true, .utf8 = false};
  EXPECT_EQ(paragraph({"red words wrap", Tone::bad}, 1, style),
            " \x1b[31mred words\x1b[0m\n \x1b[31mwrap\x1b[0m\n");
}

TEST(Table, AlignsAndCutsTheWidestColumn) {
  const std::vector<Row> rows{{{{"NAME"}, {"STATE"}}, {}},
                              {{{"a-very-long-registry-name"}, {"ok"}}, {{"note", Tone::faint}}},
                              {{{"b"}, {""}}, {}}};
  EXPECT_EQ(table(rows, 0, kPlain),
            "NAME                       STATE\n"
            "a-very-long-registry-name  ok\n"
            "  note\n"
            "b\n");
  EXPECT_EQ(table(rows, 0, wide(17)),
            "NAME        STATE\n"
            "a-very-lo\u2026  ok\n"
            "  note\n"
            "b\n");
}

TEST(Bar, IsFullAtOneAndEmptyAtZeroWhateverItIsGiven) {
  EXPECT_EQ(bar(0, 6, kPlain), "[----]");
  EXPECT_EQ(bar(0.5, 6, kPlain), "[##--]");
  EXPECT_EQ(bar(1, 6, kPlain), "[####]");
  EXPECT_EQ(bar(7, 6, kPlain), "[####]");
  EXPECT_EQ(bar(-7, 6, kPlain), "[----]");
  EXPECT_EQ(bar(std::nan(""), 6, kPlain), "[----]");
  EXPECT_EQ(bar(0.99, 6, kPlain), "[###-]") << "full only when it is";
  EXPECT_EQ(bar(0.5, 2, kPlain), "");
  EXPECT_EQ(column_count(bar(0.5, 20, kUtf8)), 20u);
}

TEST(ShowBytes, HasOneDecimalAndABinaryUnit) {
  EXPECT_EQ(show_bytes(0), "0 B");
  EXPECT_EQ(show_bytes(1023), "1023 B");
  EXPECT_EQ(show_bytes(1024), "1.0 KiB");
  EXPECT_EQ(show_bytes(1024.0 * 1024 - 1), "1.0 MiB");
  EXPECT_EQ(show_bytes(80.0 * 1024 * 1024 * 1024), "80.0 GiB");
  EXPECT_EQ(show_bytes(-5), "0 B");
  EXPECT_EQ(show_bytes(std::nan("")), "0 B");
  EXPECT_LT(show_bytes(std::numeric_limits<double>::max()).size(), 30u);
}

TEST(ShowSeconds, HasTheTwoLargestUnits) {
  EXPECT_EQ(show_seconds(0), "0s");
  EXPECT_EQ(show_seconds(59.9), "59s");
  EXPECT_EQ(show_seconds(60), "1m");
  EXPECT_EQ(show_seconds(61), "1m 1s");
  EXPECT_EQ(show_seconds(3 * 3600 + 4 * 60 + 5), "3h 4m");
  EXPECT_EQ(show_seconds(3 * 86400 + 4 * 3600), "3d 4h");
  EXPECT_EQ(show_seconds(-1), "0s");
  EXPECT_LT(show_seconds(1e300).size(), 30u);
}

TEST(WithoutControls, KeepsTextAndLineFeedsAndNothingThatActsOnATerminal) {
  EXPECT_EQ(without_controls("caf\u00e9\nok\t"), "caf\u00e9\nok\\u0009");
  EXPECT_EQ(without_controls("\x1b[31m"), "\\u001b[31m");
  EXPECT_EQ(without_controls("\x7f\r"), "\\u007f\\u000d");
  EXPECT_EQ(without_controls("\u009b31m"), "\\u009b31m") << "C1 control sequence introducer";
  EXPECT_EQ(without_controls("\u202etxt"), "\\u202etxt") << "right-to-left override";
  EXPECT_EQ(without_controls("\u2588\U0001F600"), "\u2588\U0001F600");
  EXPECT_EQ(without_controls("a\xff\xc0\xafz"), "a???z");
  EXPECT_EQ(without_controls("\xed\xa0\x80"), "???") << "a surrogate";
  EXPECT_EQ(without_controls("\xf4\x90\x80\x80"), "????") << "beyond Unicode";
  EXPECT_EQ(without_controls("\xe2\x96"), "??");
}

TEST(WithoutControls, OfRandomBytesHasNoControlsLeft) {
  std::mt19937 random(3);
  for (int round = 0; round < 2000; ++round) {
    std::string text(random() % 100, '\0');
    for (char& c : text) c = static_cast<char>(random());
    const std::string shown = without_controls(text);
    for (const char c : shown) {
      EXPECT_FALSE((static_cast<unsigned char>(c) < ' ' && c != '\n') || c == 0x7f);
    }
    EXPECT_EQ(without_controls(shown), shown);
  }
}

}  // namespace
}  // namespace staithe::daemon
