// What an operator wants gone from the store.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/cache/images.h"
#include "tests/cache/store_fixture.h"

namespace staithe::cache {
namespace {

using namespace std::chrono_literals;
using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

constexpr const char* app = "r.example/app";
constexpr const char* web = "r.example/web";

class StorePurgeTest : public StoreTest {
 protected:
  Purged purge(const std::string& repository, const std::string& reference) {
    return cellar_.run(store().purge_image(repository, reference));
  }
  bool has(std::string_view bytes) { return store().size_of_blob(digest_of(bytes)).has_value(); }

  const std::string base_ = noise(100 * KiB, 1);
  const std::string mine_ = noise(100 * KiB, 2);
  const std::string other_ = noise(100 * KiB, 3);
};

TEST_F(StorePurgeTest, AnImageGoesWithEverythingThatNobodyElseNeeds) {
  const auto manifest = pull(cellar_, app, "1", {"config 1", base_, mine_});
  pull(cellar_, app, "2", {"config 2", base_, other_});
  const Purged purged = purge(app, "1");
  EXPECT_EQ(purged.tags, 1u);
  EXPECT_EQ(purged.manifests.objects, 1u);
  EXPECT_EQ(purged.blobs.objects, 2u);
  EXPECT_EQ(purged.blobs.bytes, mine_.size() + 8);
  EXPECT_EQ(purged.shared.objects, 1u);
  EXPECT_EQ(purged.shared.bytes, base_.size());
  EXPECT_THAT(purged.faults, IsEmpty());
  EXPECT_FALSE(store().tag(app, "1"));
  EXPECT_FALSE(cellar_.on_disk(digest_of(mine_)));
  EXPECT_FALSE(cellar_.on_disk(manifest->digest, ObjectKind::manifest));
  EXPECT_EQ(cellar_.manifest(manifest->digest), nullptr) << "not from memory either";
  EXPECT_EQ(cellar_.read(digest_of(base_)), base_);
  EXPECT_TRUE(store().link_age(app, digest_of(base_))) << "its other image needs it here";
  expect_figures_true();
  EXPECT_EQ(failure_of([&] { purge(app, "1"); }), Errc::not_found);
}

TEST_F(StorePurgeTest, WhatAnotherRepositoryNeedsStaysForThatOneOnly) {
  pull(cellar_, app, "1", {"config", base_});
  pull(cellar_, web, "1", {"config", base_});
  const Purged purged = purge(app, "1");
  EXPECT_EQ(purged.shared.objects, 3u) << "even the manifest is the same";
  EXPECT_EQ(purged.blobs.objects + purged.manifests.objects, 0u);
  EXPECT_FALSE(store().link_age(app, digest_of(base_)));
  EXPECT_TRUE(store().link_age(web, digest_of(base_)));
  EXPECT_TRUE(has(base_));
  EXPECT_EQ(purge(web, "1").blobs.objects, 2u);
  EXPECT_EQ(stats().blobs, 0u);
}

TEST_F(StorePurgeTest, AnIndexGoesWithItsPlatforms) {
  const auto child = image_manifest({"config", base_});
  const auto index = image_index({child, image_manifest({"elsewhere"})});
  bring(cellar_, app, index, "1");
  bring(cellar_, app, child);
  bring_blob(cellar_, app, "config");
  bring_blob(cellar_, app, base_);
  const Purged purged = purge(app, "1");
  EXPECT_EQ(purged.manifests.objects, 2u);
  EXPECT_EQ(purged.blobs.objects, 2u);
  EXPECT_EQ(stats().bytes, 0u);
}

TEST_F(StorePurgeTest, AnImageIsAlsoPurgedByItsDigest) {
  const auto manifest = pull(cellar_, app, "", {"config", base_});
  EXPECT_EQ(failure_of([&] { purge(web, manifest->digest.to_string()); }), Errc::not_found);
  EXPECT_EQ(purge(app, manifest->digest.to_string()).blobs.objects, 2u);
  EXPECT_EQ(stats().manifests, 0u);
}

TEST_F(StorePurgeTest, APinnedImageIsRefusedWithTheRemedy) {
  pull(cellar_, app, "1", {"config", base_});
  pull(cellar_, web, "1", {"config of web", base_});
  cellar_.run(store().pin(app, "1"));
  try {
    purge(app, "1");
    ADD_FAILURE();
  } catch (const Failure& failure) {
    EXPECT_EQ(failure.code(), Errc::in_use);
    EXPECT_THAT(failure.what(), HasSubstr("staithe unpin r.example/app:1"));
  }
  const Purged purged = purge(web, "1");
  EXPECT_EQ(purged.blobs.objects, 1u);
  EXPECT_TRUE(has(base_));
  cellar_.run(store().unpin(app, "1"));
  EXPECT_EQ(purge(app, "1").blobs.objects, 2u);
}

TEST_F(StorePurgeTest, AllLeavesWhatIsPinned) {
  const auto manifest = pull(cellar_, app, "1", {"config", base_});
  pull(cellar_, web, "1", {"config of web", base_, other_});
  cellar_.fill(mine_);
  cellar_.run(store().pin(app, "1"));
  const Purged purged = cellar_.run(store().purge_all());
  EXPECT_EQ(purged.blobs.objects, 3u);
  EXPECT_EQ(purged.manifests.objects, 1u);
  EXPECT_EQ(purged.tags, 1u);
  EXPECT_EQ(purged.pinned.objects, 3u);
  EXPECT_TRUE(store().tag(app, "1"));
  EXPECT_FALSE(store().tag(web, "1"));
  EXPECT_FALSE(store().link_age(web, digest_of(base_)));
  EXPECT_TRUE(store().link_age(app, digest_of(base_)));
  EXPECT_NE(cellar_.manifest(manifest->digest), nullptr);
  expect_figures_true();
}

TEST_F(StorePurgeTest, AllOfManyIsDoneInBatchesAndDurable) {
  for (int i = 0; i < 200; ++i) cellar_.fill(noise(100, i));
  const Purged purged = cellar_.run(store().purge_all());
  EXPECT_EQ(purged.blobs.objects, 200u);
  EXPECT_EQ(stats().bytes, 0u);
  cellar_.crash(Loss::everything);
  EXPECT_EQ(stats().blobs, 0u);
  EXPECT_EQ(cellar_.bytes_on_disk(), 0u) << "its removal was not synced";
}

TEST_F(StorePurgeTest, WhatWasPurgedDoesNotReturnAfterALossOfPower) {
  pull(cellar_, app, "1", {"config", base_});
  cellar_.pass(1s);
  purge(app, "1");
  cellar_.crash(Loss::everything);
  EXPECT_EQ(stats().blobs + stats().manifests, 0u);
  EXPECT_FALSE(store().tag(app, "1"));
  EXPECT_THAT(cellar_.run(store().images()), IsEmpty());
}

TEST_F(StorePurgeTest, UnusedIsWhatBelongsToNoImageThatWasUsed) {
  pull(cellar_, app, "old", {"config of old", base_, mine_});
  const auto used = pull(cellar_, app, "used", {"config of used", base_});
  cellar_.clock.suspend(48h);
  cellar_.manifest(used->digest);
  EXPECT_EQ(cellar_.run(store().purge_unused(72h)).blobs.objects, 0u);
  const Purged purged = cellar_.run(store().purge_unused(24h));
  EXPECT_EQ(purged.blobs.objects, 2u);
  EXPECT_EQ(purged.manifests.objects, 1u);
  EXPECT_EQ(purged.tags, 1u);
  EXPECT_EQ(purged.shared.objects, 2u);
  EXPECT_TRUE(has(base_));
  EXPECT_FALSE(store().tag(app, "old"));
  EXPECT_TRUE(store().tag(app, "used"));
}

TEST_F(StorePurgeTest, UnusedSparesWhatIsPinnedAndWhatHasNoKnownUse) {
  pull(cellar_, app, "1", {"config", base_});
  cellar_.run(store().pin(app, "1"));
  cellar_.fill(mine_);
  cellar_.clock.suspend(48h);
  EXPECT_EQ(cellar_.run(store().purge_unused(24h)).pinned.objects, 3u);
  EXPECT_FALSE(has(mine_));
  cellar_.fill(mine_);
  cellar_.close();
  cellar_.restore_index({});
  cellar_.make();
  cellar_.open();
  EXPECT_EQ(cellar_.run(store().purge_unused(1s)).blobs.objects, 0u);
  EXPECT_TRUE(has(mine_));
}

TEST_F(StorePurgeTest, WhoReadsReadsOnAndItsSpaceCountsUntilHeCloses) {
  pull(cellar_, app, "1", {"config", base_});
  auto blob = find(digest_of(base_));
  purge(app, "1");
  EXPECT_FALSE(cellar_.on_disk(digest_of(base_)));
  EXPECT_EQ(find(digest_of(base_)), nullptr);
  EXPECT_EQ(stats().bytes, 100 * KiB);
  EXPECT_EQ(cellar_.run(read_blob(blob)), base_);
  blob.reset();
  cellar_.settle();
  EXPECT_EQ(stats().bytes, 0u);
}

TEST_F(StorePurgeTest, WhatIsBeingFetchedStays) {
  const auto manifest = image_manifest({"config", base_});
  bring(cellar_, app, manifest, "1");
  bring_blob(cellar_, app, "config");
  auto writer = cellar_.begin(base_);
  cellar_.append(*writer, std::string_view(base_).substr(0, 1000));
  const Purged purged = purge(app, "1");
  EXPECT_EQ(purged.in_use.objects, 1u);
  EXPECT_EQ(purged.blobs.objects, 1u);
  cellar_.append(*writer, std::string_view(base_).substr(1000));
  cellar_.run(writer->commit());
  writer.reset();
  EXPECT_EQ(cellar_.read(digest_of(base_)), base_);
  EXPECT_EQ(cellar_.run(store().purge_all()).blobs.objects, 1u);
}

TEST_F(StorePurgeTest, WhatCannotBeRemovedStaysStoredAndIsTold) {
  const auto manifest = pull(cellar_, app, "1", {"config", base_, mine_});
  cellar_.disk.fail(Call::remove, EIO, 2);
  const Purged purged = purge(app, "1");
  EXPECT_EQ(purged.failed.objects, 2u);
  EXPECT_EQ(purged.blobs.objects + purged.manifests.objects, 2u);
  EXPECT_EQ(purged.faults.size(), 2u);
  EXPECT_EQ(stats().blobs + stats().manifests, 2u);
  expect_figures_true();
  cellar_.run(store().purge_all());
  EXPECT_EQ(stats().bytes, 0u);
}

TEST_F(StorePurgeTest, ARemovalThatCouldNotBeSyncedIsTold) {
  cellar_.fill(base_);
  cellar_.disk.fail(Call::sync_directory, EIO);
  const Purged purged = cellar_.run(store().purge_all());
  EXPECT_EQ(purged.blobs.objects, 1u);
  ASSERT_EQ(purged.faults.size(), 1u);
  EXPECT_THAT(purged.faults[0], HasSubstr("loss of power"));
}

TEST_F(StorePurgeTest, AnIndexThatCannotBeWrittenIsTold) {
  pull(cellar_, app, "1", {"config", base_});
  const NoGrowth full;
  const Purged purged = purge(app, "1");
  EXPECT_EQ(purged.blobs.objects, 2u);
  ASSERT_EQ(purged.faults.size(), 1u);
  EXPECT_THAT(purged.faults[0], HasSubstr("index"));
}

TEST_F(StorePurgeTest, WhatIsUsedOrPinnedWhileAPurgeGoesOnStays) {
  for (int i = 0; i < 200; ++i) cellar_.fill(noise(100, i));
  std::vector<Digest> digests = store().objects();
  std::ranges::sort(digests);
  pull(cellar_, app, "1", {"config", base_});
  const auto gate = cellar_.disk.hold(Call::remove);
  auto purging = cellar_.start(store().purge_all());
  cellar_.meet(gate);
  EXPECT_EQ(find(digests.front()), nullptr) << "it is being removed";
  const auto used = find(digests.back());
  EXPECT_NE(used, nullptr);
  gate->open();
  const Purged purged = cellar_.wait(purging);
  EXPECT_EQ(purged.in_use.objects, 1u);
  EXPECT_EQ(stats().blobs, 1u);
}

TEST_F(StorePurgeTest, ADiskThatTurnsReadOnlyIsToldBeforeAnythingGoes) {
  pull(cellar_, app, "1", {"config", base_});
  cellar_.disk.turn_read_only();
  EXPECT_EQ(failure_of([&] { purge(app, "1"); }), Errc::storage_failed);
  EXPECT_TRUE(store().tag(app, "1"));
  EXPECT_TRUE(has(base_));
}

}  // namespace
}  // namespace staithe::cache
