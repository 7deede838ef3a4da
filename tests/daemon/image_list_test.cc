#include "daemon/image_list.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace staithe::daemon {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::StartsWith;

TEST(ImageList, HasOneNamePerLine) {
  EXPECT_THAT(*parse_image_list("busybox\nr.example/app:1\n", "l"),
              ElementsAre("busybox", "r.example/app:1"));
}

TEST(ImageList, PassesOverCommentsAndBlanks) {
  EXPECT_THAT(*parse_image_list("# all\n\n \t\r\n  app:1  # one\r\nb#c\n#", "l"),
              ElementsAre("app:1", "b"));
  EXPECT_THAT(*parse_image_list("", "l"), IsEmpty());
  EXPECT_THAT(*parse_image_list("app", "l"), ElementsAre("app"));
}

TEST(ImageList, NamesEveryBadLineByItsNumber) {
  const auto list = parse_image_list("app\nTwo Words\n\n\x1b[2J\nb:1:2\n", "images.txt");
  ASSERT_FALSE(list);
  EXPECT_THAT(list.error(),
              ElementsAre(StartsWith("images.txt:2: \"Two Words\" is not an image's name"),
                          HasSubstr("images.txt:4: \"\\"), StartsWith("images.txt:5: ")));
}

}  // namespace
}  // namespace staithe::daemon
