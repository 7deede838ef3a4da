#include "cache/error.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <set>
#include <string>

namespace staithe {
namespace {

TEST(Errc, HasANameOfItsOwnEach) {
  std::set<std::string> names;
  for (int code = 0; code <= static_cast<int>(Errc::config); ++code) {
    const std::string name = to_string(static_cast<Errc>(code));
    EXPECT_FALSE(name.empty());
    EXPECT_TRUE(names.insert(name).second) << name;
  }
}

TEST(Errno, IsToldInWords) {
  EXPECT_EQ(describe_errno(ENOSPC), "No space left on device");
  EXPECT_FALSE(describe_errno(123456).empty());
}

TEST(ValueOrThrow, GivesTheValueOrThrowsTheError) {
  EXPECT_EQ(value_or_throw(Result<int>(7)), 7);
  EXPECT_NO_THROW(value_or_throw(Result<void>()));
  try {
    value_or_throw(Result<int>(fail(Errc::too_large, "the body is too large")));
    FAIL();
  } catch (const Failure& failure) {
    EXPECT_EQ(failure.code(), Errc::too_large);
    EXPECT_STREQ(failure.what(), "the body is too large");
  }
}

}  // namespace
}  // namespace staithe
