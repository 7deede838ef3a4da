#include "proxy/trace.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "cache/random.h"
#include "proxy/plain_request.h"

namespace staithe::proxy {
namespace {

const std::string good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

TEST(TraceParent, IsReadAsTheSpecificationWritesIt) {
  const auto found = parse_traceparent(good);
  ASSERT_TRUE(found);
  EXPECT_EQ(found->trace_id, "4bf92f3577b34da6a3ce929d0e0e4736");
  EXPECT_EQ(found->parent_id, "00f067aa0ba902b7");
  EXPECT_TRUE(found->sampled);
  EXPECT_FALSE(parse_traceparent(good.substr(0, 53) + "00")->sampled);
  EXPECT_TRUE(parse_traceparent(good.substr(0, 53) + "ff")->sampled) << "unknown flags";
}

TEST(TraceParent, OfALaterVersionIsReadAsFarAsItIsKnown) {
  const std::string later = "01" + good.substr(2);
  EXPECT_TRUE(parse_traceparent(later));
  EXPECT_TRUE(parse_traceparent(later + "-what-comes-then"));
  EXPECT_FALSE(parse_traceparent(later + "more"));
  EXPECT_FALSE(parse_traceparent("ff" + good.substr(2))) << "no version is called so";
}

TEST(TraceParent, IsIgnoredWhereAnythingIsWrong) {
  const std::vector<std::string> bads{
      "",
      "00",
      good + "-01",
      good + " ",
      " " + good,
      "0x" + good.substr(2),
      "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
      "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
      "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
      "00-4bf92f3577b34da6a3ce929d0e0e473-600f067aa0ba902b7-01",
      "00_4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
  };
  for (const std::string& bad : bads) EXPECT_FALSE(parse_traceparent(bad)) << bad;
}

// One character that is another than it was: an id that is still one, or nothing at all.
TEST(TraceParent, NeverYieldsAnythingButHexadecimalDigits) {
  SeededRandom random(3);
  for (int i = 0; i < 20'000; ++i) {
    std::string text = good;
    for (std::uint64_t n = random.next() % 3 + 1; n > 0; --n)
      text[random.next() % text.size()] = static_cast<char>(random.next() % 256);
    const auto found = parse_traceparent(text);
    if (!found) continue;
    EXPECT_EQ(found->trace_id.size(), 32U);
    EXPECT_EQ(found->parent_id.size(), 16U);
    for (const std::string_view id : {found->trace_id, found->parent_id})
      EXPECT_EQ(id.find_first_not_of("0123456789abcdef"), id.npos) << text;
  }
}

TEST(PlainRequest, IsNotOneWhoseWayIsToBeTold) {
  const auto verdict = [](const std::string& value) {
    PlainRequest request;
    return parse_plain("GET /v2/ HTTP/1.1\r\nHost: localhost\r\nTraceparent: " + value + "\r\n\r\n",
                       request);
  };
  EXPECT_EQ(verdict(good), Plain::no);
  EXPECT_EQ(verdict(good.substr(0, 53) + "00"), Plain::yes) << "nobody records it";
  EXPECT_EQ(verdict("nonsense"), Plain::yes);
}

}  // namespace
}  // namespace staithe::proxy
