#include "proxy/auth/base64.h"

#include <gtest/gtest.h>

#include <string>
#include <utility>

#include "cache/random.h"

namespace staithe::proxy::auth {
namespace {

std::string some_bytes(Random& random, std::size_t size) {
  std::string bytes;
  while (bytes.size() < size) bytes += static_cast<char>(random.next() & 0xff);
  return bytes;
}

TEST(Base64, WritesTheVectorsOfItsRfc) {
  const std::pair<std::string_view, std::string_view> table[] = {{"", ""},
                                                                 {"f", "Zg=="},
                                                                 {"fo", "Zm8="},
                                                                 {"foo", "Zm9v"},
                                                                 {"foob", "Zm9vYg=="},
                                                                 {"fooba", "Zm9vYmE="},
                                                                 {"foobar", "Zm9vYmFy"}};
  for (const auto& [bytes, text] : table) {
    EXPECT_EQ(encode_base64(bytes), text);
    EXPECT_EQ(decode_base64(text), bytes);
    const std::string_view bare = text.substr(0, text.find('='));
    EXPECT_EQ(encode_base64url(bytes), bare);
    EXPECT_EQ(decode_base64url(bare), bytes);
  }
}

TEST(Base64, TheTwoAlphabetsDifferInTwoCharacters) {
  EXPECT_EQ(encode_base64("\xfb\xef\xff"), "++//");
  EXPECT_EQ(encode_base64url("\xfb\xef\xff"), "--__");
  EXPECT_FALSE(decode_base64("--__"));
  EXPECT_FALSE(decode_base64url("++//"));
}

TEST(Base64, WhateverIsWrittenIsReadBack) {
  SeededRandom random(7);
  for (std::size_t size = 0; size < 200; ++size) {
    const std::string bytes = some_bytes(random, size);
    EXPECT_EQ(decode_base64(encode_base64(bytes)), bytes);
    EXPECT_EQ(decode_base64url(encode_base64url(bytes)), bytes);
    EXPECT_EQ(encode_base64(bytes).size() % 4, 0U);
  }
}

// One text for one value: what is read at all is what would be written.
TEST(Base64, WhateverIsReadIsWrittenTheSame) {
  SeededRandom random(8);
  constexpr std::string_view characters = "ABCQgwaz019+/-_=\n ";
  int read = 0;
  for (int i = 0; i < 20'000; ++i) {
    std::string text;
    for (std::uint64_t size = random.next() % 9; text.size() < size;)
      text += characters[random.next() % characters.size()];
    if (const auto bytes = decode_base64(text)) {
      ++read;
      ASSERT_EQ(encode_base64(*bytes), text);
    }
    if (const auto bytes = decode_base64url(text)) {
      ++read;
      ASSERT_EQ(encode_base64url(*bytes), text);
    }
  }
  EXPECT_GT(read, 1'000);
}

TEST(Base64, RefusesWhatIsNotExactlyThat) {
  for (const std::string_view text :
       {"Zg", "Zg=", "Zg===", "Z", "=", "==", "====", "Zg==Zg==", "Z=g=", "Zm9v\n", " Zm9v",
        "Zm9\xc3", "Zh==", "Zm9=", "Zm8\0", "Zm-_"}) {
    const auto bytes = decode_base64(text);
    ASSERT_FALSE(bytes) << text;
    EXPECT_EQ(bytes.error().code, Errc::upstream_nonsense);
  }
  EXPECT_FALSE(decode_base64(std::string_view("Zm8\0", 4)));
  for (const std::string_view text : {"Z", "Zh", "Zm9", "Zg==", "Zm8=", "Zm9v\n", "Zm9vA", "Zm9v+"})
    EXPECT_FALSE(decode_base64url(text)) << text;
}

TEST(Base64, TheErrorDoesNotQuoteTheText) {
  for (const std::string& text : {std::string("czNjcjN0!x=="), std::string("czNjcjN0x")}) {
    EXPECT_FALSE(decode_base64(text).error().detail.contains("czNj"));
    EXPECT_FALSE(decode_base64url(text).error().detail.contains("czNj"));
  }
}

}  // namespace
}  // namespace staithe::proxy::auth
