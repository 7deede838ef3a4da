// Images and pins of the store.
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
using testing::StartsWith;

constexpr const char* app = "r.example/app";

class StorePinsTest : public StoreTest {
 protected:
  std::vector<std::string> blobs(int seed, int layers = 2) {
    std::vector<std::string> blobs = {noise(500, 1000 + seed)};
    for (int i = 0; i < layers; ++i) blobs.push_back(noise(100 * KiB, 10 * seed + i));
    return blobs;
  }
  bool whole(const std::vector<std::string>& image) {
    for (const std::string& bytes : image)
      if (cellar_.read(digest_of(bytes)) != bytes) return false;
    return true;
  }
  bool any(const std::vector<std::string>& image) {
    for (const std::string& bytes : image)
      if (store().size_of_blob(digest_of(bytes))) return true;
    return false;
  }
  // Enough pulls to turn the whole cache over three times.
  void churn(int seed = 0) {
    for (int i = 0; i < 30; ++i) {
      const std::string bytes = noise(100 * KiB, 5000 + 100 * seed + i);
      failure_of([&] { cellar_.fill(bytes); });
    }
  }
  Image pin(const std::string& reference) { return cellar_.run(store().pin(app, reference)); }
  std::vector<ListedImage> images() { return cellar_.run(store().images()); }
};

// ---- images
// --------------------------------------------------------------------------------------

TEST_F(StorePinsTest, AnImageIsWhatItsCachedManifestsName) {
  const auto one = blobs(1);
  const auto two = blobs(2);
  const auto here = image_manifest(one);
  const auto other_platform = image_manifest(two);
  const auto index = image_index({here, other_platform});
  bring(cellar_, app, index, "1");
  Image image = cellar_.run(store().image(index->digest));
  EXPECT_EQ(image.parts.size(), 3u);
  EXPECT_EQ(image.media_type, index_type);
  EXPECT_FALSE(image.complete) << "no platform is here";
  bring(cellar_, app, here);
  image = cellar_.run(store().image(index->digest));
  EXPECT_EQ(image.parts.size(), 6u);
  EXPECT_EQ(image.stored_parts(), 2u);
  EXPECT_FALSE(image.complete);
  for (const std::string& bytes : one) bring_blob(cellar_, app, bytes);
  image = cellar_.run(store().image(index->digest));
  EXPECT_TRUE(image.complete) << "nobody has asked for the other platform";
  EXPECT_EQ(image.needed_bytes, image.cached_bytes);
  EXPECT_GT(image.cached_bytes, 200 * KiB);
}

TEST_F(StorePinsTest, ImagesAreTagsAndWhatWasPulledByDigest) {
  const auto first = pull(cellar_, app, "1", blobs(1));
  const auto child = image_manifest(blobs(2));
  const auto index = image_index({child});
  bring(cellar_, app, index, "2");
  bring(cellar_, app, child);
  const auto by_digest = image_manifest(blobs(3));
  bring(cellar_, "r.example/other", by_digest);
  const auto found = images();
  ASSERT_EQ(found.size(), 3u) << "a platform's manifest is a part of its index";
  EXPECT_EQ(found[0].reference, "1");
  EXPECT_EQ(found[0].digest, first->digest);
  EXPECT_TRUE(found[0].image.complete);
  EXPECT_TRUE(found[0].tag_age.has_value());
  EXPECT_EQ(found[1].digest, index->digest);
  EXPECT_FALSE(found[1].image.complete);
  EXPECT_EQ(found[2].repository, "r.example/other");
  EXPECT_EQ(found[2].reference, by_digest->digest.to_string());
}

TEST_F(StorePinsTest, LookingIsNoUse) {
  const auto manifest = pull(cellar_, app, "1", blobs(1));
  cellar_.restart();
  const auto before = store().objects();
  images();
  cellar_.run(store().image(manifest->digest));
  EXPECT_EQ(store().objects(), before);
}

TEST_F(StorePinsTest, ADamagedManifestNamesNothingAndIsSetAside) {
  const auto manifest = pull(cellar_, app, "1", blobs(1));
  cellar_.restart();
  fake::write_file(cellar_.path(manifest->digest, ObjectKind::manifest), "x/y\n{}");
  const Image image = cellar_.run(store().image(manifest->digest));
  EXPECT_FALSE(image.complete);
  EXPECT_EQ(image.parts.size(), 1u);
  EXPECT_EQ(stats().quarantined, 1u);
}

// ---- pins
// ----------------------------------------------------------------------------------------

TEST_F(StorePinsTest, APinnedImageSurvivesAnyChurn) {
  const auto image = blobs(1);
  pull(cellar_, app, "1", image);
  EXPECT_TRUE(pin("1").complete);
  EXPECT_EQ(stats().pins, 1u);
  EXPECT_GT(stats().pinned_bytes, 200 * KiB);
  churn();
  EXPECT_TRUE(whole(image));
  EXPECT_GT(stats().evicted, 20u);
  EXPECT_TRUE(cellar_.run(store().unpin(app, "1")));
  EXPECT_FALSE(cellar_.run(store().unpin(app, "1")));
  churn(1);
  EXPECT_FALSE(any(image));
  EXPECT_EQ(stats().pinned_bytes, 0u);
}

TEST_F(StorePinsTest, APinHoldsFromTheFirstMomentAfterAKillOrALossOfPower) {
  for (const Loss loss : {Loss::nothing, Loss::everything}) {
    const auto image = blobs(loss == Loss::nothing ? 1 : 2);
    const std::string tag = loss == Loss::nothing ? "1" : "2";
    pull(cellar_, app, tag, image);
    pin(tag);
    cellar_.crash(loss);
    EXPECT_TRUE(store().pinned(app, tag));
    churn();
    EXPECT_TRUE(whole(image));
    cellar_.run(store().unpin(app, tag));
    cellar_.crash(loss);
    EXPECT_FALSE(store().pinned(app, tag)) << "an unpin is as durable";
  }
}

TEST_F(StorePinsTest, WhatAPinNeedsIsKeptAsItComes) {
  const auto image = blobs(1);
  const auto manifest = image_manifest(image);
  const Image nothing = pin("1");
  EXPECT_FALSE(nothing.complete);
  EXPECT_THAT(nothing.parts, IsEmpty());
  const auto listed = images();
  ASSERT_EQ(listed.size(), 1u);
  EXPECT_EQ(listed[0].digest, std::nullopt);
  EXPECT_TRUE(listed[0].pinned);
  bring(cellar_, app, manifest, "1");
  bring_blob(cellar_, app, image[1]);
  churn();
  EXPECT_TRUE(cellar_.on_disk(manifest->digest, ObjectKind::manifest));
  EXPECT_EQ(cellar_.read(digest_of(image[1])), image[1]);
  for (const std::string& bytes : image) bring_blob(cellar_, app, bytes);
  churn(1);
  EXPECT_TRUE(whole(image));
}

TEST_F(StorePinsTest, APinByDigestOfAnIndexKeepsEveryPlatformThatComes) {
  const auto one = blobs(1);
  const auto two = blobs(2);
  const auto index = image_index({image_manifest(one), image_manifest(two)});
  pin(index->digest.to_string());
  bring(cellar_, app, index);
  bring(cellar_, app, image_manifest(one));
  for (const std::string& bytes : one) bring_blob(cellar_, app, bytes);
  cellar_.restart();
  bring(cellar_, app, image_manifest(two));
  for (const std::string& bytes : two) bring_blob(cellar_, app, bytes);
  churn();
  EXPECT_TRUE(whole(one));
  EXPECT_TRUE(whole(two));
}

TEST_F(StorePinsTest, WhatCameAfterTheIndexWasWrittenIsKeptAfterAKill) {
  const auto image = blobs(1);
  pin("1");
  bring(cellar_, app, image_manifest(image), "1");
  cellar_.pass(1s);
  for (const std::string& bytes : image) bring_blob(cellar_, app, bytes);
  cellar_.crash(Loss::nothing);
  churn();
  EXPECT_TRUE(whole(image));
}

TEST_F(StorePinsTest, NothingGoesBeforeItIsKnownWhatThePinsNeed) {
  const auto one = blobs(1);
  const auto two = blobs(2);
  const auto index = image_index({image_manifest(one), image_manifest(two)});
  bring(cellar_, app, index, "1");
  pin("1");
  cellar_.pass(1s);
  const auto saved = cellar_.save_index();
  bring(cellar_, app, image_manifest(two));
  for (const std::string& bytes : two) bring_blob(cellar_, app, bytes);
  for (int i = 0; i < 7; ++i) cellar_.fill(noise(100 * KiB, 700 + i));
  cellar_.close();
  cellar_.restore_index(saved);  // It knows nothing of what has come since.
  cellar_.make();
  // The first two lists are of partial/ and quarantine/; the third is where index and disk are
  // compared.
  auto gate = cellar_.disk.hold(Call::list);
  const auto opening = cellar_.start(store().open());
  for (int i = 0; i < 2; ++i) {
    cellar_.meet(gate);
    const auto next = cellar_.disk.hold(Call::list);
    gate->open();
    gate = next;
  }
  cellar_.meet(gate);
  cellar_.run_until([&] { return opening.done(); });
  failure_of([&] { cellar_.begin(noise(200 * KiB, 800)); });
  gate->open();
  cellar_.run_until([&] { return store().reconciled(); });
  cellar_.settle();
  churn();
  EXPECT_TRUE(whole(two));
}

TEST_F(StorePinsTest, APinFollowsItsTag) {
  const auto old_image = blobs(1);
  const auto new_image = blobs(2);
  pull(cellar_, app, "latest", old_image);
  pin("latest");
  bring(cellar_, app, image_manifest(new_image), "latest");
  for (const std::string& bytes : new_image) bring_blob(cellar_, app, bytes);
  churn();
  EXPECT_TRUE(whole(new_image));
  EXPECT_FALSE(any(old_image));
  store().drop_tag(app, "latest");
  churn(1);
  EXPECT_TRUE(whole(new_image)) << "upstream forgot the tag, the operator did not";
  cellar_.restart();
  churn(2);
  EXPECT_TRUE(whole(new_image));
}

TEST_F(StorePinsTest, APinOfAnImageThatSharesLayersKeepsThem) {
  const auto base = noise(100 * KiB, 77);
  pull(cellar_, app, "1", {"config 1", base});
  pull(cellar_, app, "2", {"config 2", base});
  pin("1");
  pin("2");
  cellar_.run(store().unpin(app, "1"));
  churn();
  EXPECT_TRUE(store().size_of_blob(digest_of(base)));
  EXPECT_FALSE(store().size_of_blob(digest_of(std::string_view("config 1"))));
}

TEST_F(StorePinsTest, PinsThatFillTheCacheLetTheRestPassThroughAndSaySo) {
  const auto image = blobs(1, 9);
  pull(cellar_, app, "1", image);
  pin("1");
  try {
    cellar_.fill(noise(200 * KiB, 1));
    ADD_FAILURE() << "there is no room";
  } catch (const Failure& failure) {
    EXPECT_EQ(failure.code(), Errc::storage_full);
    EXPECT_THAT(failure.what(),
                HasSubstr("of which pinned images take " + std::to_string(stats().pinned_bytes)));
    EXPECT_THAT(failure.what(), HasSubstr("staithe unpin"));
  }
  EXPECT_TRUE(whole(image));
  EXPECT_EQ(stats().mode, Store::Mode::read_write);
}

TEST_F(StorePinsTest, ADamagedPinnedBlobIsSetAsideAndKeptAgainWhenItComes) {
  const auto image = blobs(1);
  const Digest layer = digest_of(image[1]);
  pull(cellar_, app, "1", image);
  pin("1");
  cellar_.restart();
  fake::write_file(cellar_.path(layer), noise(100 * KiB, 99));
  EXPECT_EQ(failure_of([&] { cellar_.read(layer); }), Errc::storage_failed);
  EXPECT_EQ(stats().quarantined, 1u);
  bring_blob(cellar_, app, image[1]);
  churn();
  EXPECT_TRUE(whole(image));
}

TEST_F(StorePinsTest, ADamagedPinnedManifestDoesNotLetItsLayersGo) {
  const auto image = blobs(1);
  const auto manifest = pull(cellar_, app, "1", image);
  pin("1");
  cellar_.close();
  fake::write_file(cellar_.path(manifest->digest, ObjectKind::manifest), "x/y\n{}");
  cellar_.make();
  cellar_.open();
  churn();
  EXPECT_TRUE(whole(image));
  EXPECT_EQ(stats().quarantined, 1u);
}

TEST_F(StorePinsTest, APinThatCannotBeWrittenIsNone) {
  const auto image = blobs(1);
  pull(cellar_, app, "1", image);
  {
    const NoGrowth full;
    EXPECT_THAT(failure_of([&] { pin("1"); }),
                testing::AnyOf(Errc::storage_full, Errc::storage_failed));
  }
  EXPECT_FALSE(store().pinned(app, "1"));
  EXPECT_EQ(stats().pins, 0u);
  pin("1");
  {
    const NoGrowth full;
    EXPECT_TRUE(failure_of([&] { cellar_.run(store().unpin(app, "1")); }).has_value());
  }
  EXPECT_TRUE(store().pinned(app, "1"));
  churn();
  EXPECT_TRUE(whole(image));
}

TEST_F(StorePinsTest, PinsSurviveTheLossOfTheIndex) {
  const auto by_tag = blobs(1);
  const auto by_digest = blobs(2, 1);
  pull(cellar_, app, "1", by_tag);
  const auto manifest = pull(cellar_, app, "", by_digest);
  pin("1");
  pin(manifest->digest.to_string());
  pin("later");
  cellar_.close();
  cellar_.restore_index({{"index.db", "this is no database"}});
  cellar_.make();
  cellar_.open();
  EXPECT_EQ(stats().pins, 3u);
  churn();
  EXPECT_TRUE(whole(by_tag));
  EXPECT_TRUE(whole(by_digest));
  EXPECT_TRUE(cellar_.on_disk(manifest->digest, ObjectKind::manifest));
}

TEST_F(StorePinsTest, PinsSurviveAStartAtWhichTheIndexCannotBeOpened) {
  const auto image = blobs(1);
  pull(cellar_, app, "1", image);
  pin("1");
  cellar_.close();
  std::filesystem::rename(cellar_.root() / "index.db", cellar_.root() / "away");
  {
    const NoGrowth full;
    cellar_.make();
    cellar_.open();
  }
  std::filesystem::rename(cellar_.root() / "away", cellar_.root() / "index.db");
  cellar_.pass(20s);
  churn();
  EXPECT_TRUE(whole(image));
  cellar_.restart();
  EXPECT_EQ(stats().pins, 1u);
}

TEST_F(StorePinsTest, AnIndexOlderThanAnUnpinDoesNotBringThePinBack) {
  pull(cellar_, app, "1", blobs(1));
  pin("1");
  const auto saved = cellar_.save_index();
  cellar_.run(store().unpin(app, "1"));
  cellar_.close();
  cellar_.restore_index(saved);
  cellar_.make();
  cellar_.open();
  EXPECT_EQ(stats().pins, 0u);
}

TEST_F(StorePinsTest, AFileOfPinsThatIsDamagedTakesNoPinAwayAndIsTold) {
  pull(cellar_, app, "1", blobs(1));
  pin("1");
  const auto saved = cellar_.save_index();
  const std::string good = fake::read_file(cellar_.layout().pins());
  SeededRandom random(3);
  for (int round = 0; round < 60; ++round) {
    std::string text = good;
    text[random.next() % text.size()] ^= static_cast<char>(1 << random.next() % 8);
    if (round == 0) text = std::string(2 * MiB, 'x');
    if (round == 1) text.clear();
    if (round == 2) text.resize(good.size() / 2);
    cellar_.close();
    fake::write_file(cellar_.layout().pins(), text);
    cellar_.restore_index(saved);
    cellar_.reports.clear();
    cellar_.make();
    cellar_.open();
    EXPECT_TRUE(store().pinned(app, "1"));
    EXPECT_THAT(cellar_.reports, Contains(StartsWith("pins not read")));
  }
}

TEST_F(StorePinsTest, APinWhoseNameCannotBeWrittenIsNone) {
  pull(cellar_, app, "1", blobs(1));
  for (const Call call :
       {Call::create, Call::write, Call::sync, Call::rename, Call::sync_directory}) {
    cellar_.disk.fail(call, EIO);
    EXPECT_EQ(failure_of([&] { pin("1"); }), Errc::storage_failed);
    EXPECT_EQ(stats().pins, 0u);
    cellar_.disk.heal();
  }
  pin("1");
  EXPECT_FALSE(std::filesystem::exists(cellar_.layout().new_pins()));
  cellar_.crash(Loss::everything);
  EXPECT_EQ(stats().pins, 1u);
}

TEST_F(StorePinsTest, AHostileImageIsNoPinAndEndsNoWalk) {
  Cellar large({.bytes = 100 * MiB});
  std::vector<ManifestPtr> children;
  for (int i = 0; i < 5; ++i) {
    std::string text = R"({"layers":[)";
    for (int j = 0; j < 6'000; ++j)
      text += (j > 0 ? "," : "") + descriptor_of(std::to_string(i * 10'000 + j));
    children.push_back(manifest_of(text + "]}"));
    bring(large, app, children.back());
  }
  const auto index = image_index(children);
  bring(large, app, index, "huge");
  const Image image = large.run(large.store->image(index->digest));
  EXPECT_TRUE(image.cut);
  EXPECT_EQ(image.parts.size(), most_image_parts);
  EXPECT_FALSE(image.complete);
  EXPECT_EQ(failure_of([&] { large.run(large.store->pin(app, "huge")); }), Errc::too_large);
  EXPECT_FALSE(large.store->pinned(app, "huge"));
  EXPECT_EQ(large.run(large.store->images()).size(), 1u);
}

TEST_F(StorePinsTest, SizesThatNobodyHasDoNotWrapRound) {
  const std::string huge = R"({"digest":")" + digest_of(std::string_view("x")).to_string() +
                           R"(","size":9223372036854775807})";
  const std::string more = R"({"digest":")" + digest_of(std::string_view("y")).to_string() +
                           R"(","size":9223372036854775807})";
  const auto manifest = manifest_of(R"({"layers":[)" + huge + "," + more + "," + more + "]}");
  bring(cellar_, app, manifest, "1");
  EXPECT_GE(cellar_.run(store().image(manifest->digest)).needed_bytes, std::uint64_t{1} << 60);
}

}  // namespace
}  // namespace staithe::cache
