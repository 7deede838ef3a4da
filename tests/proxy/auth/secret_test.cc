#include "proxy/auth/secret.h"

#include <gtest/gtest.h>
#include <spdlog/fmt/fmt.h>

#include <concepts>
#include <ostream>
#include <string>
#include <type_traits>

#include "cache/log.h"

namespace staithe::proxy::auth {
namespace {

template <class T>
concept Streamable = requires(std::ostream& out, const T& value) { out << value; };

// What cannot be written down cannot be logged by accident.
static_assert(Streamable<std::string>);
static_assert(!Streamable<Secret>);
static_assert(fmt::is_formattable<std::string>::value);
static_assert(!fmt::is_formattable<Secret>::value);
static_assert(!std::convertible_to<const Secret&, std::string_view>);
static_assert(!std::convertible_to<const Secret&, std::string>);
static_assert(!std::is_constructible_v<log::Value, const Secret&>);
static_assert(!std::is_copy_constructible_v<Secret> && !std::is_copy_assignable_v<Secret>);
static_assert(std::is_nothrow_move_constructible_v<Secret>);
// A string does not turn into a secret unnoticed either.
static_assert(!std::convertible_to<std::string, Secret>);

TEST(Secret, GivesItsBytesOnlyByName) {
  const Secret secret(std::string_view("a\0b", 3));
  EXPECT_EQ(secret.reveal(), std::string_view("a\0b", 3));
  EXPECT_EQ(secret.size_bytes(), 3U);
  EXPECT_EQ(Secret("Bearer ", "token").reveal(), "Bearer token");
  EXPECT_TRUE(Secret().empty());
  EXPECT_EQ(Secret("").reveal(), "");
}

TEST(Secret, MovesWithoutLeavingACopy) {
  Secret first("swordfish");
  const char* where = first.reveal().data();
  Secret second(std::move(first));
  EXPECT_EQ(second.reveal().data(), where);
  EXPECT_TRUE(first.empty());  // NOLINT(bugprone-use-after-move): what a move leaves is the point
  Secret third("other");
  third = std::move(second);
  EXPECT_EQ(third.reveal(), "swordfish");
  Secret& alias = third;
  third = std::move(alias);
  EXPECT_EQ(third.reveal(), "swordfish");
}

TEST(Secret, TakesATextOverAndWipesWhereItStood) {
  std::string text = "a text that is too long to be kept within the string object itself";
  const char* where = text.data();
  const std::size_t size = text.size();
  const Secret secret = Secret::take(std::move(text));
  EXPECT_EQ(secret.size_bytes(), size);
  EXPECT_TRUE(text.empty());  // NOLINT(bugprone-use-after-move)
  // The string still owns that memory.
  EXPECT_EQ(text.data(), where);
  for (std::size_t i = 0; i < size; ++i) EXPECT_EQ(where[i], '\0');
}

TEST(Secret, WipeOverwritesTheWholeCapacity) {
  std::string text(100, 'x');
  text.resize(10);
  wipe(text);
  EXPECT_TRUE(text.empty());
  for (std::size_t i = 0; i < 100; ++i) EXPECT_EQ(text.data()[i], '\0');
  std::string small = "abc";
  wipe(small);
  EXPECT_TRUE(small.empty());
}

TEST(Secret, ComparesBytes) {
  EXPECT_TRUE(Secret("abc") == Secret("abc"));
  EXPECT_FALSE(Secret("abc") == Secret("abd"));
  EXPECT_FALSE(Secret("abc") == Secret("ab"));
  EXPECT_TRUE(Secret() == Secret(""));
}

}  // namespace
}  // namespace staithe::proxy::auth
