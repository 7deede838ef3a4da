// Files that are not what they were: found by their hash, set aside, fetched again.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/cache/store_fixture.h"

namespace staithe::cache {
namespace {

using namespace std::chrono_literals;
using testing::Contains;
using testing::IsEmpty;
using testing::StartsWith;

struct Damage {
  const char* name;
  std::string (*make)(std::string bytes);
};

class StoreDamageTest : public StoreTest, public testing::WithParamInterface<Damage> {};

TEST_P(StoreDamageTest, IsFoundBeforeAResponseCanCompleteSetAsideAndFetchedAgain) {
  for (const bool index_lost : {false, true}) {
    SCOPED_TRACE(index_lost ? "index lost" : "index there");
    cellar_.fill(bytes_);
    cellar_.pass(1s);
    cellar_.close();
    const std::string damaged = GetParam().make(bytes_);
    cellar_.disk.damage(cellar_.path(digest_), damaged);
    if (index_lost) cellar_.restore_index({});
    cellar_.make();
    cellar_.open();
    std::optional<std::string> read;
    const auto failed = failure_of([&] { read = cellar_.read(digest_); });
    EXPECT_EQ(read, std::nullopt);
    if (failed) EXPECT_EQ(failed, Errc::storage_failed);
    cellar_.settle();
    EXPECT_EQ(stats().quarantined, 1u);
    EXPECT_EQ(cellar_.files_in(cellar_.layout().quarantine()), index_lost ? 2u : 1u);
    EXPECT_EQ(find(digest_), nullptr);
    EXPECT_FALSE(cellar_.on_disk(digest_));
    expect_figures_true();
    cellar_.fill(bytes_);
    EXPECT_EQ(cellar_.read(digest_), bytes_);
  }
}

INSTANTIATE_TEST_SUITE_P(
    Kinds, StoreDamageTest,
    testing::Values(Damage{"Empty", [](std::string) { return std::string(); }},
                    Damage{"Nul", [](std::string b) { return std::string(b.size(), '\0'); }},
                    Damage{"NulTail",
                           [](std::string b) {
                             return b.substr(0, b.size() - 4096) + std::string(4096, '\0');
                           }},
                    Damage{"Truncated", [](std::string b) { return b.substr(0, b.size() / 2); }},
                    Damage{"OneByteShort", [](std::string b) { return b.substr(0, b.size() - 1); }},
                    Damage{"OneByteMore", [](std::string b) { return b + "x"; }},
                    Damage{"BitFlippedAtTheEnd",
                           [](std::string b) {
                             b.back() ^= 1;
                             return b;
                           }},
                    Damage{"BitFlippedAtTheStart",
                           [](std::string b) {
                             b.front() ^= 128;
                             return b;
                           }},
                    Damage{"OfAnotherBlob", [](std::string b) { return noise(b.size(), 77); }}),
    [](const auto& info) { return std::string(info.param.name); });

TEST_F(StoreTest, ABitFlippedInAnyBlockIsFound) {
  for (std::size_t at = 0; at < bytes_.size(); at += 4096) {
    SCOPED_TRACE(at);
    cellar_.fill(bytes_);
    cellar_.restart();
    std::string damaged = bytes_;
    damaged[at] ^= 4;
    cellar_.disk.damage(cellar_.path(digest_), damaged);
    EXPECT_EQ(failure_of([&] { cellar_.read(digest_); }), Errc::storage_failed);
    cellar_.settle();
    EXPECT_FALSE(cellar_.on_disk(digest_));
  }
}

TEST_F(StoreTest, FilesThatChangedTheirNamesAreFound) {
  const std::string other = noise(bytes_.size(), 2);
  cellar_.fill(bytes_);
  const Digest other_digest = cellar_.fill(other);
  const Digest manifest = cellar_.put_manifest("{\"n\":1}");
  const Digest other_manifest = cellar_.put_manifest("{\"n\":2}");
  cellar_.restart();
  cellar_.disk.damage(cellar_.path(digest_), other);
  cellar_.disk.damage(cellar_.path(other_digest), bytes_);
  const auto kind = ObjectKind::manifest;
  const std::string record = fake::read_file(cellar_.path(manifest, kind));
  cellar_.disk.damage(cellar_.path(manifest, kind),
                      fake::read_file(cellar_.path(other_manifest, kind)));
  cellar_.disk.damage(cellar_.path(other_manifest, kind), record);
  for (const Digest& digest : {digest_, other_digest})
    EXPECT_EQ(failure_of([&] { cellar_.read(digest); }), Errc::storage_failed);
  for (const Digest& digest : {manifest, other_manifest})
    EXPECT_EQ(cellar_.manifest(digest), nullptr);
  cellar_.settle();
  EXPECT_EQ(stats().quarantined, 4u);
  cellar_.fill(bytes_);
  EXPECT_EQ(cellar_.read(digest_), bytes_);
  expect_figures_true();
}

TEST_F(StoreTest, AFileThatReturnedIsServedIfItIsGoodAndSetAsideIfNot) {
  struct Returned {
    const char* name;
    std::string bytes;
  };
  for (const auto& [name, returned] : {Returned{"good", bytes_}, Returned{"empty", ""},
                                       Returned{"NULs", std::string(bytes_.size(), '\0')},
                                       Returned{"truncated", bytes_.substr(0, 50'000)}}) {
    SCOPED_TRACE(name);
    cellar_.fill(bytes_);
    cellar_.fill(noise(MiB, 3));  // It has to go, and the index knows it.
    ASSERT_FALSE(cellar_.on_disk(digest_));
    // Smaller than what it evicts in turn, so that there is room for what returns.
    cellar_.fill(noise(500 * KiB, 4));
    cellar_.close();
    fake::write_file(cellar_.path(digest_), returned);
    cellar_.make();
    cellar_.open();
    std::optional<std::string> read;
    failure_of([&] { read = cellar_.read(digest_); });
    cellar_.settle();
    if (returned == bytes_) {
      EXPECT_TRUE(read == bytes_);
    } else {
      EXPECT_EQ(read, std::nullopt);
      EXPECT_EQ(stats().quarantined, 1u);
      EXPECT_FALSE(cellar_.on_disk(digest_));
    }
    expect_figures_true();
  }
}

TEST_F(StoreTest, AFileThatIsGoneIsAMissAndNoDamage) {
  cellar_.fill(bytes_);
  cellar_.restart();
  std::filesystem::remove(cellar_.path(digest_));
  EXPECT_EQ(find(digest_), nullptr);
  EXPECT_EQ(store().size_of_blob(digest_), std::nullopt);
  EXPECT_EQ(stats().quarantined, 0u);
  EXPECT_THAT(cellar_.reports, IsEmpty());
}

TEST_F(StoreTest, ALinkInTheNameOfABlobIsNotFollowedAndReplacedByARefill) {
  cellar_.fill(bytes_);
  cellar_.restart();
  const auto secret = cellar_.root().parent_path() / "secret";
  fake::write_file(secret, bytes_);
  std::filesystem::remove(cellar_.path(digest_));
  std::filesystem::create_symlink(secret, cellar_.path(digest_));
  EXPECT_EQ(find(digest_), nullptr);
  cellar_.fill(bytes_);
  EXPECT_FALSE(std::filesystem::is_symlink(cellar_.path(digest_)));
  EXPECT_EQ(cellar_.read(digest_), bytes_);
  EXPECT_EQ(fake::read_file(secret), bytes_);
}

TEST_F(StoreTest, AReadErrorEndsTheReadAndSetsTheFileAside) {
  cellar_.fill(bytes_);
  cellar_.restart();
  cellar_.disk.fail(Call::read, EIO);
  EXPECT_EQ(failure_of([&] { cellar_.read(digest_); }), Errc::storage_failed);
  cellar_.settle();
  EXPECT_EQ(find(digest_), nullptr);
  EXPECT_EQ(stats().quarantined, 1u);
  EXPECT_THAT(cellar_.reports, Contains(StartsWith("object set aside")));
}

TEST_F(StoreTest, OutOfDescriptorsIsAMissAndNoDamage) {
  cellar_.fill(bytes_);
  cellar_.put_manifest("{}");
  cellar_.restart();
  cellar_.disk.fail(Call::open, EMFILE, 2);
  EXPECT_EQ(find(digest_), nullptr);
  EXPECT_EQ(cellar_.manifest(digest_of("{}")), nullptr);
  EXPECT_EQ(stats().quarantined, 0u);
  EXPECT_EQ(cellar_.read(digest_), bytes_);
  EXPECT_NE(cellar_.manifest(digest_of("{}")), nullptr);
}

TEST_F(StoreTest, ARefillOfWhatCouldNotBeOpenedReplacesItAndKeepsItsLinks) {
  cellar_.fill(bytes_);
  store().link("r/app", digest_);
  cellar_.restart();
  cellar_.disk.fail(Call::open, EIO);
  EXPECT_EQ(find(digest_), nullptr);
  cellar_.fill(bytes_);
  EXPECT_EQ(cellar_.read(digest_), bytes_);
  EXPECT_TRUE(store().link_age("r/app", digest_));
  EXPECT_EQ(stats().blobs, 1u);
  expect_figures_true();
}

TEST_F(StoreTest, ARefillWaitsForTheDamagedFileToBeAside) {
  cellar_.fill(bytes_);
  cellar_.restart();
  cellar_.disk.damage(cellar_.path(digest_), noise(bytes_.size(), 5));
  const auto gate = cellar_.disk.hold(Call::rename);
  EXPECT_EQ(failure_of([&] { cellar_.read(digest_); }), Errc::storage_failed);
  cellar_.meet(gate);
  auto begin = cellar_.start(store().begin(digest_, bytes_.size()));
  gate->open();
  const auto writer = cellar_.wait(begin);
  cellar_.append(*writer, bytes_);
  cellar_.run(writer->commit());
  cellar_.settle();
  EXPECT_EQ(cellar_.read(digest_), bytes_);
  EXPECT_EQ(fake::read_file(cellar_.path(digest_)), bytes_);
  EXPECT_EQ(stats().quarantined, 1u);
}

TEST_F(StoreTest, OfDamagedFilesTheNewestEightAreKeptAndCounted) {
  const auto break_some = [&](int from, int count) {
    for (int i = from; i < from + count; ++i) cellar_.fill(noise(20 * KiB, 100 + i));
    cellar_.restart();
    for (int i = from; i < from + count; ++i) {
      const Digest digest = digest_of(noise(20 * KiB, 100 + i));
      cellar_.disk.damage(cellar_.path(digest), std::string(20 * KiB, 'x'));
      EXPECT_TRUE(failure_of([&] { cellar_.read(digest); }));
      cellar_.settle();
      cellar_.pass(1s);
    }
  };
  break_some(0, 6);
  EXPECT_EQ(cellar_.files_in(cellar_.layout().quarantine()), 6u);
  break_some(6, 6);
  EXPECT_EQ(cellar_.files_in(cellar_.layout().quarantine()), 8u);
  EXPECT_EQ(stats().bytes, 8 * 20 * KiB);
  cellar_.restart();
  EXPECT_EQ(stats().bytes, 8 * 20 * KiB);
  std::set<std::string> kept;
  for (const auto& entry : std::filesystem::directory_iterator(cellar_.layout().quarantine()))
    kept.insert(entry.path().extension().string().substr(1));
  for (int i = 0; i < 12; ++i)
    EXPECT_EQ(kept.contains(digest_of(noise(20 * KiB, 100 + i)).hex()), i >= 4) << i;
}

TEST_F(StoreTest, ADamagedFileWhoseSizeCannotBeAskedIsKeptAndCounted) {
  const Digest digest = cellar_.fill(bytes_);
  cellar_.restart();
  cellar_.disk.damage(cellar_.path(digest), std::string(bytes_.size(), '\0'));
  const auto gate = cellar_.disk.hold(Call::rename);
  EXPECT_EQ(failure_of([&] { cellar_.read(digest); }), Errc::storage_failed);
  cellar_.meet(gate);
  cellar_.disk.fail(Call::size, EIO);
  gate->open();
  cellar_.settle();
  EXPECT_EQ(cellar_.files_in(cellar_.layout().quarantine()), 1u);
  expect_figures_true();
}

TEST_F(StoreTest, ADamagedFileThatCannotBeRemovedStaysCountedUntilItCan) {
  const Digest digest = cellar_.fill(bytes_);
  cellar_.restart();
  cellar_.disk.damage(cellar_.path(digest), std::string(bytes_.size(), '\0'));
  EXPECT_EQ(failure_of([&] { cellar_.read(digest); }), Errc::storage_failed);
  cellar_.settle();
  const std::string all = noise(MiB, 3);
  cellar_.disk.fail(Call::remove, EIO);
  EXPECT_EQ(failure_of([&] { cellar_.fill(all); }), Errc::storage_full);
  expect_figures_true();
  cellar_.fill(all);
  EXPECT_EQ(cellar_.files_in(cellar_.layout().quarantine()), 0u);
  expect_figures_true();
}

TEST_F(StoreTest, DamagedFilesGoBeforeAnythingOfUse) {
  const auto ten = fill_ten();
  cellar_.restart();
  cellar_.disk.damage(cellar_.path(ten[9]), std::string(100 * KiB, 'x'));
  EXPECT_TRUE(failure_of([&] { cellar_.read(ten[9]); }));
  cellar_.settle();
  cellar_.fill(bytes_);
  EXPECT_EQ(cellar_.files_in(cellar_.layout().quarantine()), 0u);
  EXPECT_EQ(stats().evicted, 0u);
  EXPECT_EQ(stats().blobs, 10u);
  expect_figures_true();
}

}  // namespace
}  // namespace staithe::cache
