// Manifests in the store: at once in memory, soon on disk.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/cache/store_fixture.h"

namespace staithe::cache {
namespace {

using testing::Contains;
using testing::StartsWith;

TEST_F(StoreTest, AManifestIsThereAtOnceAndOnDiskSoon) {
  const auto manifest = manifest_of("{\"a\":1}", "application/x+json; charset=utf-8");
  store().put_manifest(manifest);
  EXPECT_TRUE(store().has_manifest(manifest->digest));
  EXPECT_EQ(cellar_.manifest(manifest->digest), manifest);
  store().link("r/app", manifest->digest);
  cellar_.settle();
  EXPECT_TRUE(cellar_.on_disk(manifest->digest, ObjectKind::manifest));
  EXPECT_EQ(store().size_of_blob(manifest->digest), std::nullopt);
  expect_figures_true();
  cellar_.restart();
  const auto again = cellar_.manifest(manifest->digest);
  ASSERT_NE(again, nullptr);
  EXPECT_EQ(again->bytes, manifest->bytes);
  EXPECT_EQ(again->media_type, manifest->media_type);
  EXPECT_TRUE(store().link_age("r/app", manifest->digest));
}

TEST_F(StoreTest, AManifestPutTwiceIsStoredOnce) {
  const auto gate = cellar_.disk.hold(Call::write);
  const auto manifest = manifest_of("{}");
  store().put_manifest(manifest);
  cellar_.poll();
  cellar_.meet(gate);
  store().put_manifest(manifest_of("{}"));
  gate->open();
  cellar_.settle();
  store().put_manifest(manifest_of("{}"));
  cellar_.settle();
  EXPECT_EQ(cellar_.disk.calls(Call::write), 1u);
  EXPECT_EQ(stats().manifests, 1u);
  expect_figures_true();
}

TEST_F(StoreTest, AManifestThatIsBeingStoredIsNotEvicted) {
  const auto gate = cellar_.disk.hold(Call::write);
  const auto manifest = manifest_of("{}");
  store().put_manifest(manifest);
  cellar_.poll();
  cellar_.meet(gate);
  EXPECT_EQ(failure_of([&] { cellar_.begin(noise(MiB, 1)); }), Errc::storage_full);
  gate->open();
  cellar_.settle();
  EXPECT_TRUE(store().has_manifest(manifest->digest));
  expect_figures_true();
  cellar_.fill(noise(MiB, 1));
  EXPECT_FALSE(store().has_manifest(manifest->digest)) << "once stored it can";
  EXPECT_EQ(cellar_.manifest(manifest->digest), nullptr);
  expect_figures_true();
}

TEST_F(StoreTest, AManifestPutWhileItIsBeingEvictedIsThereAfterwards) {
  const auto manifest = manifest_of("{}");
  store().put_manifest(manifest);
  store().link("r/app", manifest->digest);
  cellar_.settle();
  const auto gate = cellar_.disk.hold(Call::remove);
  auto begin = cellar_.start(store().begin(digest_of("large"), MiB));
  cellar_.meet(gate);
  store().put_manifest(manifest);
  // Once it is stored it may go again, so it is not until the other has found no room.
  const auto storing = cellar_.disk.hold(Call::write);
  gate->open();
  EXPECT_EQ(failure_of([&] { cellar_.wait(begin); }), Errc::storage_full) << "it was in time";
  storing->open();
  cellar_.settle();
  EXPECT_TRUE(store().has_manifest(manifest->digest));
  EXPECT_TRUE(cellar_.on_disk(manifest->digest, ObjectKind::manifest));
  EXPECT_TRUE(store().link_age("r/app", manifest->digest));
  EXPECT_NE(cellar_.manifest(manifest->digest), nullptr);
  expect_figures_true();
}

TEST_F(StoreTest, AManifestThatCannotBeStoredIsServedFromMemoryAndNotListed) {
  for (const Call call : {Call::create, Call::write, Call::sync, Call::rename, Call::sync_directory,
                          Call::make_directory}) {
    cellar_.disk.fail(call, EIO);
    const auto manifest = manifest_of("{\"n\":" + std::to_string(static_cast<int>(call)) + "}");
    store().put_manifest(manifest);
    cellar_.settle();
    EXPECT_FALSE(store().has_manifest(manifest->digest));
    EXPECT_EQ(cellar_.manifest(manifest->digest), manifest);
    EXPECT_EQ(cellar_.files_in(cellar_.layout().partial()), 0u);
    EXPECT_FALSE(cellar_.on_disk(manifest->digest, ObjectKind::manifest));
    expect_figures_true();
    store().put_manifest(manifest);
    cellar_.settle();
    EXPECT_TRUE(cellar_.on_disk(manifest->digest, ObjectKind::manifest)) << "the next time it can";
  }
  EXPECT_THAT(cellar_.reports, Contains(StartsWith("manifest not stored")));
}

TEST_F(StoreTest, ADamagedManifestIsSetAside) {
  const std::string bytes = "{\"some\":\"manifest\"}";
  const std::string record = to_record(*manifest_of(bytes));
  for (const std::string& damaged :
       {std::string(), std::string(record.size(), '\0'), record.substr(0, record.size() - 1),
        record + " ", "x" + record.substr(1, record.size() - 2) + "?"}) {
    const Digest digest = cellar_.put_manifest(bytes);
    cellar_.restart();
    cellar_.disk.damage(cellar_.path(digest, ObjectKind::manifest), damaged);
    EXPECT_EQ(cellar_.manifest(digest), nullptr);
    EXPECT_FALSE(store().has_manifest(digest));
    EXPECT_EQ(stats().quarantined, 1u);
    expect_figures_true();
  }
}

TEST_F(StoreTest, AHugeFileInTheNameOfAManifestIsNotReadIntoMemory) {
  const Digest digest = cellar_.put_manifest("{}");
  cellar_.close();
  std::filesystem::resize_file(cellar_.path(digest, ObjectKind::manifest), std::uint64_t{1} << 40);
  cellar_.restore_index({});
  cellar_.make();
  cellar_.open();
  EXPECT_EQ(cellar_.manifest(digest), nullptr);
}

TEST_F(StoreTest, ManifestsBeyondTheMemoryForThemAreReadFromDisk) {
  Cellar cellar({.bytes = 200 * MiB});
  std::vector<Digest> digests;
  for (int i = 0; i < 40; ++i)
    digests.push_back(cellar.put_manifest(std::string(MiB, static_cast<char>('0' + i))));
  const std::uint64_t reads = cellar.disk.calls(Call::read);
  for (int i = 0; i < 40; ++i) {
    const auto manifest = cellar.manifest(digests[i]);
    ASSERT_NE(manifest, nullptr);
    EXPECT_EQ(manifest->bytes, std::string(MiB, static_cast<char>('0' + i)));
  }
  EXPECT_GT(cellar.disk.calls(Call::read), reads);
}

TEST_F(StoreTest, OneDigestIsOneFileWhetherBlobOrManifest) {
  const std::string bytes = "{\"both\":true}";
  const Digest digest = cellar_.put_manifest(bytes);
  EXPECT_EQ(find(digest), nullptr);
  EXPECT_EQ(failure_of([&] { cellar_.fill(bytes); }), Errc::storage_failed) << "it passes through";
  const Digest other = cellar_.fill("{}");
  const auto manifest = manifest_of("{}");
  store().put_manifest(manifest);
  cellar_.settle();
  EXPECT_EQ(cellar_.manifest(other), manifest) << "from memory";
  EXPECT_EQ(cellar_.read(other), "{}");
  expect_figures_true();
  cellar_.restart();
  EXPECT_EQ(cellar_.manifest(other), nullptr);
  EXPECT_EQ(cellar_.read(other), "{}");
  expect_figures_true();
}

TEST_F(StoreTest, AManifestPutWhileItsBlobIsGrowingLeavesOneFile) {
  const auto writer = cellar_.begin("{}");
  store().put_manifest(manifest_of("{}"));
  cellar_.append(*writer, "{}");
  cellar_.run(writer->commit());
  EXPECT_EQ(stats().blobs, 1u);
  EXPECT_EQ(stats().manifests, 0u);
  expect_figures_true();
}

TEST_F(StoreTest, APutReplacesARowWithoutAFile) {
  const Digest digest = cellar_.put_manifest("{}");
  cellar_.restart();
  std::filesystem::remove(cellar_.path(digest, ObjectKind::manifest));
  store().put_manifest(manifest_of("{}"));
  cellar_.settle();
  EXPECT_TRUE(cellar_.on_disk(digest, ObjectKind::manifest));
  expect_figures_true();
}

TEST_F(StoreTest, APutReplacesADamagedFileAndKeepsItsLinks) {
  const Digest digest = cellar_.put_manifest("{}");
  store().link("r/app", digest);
  cellar_.restart();
  cellar_.disk.damage(cellar_.path(digest, ObjectKind::manifest), "nonsense");
  store().put_manifest(manifest_of("{}"));
  cellar_.settle();
  EXPECT_EQ(fake::read_file(cellar_.path(digest, ObjectKind::manifest)),
            to_record(*manifest_of("{}")));
  EXPECT_TRUE(store().link_age("r/app", digest));
  expect_figures_true();
}

TEST_F(StoreTest, WhileAPutReplacesAFileBothCount) {
  const Digest digest = cellar_.put_manifest("{}");
  cellar_.restart();
  cellar_.disk.damage(cellar_.path(digest, ObjectKind::manifest), "nonsense");
  const auto gate = cellar_.disk.hold(Call::rename);
  store().put_manifest(manifest_of("{}"));
  cellar_.poll();
  cellar_.meet(gate);
  EXPECT_EQ(stats().bytes, cellar_.bytes_on_disk());
  gate->open();
  expect_figures_true();
}

TEST_F(StoreTest, APutThatCannotBeWrittenTakesNothingFromAGoodFile) {
  const Digest digest = cellar_.put_manifest("{}");
  for (const Call call : {Call::create, Call::open, Call::sync, Call::rename}) {
    cellar_.restart();
    cellar_.disk.turn_read_only();
    cellar_.disk.fail(call, EIO);
    store().put_manifest(manifest_of("{}"));
    cellar_.settle();
    cellar_.disk.heal();
    EXPECT_TRUE(store().has_manifest(digest));
    EXPECT_TRUE(cellar_.on_disk(digest, ObjectKind::manifest));
    expect_figures_true();
  }
  EXPECT_EQ(cellar_.disk.calls(Call::rename), 1u) << "what is good is not written again";
}

TEST_F(StoreTest, AManifestWhoseFileIsGoneIsStoredAgainOnceItIsMissed) {
  const Digest digest = cellar_.put_manifest("{}");
  cellar_.restart();
  std::filesystem::remove(cellar_.path(digest, ObjectKind::manifest));
  EXPECT_EQ(cellar_.manifest(digest), nullptr);
  EXPECT_EQ(stats().quarantined, 0u);
  cellar_.put_manifest("{}");
  EXPECT_TRUE(cellar_.on_disk(digest, ObjectKind::manifest));
  expect_figures_true();
}

}  // namespace
}  // namespace staithe::cache
