#include "cache/escape.h"

#include <gtest/gtest.h>

#include <string>

#include "cache/random.h"

namespace staithe {
namespace {

TEST(Printable, EscapesWhatATerminalOrALogReaderCouldActOn) {
  EXPECT_EQ(printable("plain text, with \"quotes\" and 100%"),
            "plain text, with \"quotes\" and 100%");
  EXPECT_EQ(printable("a\nb\rc\td\\e"), "a\\nb\\rc\\td\\\\e");
  EXPECT_EQ(printable(std::string_view("\x1b[2J\0\x7f", 6)), "\\x1b[2J\\x00\\x7f");
  EXPECT_EQ(printable("\xc3\xa9\xff"), "\\xc3\\xa9\\xff");
  EXPECT_EQ(printable(""), "");
}

TEST(Printable, CutsBetweenTwoCharactersAndSaysSo) {
  EXPECT_EQ(printable("abcdef", 6), "abcdef");
  EXPECT_EQ(printable("abcdefg", 6), "abc...");
  EXPECT_EQ(printable("ab\x01\x02", 8), "ab...");
  EXPECT_EQ(printable("abcdefg", 2), "..");
  EXPECT_EQ(printable("abcdefg", 0), "");
}

TEST(Printable, StaysPrintableAndWithinItsLimitForAnyInput) {
  SeededRandom random(1);
  for (int i = 0; i < 5000; ++i) {
    std::string text;
    for (auto n = random.next() % 64; n > 0; --n) text += static_cast<char>(random.next());
    const std::size_t limit = random.next() % 80;
    const std::string shown = printable(text, limit);
    ASSERT_LE(shown.size(), limit);
    for (const char c : shown) ASSERT_TRUE(c >= ' ' && c <= '~') << i;
  }
}

}  // namespace
}  // namespace staithe
