// [warm]: what may be brought into the cache at boot.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/daemon/parse.h"

namespace staithe::daemon {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::StartsWith;

TEST(WarmOptions, AreEmptyByDefault) {
  EXPECT_THAT(good("").warm.images, IsEmpty());
  EXPECT_EQ(good("").warm.platform, "");
}

TEST(WarmOptions, TakeImagesOfConfiguredRegistriesAndOnePlatform) {
  const Config config = good(
      "[warm]\nimages = [\"busybox\", \"contoso.azurecr.io/app:1\"]\nplatform = \"linux/aarch64\"");
  EXPECT_THAT(config.warm.images, ElementsAre("busybox", "contoso.azurecr.io/app:1"));
  EXPECT_EQ(config.warm.platform, "linux/arm64");
  EXPECT_EQ(good("[warm]\nplatform = \"all\"").warm.platform, "all");
  EXPECT_EQ(to_toml(good(to_toml(config))), to_toml(config));
}

TEST(WarmOptions, NameWhatIsWrongByFileAndLine) {
  EXPECT_THAT(only_fault("[warm]\n\nimages = [\"busybox\", \"Two Words\"]"),
              StartsWith("t.toml:3: warm.images: \"Two Words\" is not an image's name"));
  EXPECT_THAT(only_fault("[warm]\nimages = [\"x.example/app:1\"]"),
              StartsWith("t.toml:2: warm.images: \"x.example/app:1\" is an image of x.example, "
                         "which is not configured"));
  EXPECT_THAT(only_fault("[warm]\nplatform = \"linux/amd46\""),
              HasSubstr("t.toml:2: warm.platform: \"linux/amd46\" is not a platform"));
  EXPECT_THAT(only_fault("[warm]\nimages = \"busybox\""), HasSubstr("a list in brackets"));
  EXPECT_THAT(only_fault("[warm]\nimages = [\"a\", \"a\"]"), HasSubstr("stands there twice"));
  EXPECT_THAT(only_fault("[warm]\nimage = [\"a\"]"), HasSubstr("did you mean \"images\"?"));
}

}  // namespace
}  // namespace staithe::daemon
