#include "cache/layout.h"

#include <gtest/gtest.h>

namespace staithe::cache {
namespace {

TEST(Layout, PutsAnObjectByKindAlgorithmAndDigest) {
  const Layout layout("/var/cache/staithe");
  const Digest digest = digest_of(Algorithm::sha256, "");
  EXPECT_EQ(layout.object(ObjectKind::blob, digest),
            "/var/cache/staithe/blobs/sha256/e3/" + digest.hex());
  EXPECT_EQ(layout.object(ObjectKind::manifest, digest_of(Algorithm::sha512, "")).parent_path(),
            "/var/cache/staithe/manifests/sha512/cf");
  EXPECT_EQ(layout.partial(digest, 7), "/var/cache/staithe/partial/" + digest.hex() + ".7");
}

TEST(Layout, NamesWhatIsSetAsideInTheOrderOfTime) {
  const Layout layout("/cache");
  const Digest early = digest_of(Algorithm::sha256, "1");  // 6b...
  const Digest late = digest_of(Algorithm::sha256, "");    // e3...
  EXPECT_LT(layout.quarantined(late, 9, 0), layout.quarantined(early, 10, 0));
  EXPECT_LT(layout.quarantined(late, 10, 9), layout.quarantined(early, 10, 10));
  EXPECT_EQ(layout.quarantined(late, 1'767'225'600, 3).filename(),
            "001767225600.000003." + late.hex());
}

}  // namespace
}  // namespace staithe::cache
