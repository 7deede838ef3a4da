// The store's directory, its hits, its links and tags, and its end.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <limits>
#include <map>
#include <set>

#include "tests/cache/store_fixture.h"

namespace staithe::cache {
namespace {

using namespace std::chrono_literals;
using testing::Contains;
using testing::StartsWith;

// ---- the directory -----------------------------------------------------------------------------

class StoreDirectoryTest : public testing::Test {
 protected:
  std::optional<Errc> open() {
    cellar_.make();
    const auto code = failure_of([&] { cellar_.run(cellar_.store->open()); });
    cellar_.close();
    return code;
  }
  Cellar cellar_{Cellar::Unopened(), {.bytes = MiB}};
};

TEST_F(StoreDirectoryTest, IsMadePrivate) {
  const mode_t old = ::umask(0);
  cellar_.make();
  cellar_.open();
  cellar_.fill("a blob");
  cellar_.put_manifest("{}");
  cellar_.pass(1s);
  ::umask(old);
  for (const auto& entry : std::filesystem::recursive_directory_iterator(cellar_.root())) {
    struct stat status{};
    ASSERT_EQ(::lstat(entry.path().c_str(), &status), 0);
    EXPECT_EQ(status.st_mode & 07777, entry.is_directory() ? 0700u : 0600u) << entry.path();
  }
  struct stat status{};
  ASSERT_EQ(::lstat(cellar_.root().c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 07777, 0700u);
}

TEST_F(StoreDirectoryTest, IsRefusedIfOthersMayWriteToIt) {
  std::filesystem::create_directory(cellar_.root());
  for (const unsigned mode : {0770u, 0702u, 0777u, 01777u}) {
    ASSERT_EQ(::chmod(cellar_.root().c_str(), mode), 0);
    EXPECT_EQ(open(), Errc::storage_failed) << mode;
  }
  ASSERT_EQ(::chmod(cellar_.root().c_str(), 0750), 0);
  EXPECT_EQ(open(), std::nullopt);
}

TEST_F(StoreDirectoryTest, IsRefusedIfItIsSomebodyElses) {
  if (::geteuid() != 0) GTEST_SKIP() << "only root can give a directory away";
  std::filesystem::create_directory(cellar_.root());
  ASSERT_EQ(::chown(cellar_.root().c_str(), 65534, 65534), 0);
  EXPECT_EQ(open(), Errc::storage_failed);
}

TEST_F(StoreDirectoryTest, IsRefusedIfItIsALinkOrAFile) {
  const auto target = cellar_.root().parent_path() / "elsewhere";
  std::filesystem::create_directory(target);
  std::filesystem::create_directory_symlink(target, cellar_.root());
  if (::geteuid() == 0) EXPECT_EQ(open(), Errc::storage_failed) << "links are followed nowhere";
  EXPECT_TRUE(std::filesystem::is_empty(target));
  std::filesystem::remove_all(target);
  EXPECT_EQ(open(), Errc::storage_failed) << "a link to nothing";
  std::filesystem::remove(cellar_.root());
  fake::write_file(cellar_.root(), "a file");
  EXPECT_EQ(open(), Errc::storage_failed);
}

TEST_F(StoreDirectoryTest, MayBeTheLinkOfRootsThatSystemdMakesForADynamicUser) {
  if (::geteuid() != 0) GTEST_SKIP() << "only root can play two users";
  const auto target = cellar_.root().parent_path() / "private";
  std::filesystem::create_directory(target);
  ASSERT_EQ(::chown(target.c_str(), 65534, 65534), 0);
  ASSERT_EQ(::chmod(cellar_.root().parent_path().c_str(), 0755), 0);
  std::filesystem::create_directory_symlink(target, cellar_.root());
  ASSERT_EQ(::seteuid(65534), 0);
  const auto code = open();
  ASSERT_EQ(::seteuid(0), 0);
  EXPECT_EQ(code, std::nullopt);
  EXPECT_TRUE(std::filesystem::exists(target / "lock"));
}

TEST_F(StoreTest, ASecondInstanceIsRefusedAndTouchesNothing) {
  const auto writer = cellar_.begin(bytes_);
  const auto index = cellar_.save_index();
  Store second(cellar_.io.get_executor(), {.directory = cellar_.root()}, cellar_.disk,
               cellar_.clock, [](std::string_view, std::string_view) {});
  EXPECT_EQ(failure_of([&] { cellar_.run(second.open()); }), Errc::in_use);
  cellar_.run(second.close());
  EXPECT_EQ(cellar_.files_in(cellar_.layout().partial()), 1u);
  EXPECT_EQ(cellar_.save_index(), index);
  cellar_.append(*writer, bytes_);
  cellar_.run(writer->commit());
}

TEST_F(StoreTest, AStartSweepsWhatWasBeingWritten) {
  cellar_.close();
  fake::write_file(cellar_.layout().partial() / "leftover", "half of something");
  fake::write_file(cellar_.layout().partial(digest_, 7), "half of something");
  cellar_.make();
  cellar_.open();
  EXPECT_EQ(cellar_.files_in(cellar_.layout().partial()), 0u);
}

TEST_F(StoreTest, AStartTakesTheCacheAsItIs) {
  cellar_.fill(bytes_);
  cellar_.close();
  const auto elsewhere = cellar_.root().parent_path() / "elsewhere";
  std::filesystem::create_directory(elsewhere);
  fake::write_file(elsewhere / "precious", "not ours to sweep");
  const Layout layout = cellar_.layout();
  std::filesystem::remove_all(layout.partial());
  std::filesystem::create_directory_symlink(elsewhere, layout.partial());
  std::filesystem::remove_all(layout.quarantine());
  fake::write_file(layout.quarantine(), "a file");
  std::filesystem::remove_all(layout.kind(ObjectKind::manifest));
  fake::write_file(layout.kind(ObjectKind::manifest), "a file");
  fake::write_file(layout.algorithm(ObjectKind::blob, "sha256") / "README", "?");
  fake::write_file(layout.directory(ObjectKind::blob, digest_) / "not-a-digest", "?");
  std::filesystem::create_directory(layout.directory(ObjectKind::blob, digest_) /
                                    digest_of("a directory").hex());
  fake::write_file(cellar_.root() / "stranger", "?");
  cellar_.make();
  cellar_.open();
  EXPECT_EQ(fake::read_file(elsewhere / "precious"), "not ours to sweep");
  EXPECT_TRUE(std::filesystem::is_directory(std::filesystem::symlink_status(layout.partial())));
  EXPECT_EQ(cellar_.read(digest_), bytes_);
  EXPECT_EQ(stats().blobs, 1u);
  cellar_.fill("another");
  cellar_.put_manifest("{}");
  EXPECT_EQ(stats().manifests, 1u);
}

TEST_F(StoreTest, AFileInTheDirectoryOfAnotherDigestIsNobodysFile) {
  cellar_.fill(bytes_);
  cellar_.close();
  const Digest stray = digest_of("stray");
  ASSERT_NE(stray.hex().substr(0, 2), digest_.hex().substr(0, 2));
  fake::write_file(cellar_.layout().directory(ObjectKind::blob, digest_) / stray.hex(), "stray");
  cellar_.make();
  cellar_.open();
  EXPECT_EQ(stats().blobs, 1u);
  EXPECT_EQ(store().size_of_blob(stray), std::nullopt);
}

TEST_F(StoreTest, AStartOnAFullDiskServesWhatIsThere) {
  cellar_.fill(bytes_);
  cellar_.close();
  std::filesystem::remove_all(cellar_.layout().quarantine());
  fake::write_file(cellar_.layout().partial() / "leftover", "half of something");
  for (const Call call : {Call::make_directory, Call::remove, Call::sync_directory, Call::create})
    cellar_.disk.fail(call, ENOSPC, 1000);
  cellar_.make();
  cellar_.open();
  EXPECT_THAT(cellar_.reports, Contains(StartsWith("cache directory")));
  EXPECT_EQ(cellar_.read(digest_), bytes_);
  EXPECT_EQ(failure_of([&] { cellar_.fill("more"); }), Errc::storage_full);
  cellar_.disk.heal();
  EXPECT_EQ(failure_of([&] { cellar_.fill("more"); }), std::nullopt);
}

// ---- read-only ---------------------------------------------------------------------------------

TEST_F(StoreTest, OnADiskThatTurnedReadOnlyHitsGoOnAndNothingIsForgotten) {
  std::vector<Digest> digests;
  for (int i = 0; i < 10; ++i) digests.push_back(cellar_.fill(noise(100 * KiB, i)));
  cellar_.restart();
  cellar_.disk.turn_read_only();
  for (int i = 0; i < 20; ++i)
    EXPECT_EQ(failure_of([&] { cellar_.fill(noise(100 * KiB, 100 + i)); }), Errc::storage_failed);
  for (int i = 0; i < 10; ++i) EXPECT_EQ(cellar_.read(digests[i]), noise(100 * KiB, i));
  EXPECT_EQ(stats().blobs, 10u);
  EXPECT_EQ(stats().evicted, 0u);
  EXPECT_THAT(cellar_.reports, testing::ElementsAre(StartsWith("cache mode: read-only")))
      << "once per outage";
  EXPECT_EQ(stats().mode, Store::Mode::read_only);
  cellar_.disk.heal();
  cellar_.pass(10s);
  EXPECT_EQ(failure_of([&] { cellar_.fill(noise(100 * KiB, 50)); }), std::nullopt);
  expect_figures_true();
}

// ---- hits --------------------------------------------------------------------------------------

TEST_F(StoreTest, WhatNobodyStoredIsNotFound) {
  EXPECT_EQ(find(digest_), nullptr);
  EXPECT_EQ(store().size_of_blob(digest_), std::nullopt);
  EXPECT_EQ(cellar_.manifest(digest_), nullptr);
  EXPECT_FALSE(store().has_manifest(digest_));
}

TEST_F(StoreTest, AStoredBlobIsReadAsOftenAsOneLikesAndAcrossStarts) {
  for (const std::string& bytes : {std::string("x"), std::string(4096, 'x'), bytes_}) {
    const Digest digest = cellar_.fill(bytes);
    for (int i = 0; i < 3; ++i) {
      EXPECT_EQ(cellar_.read(digest), bytes);
      EXPECT_EQ(cellar_.read(digest), bytes);
      EXPECT_EQ(store().size_of_blob(digest), bytes.size());
      cellar_.restart();
    }
  }
  expect_figures_true();
}

TEST_F(StoreTest, ABlobIsVerifiedOnceAfterAStartAndOpenedOnceForManyHits) {
  cellar_.fill(bytes_);
  cellar_.restart();
  const std::uint64_t reads = cellar_.disk.calls(Call::read);
  const std::uint64_t opens = cellar_.disk.calls(Call::open);
  for (int i = 0; i < 5; ++i) EXPECT_EQ(cellar_.read(digest_), bytes_);
  EXPECT_EQ(cellar_.disk.calls(Call::read), reads + 1);
  EXPECT_EQ(cellar_.disk.calls(Call::open), opens + 1);
}

TEST_F(StoreTest, TheEndIsHeldBackUntilTheFirstReadWasVerified) {
  const std::string large = noise(900 * KiB);
  const Digest digest = cellar_.fill(large);
  cellar_.restart();
  const auto gate = cellar_.disk.hold(Call::read);
  const auto blob = find(digest);
  cellar_.meet(gate);
  EXPECT_EQ(blob->size_bytes(), large.size());
  EXPECT_FALSE(blob->whole());
  EXPECT_LT(blob->ready_bytes(), large.size());
  gate->open();
  EXPECT_EQ(cellar_.run(read_blob(blob)), large);
}

TEST_F(StoreTest, TwoWhoOpenAtOnceShareOneBlobAndOneVerification) {
  cellar_.fill(bytes_);
  cellar_.restart();
  const std::uint64_t reads = cellar_.disk.calls(Call::read);
  const auto gate = cellar_.disk.hold(Call::open);
  const auto first = cellar_.start(store().find(digest_));
  cellar_.meet(gate);
  const auto second = cellar_.wait(cellar_.start(store().find(digest_)));
  gate->open();
  EXPECT_EQ(cellar_.wait(first), second);
  EXPECT_EQ(cellar_.run(read_blob(second)), bytes_);
  EXPECT_EQ(cellar_.disk.calls(Call::read), reads + 1);
}

TEST_F(StoreTest, KeepsABoundedNumberOfFilesOpen) {
  const auto open_files = [] {
    return std::ranges::distance(std::filesystem::directory_iterator("/proc/self/fd"));
  };
  const auto before = open_files();
  std::vector<Digest> digests;
  for (int i = 0; i < 256; ++i) digests.push_back(cellar_.fill(std::to_string(i)));
  for (int i = 0; i < 256; ++i) EXPECT_EQ(cellar_.read(digests[i]), std::to_string(i));
  EXPECT_LE(open_files(), before + 256 + 10);
}

// ---- links and tags ----------------------------------------------------------------------------

TEST_F(StoreTest, LinksAndTagsAgeAndSurviveARestart) {
  cellar_.fill(bytes_);
  store().link("r/app", digest_);
  store().link("r/gone", digest_);
  store().put_tag("r/app", "v1", digest_);
  store().put_tag("r/app", "v2", digest_);
  cellar_.pass(30s);
  EXPECT_EQ(store().link_age("r/app", digest_), 30s);
  store().unlink("r/gone", digest_);
  store().drop_tag("r/app", "v2");
  cellar_.restart();
  EXPECT_EQ(store().link_age("r/app", digest_), 30s);
  EXPECT_EQ(store().link_age("r/gone", digest_), std::nullopt);
  EXPECT_EQ(store().link_age("r/other", digest_), std::nullopt);
  ASSERT_TRUE(store().tag("r/app", "v1"));
  EXPECT_EQ(store().tag("r/app", "v1")->digest, digest_);
  EXPECT_EQ(store().tag("r/app", "v1")->age, 30s);
  EXPECT_FALSE(store().tag("r/app", "v2"));
  store().link("r/app", digest_);
  EXPECT_EQ(store().link_age("r/app", digest_), 0s);
}

TEST_F(StoreTest, LinksGoWithWhatIsEvicted) {
  cellar_.fill(bytes_);
  store().link("r/app", digest_);
  cellar_.fill(noise(MiB, 5));
  cellar_.fill(bytes_);
  EXPECT_EQ(store().link_age("r/app", digest_), std::nullopt);
  cellar_.restart();
  EXPECT_EQ(store().link_age("r/app", digest_), std::nullopt);
}

TEST_F(StoreTest, AClockSetBackMakesNoRightFresh) {
  cellar_.fill(bytes_);
  store().link("r/app", digest_);
  store().put_tag("r/app", "v1", digest_);
  cellar_.clock.jump_wall(-60s);
  EXPECT_EQ(store().link_age("r/app", digest_), 0s) << "a small correction";
  cellar_.clock.jump_wall(-24h);
  EXPECT_EQ(store().link_age("r/app", digest_), std::nullopt);
  EXPECT_FALSE(store().tag("r/app", "v1"));
}

// ---- the end -----------------------------------------------------------------------------------

TEST_F(StoreTest, AStopDuringAVerificationEndsItsReaders) {
  cellar_.fill(noise(900 * KiB, 1));
  cellar_.restart();
  const auto gate = cellar_.disk.hold(Call::size);
  auto opening = cellar_.start(store().find(digest_of(noise(900 * KiB, 1))));
  cellar_.meet(gate);
  const auto reading = cellar_.disk.hold(Call::read);
  gate->open();
  auto reader = cellar_.start(read_blob(cellar_.wait(opening)));
  opening = {};
  cellar_.meet(reading);
  const auto close = cellar_.start(store().close());
  reading->open();
  cellar_.wait(close);
  std::optional<std::string> bytes;
  const auto failed = failure_of([&] { bytes = cellar_.wait(reader); });
  EXPECT_TRUE(failed == Errc::cancelled || bytes == noise(900 * KiB, 1));
  reader = {};
  cellar_.store.reset();
}

TEST_F(StoreTest, AfterAStopNothingNewBegins) {
  cellar_.fill(bytes_);
  cellar_.restart();
  auto opening = cellar_.start(store().find(digest_));
  cellar_.run(store().close());
  const auto blob = cellar_.wait(opening);
  ASSERT_NE(blob, nullptr);
  EXPECT_TRUE(blob->whole() || blob->error()->code == Errc::cancelled) << "nobody would verify it";
  store().put_manifest(manifest_of("{}"));
  EXPECT_FALSE(store().has_manifest(digest_of("{}")));
  cellar_.store.reset();
}

}  // namespace
}  // namespace staithe::cache
