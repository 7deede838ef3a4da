#include "proxy/range.h"

#include <gtest/gtest.h>

namespace staithe::proxy {
namespace {

TEST(Range, IsTheRangeThatRfc9110Means) {
  const auto range = [](const char* header) { return parse_range(header, 1000).value(); };
  EXPECT_EQ(range("bytes=0-99"), (ByteRange{0, 100}));
  EXPECT_EQ(range("bytes=500-"), (ByteRange{500, 1000}));
  EXPECT_EQ(range("bytes=-100"), (ByteRange{900, 1000}));
  EXPECT_EQ(range("bytes=-5000"), (ByteRange{0, 1000}));
  EXPECT_EQ(range("bytes=900-5000"), (ByteRange{900, 1000}));
  EXPECT_EQ(range("bytes=999-999"), (ByteRange{999, 1000}));
}

TEST(Range, IsIgnoredWhereTheWholeBodyMayBeSent) {
  for (const char* header : {"", "bytes", "bytes=", "bytes=-", "bytes=a-b", "items=0-1",
                             "bytes=0-1,3-4", "bytes=1-x", "bytes=99999999999999999999-"})
    EXPECT_EQ(parse_range(header, 1000).value(), std::nullopt) << header;
}

TEST(Range, IsUnsatisfiableBehindTheEnd) {
  for (const char* header : {"bytes=1000-", "bytes=5000-6000", "bytes=-0", "bytes=500-0"})
    EXPECT_EQ(parse_range(header, 1000).error().code, Errc::range_not_satisfiable) << header;
  EXPECT_EQ(parse_range("bytes=0-", 0).error().code, Errc::range_not_satisfiable);
}

TEST(Range, NeverLeavesTheBody) {
  for (std::uint64_t size = 0; size < 20; ++size) {
    for (int first = -1; first < 25; ++first) {
      for (int last = -1; last < 25; ++last) {
        const std::string header = "bytes=" + (first < 0 ? "" : std::to_string(first)) + "-" +
                                   (last < 0 ? "" : std::to_string(last));
        const auto range = parse_range(header, size);
        if (!range || !*range) continue;
        EXPECT_LT((*range)->begin, (*range)->end) << header << " of " << size;
        EXPECT_LE((*range)->end, size) << header << " of " << size;
      }
    }
  }
}

TEST(ContentRange, IsReadStrictly) {
  const auto range = parse_content_range("bytes 10-19/100");
  ASSERT_TRUE(range);
  EXPECT_EQ(range->range, (ByteRange{10, 20}));
  EXPECT_EQ(range->total_bytes, 100U);
  EXPECT_EQ(parse_content_range("bytes 0-9/*")->total_bytes, std::nullopt);
  for (const char* bad : {"", "bytes", "bytes 9-1/10", "bytes 0-9", "bytes 0-9/5", "bytes */10",
                          "items 0-9/10", "bytes 0-18446744073709551615/*", "bytes a-9/10"})
    EXPECT_FALSE(parse_content_range(bad)) << bad;
}

}  // namespace
}  // namespace staithe::proxy
