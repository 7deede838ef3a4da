#include "cache/store.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <limits>
#include <map>
#include <set>

#include "tests/cache/cellar.h"

namespace staithe::cache {
namespace {

using namespace std::chrono_literals;
using testing::Contains;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using testing::StartsWith;

constexpr std::uint64_t KiB = 1024;
constexpr std::uint64_t MiB = 1024 * KiB;

class StoreTest : public testing::Test {
 protected:
  Store& store() { return *cellar_.store; }
  Store::Stats stats() const { return cellar_.store->stats(); }
  std::shared_ptr<Blob> find(const Digest& digest) {
    return cellar_.run(cellar_.store->find(digest));
  }
  // What the figures say is what the disk holds.
  void expect_figures_true() {
    cellar_.settle();
    EXPECT_EQ(stats().bytes, cellar_.bytes_on_disk());
  }
  static mode_t mode_of(const std::filesystem::path& path) {
    struct stat status{};
    EXPECT_EQ(::lstat(path.c_str(), &status), 0) << path;
    return status.st_mode & 07777;
  }

  Cellar cellar_{{.bytes = MiB}};
  // A hundred KiB each, so that ten fill the cache; numbered in the order of use.
  std::vector<Digest> fill_ten() {
    std::vector<Digest> digests;
    for (int i = 0; i < 10; ++i) digests.push_back(cellar_.fill(noise(100 * KiB, 10 + i)));
    return digests;
  }
  std::vector<int> stored_of(const std::vector<Digest>& digests) const {
    std::vector<int> stored;
    for (std::size_t i = 0; i < digests.size(); ++i)
      if (cellar_.store->size_of_blob(digests[i])) stored.push_back(static_cast<int>(i));
    return stored;
  }

  const std::string bytes_ = noise(100 * KiB);
  const Digest digest_ = digest_of(bytes_);
};

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

// ---- damage ------------------------------------------------------------------------------------

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

// ---- room --------------------------------------------------------------------------------------

TEST_F(StoreTest, EvictsExactlyTheLeastRecentlyUsed) {
  const auto ten = fill_ten();
  for (const int used : {3, 0, 7}) EXPECT_TRUE(cellar_.read(ten[used]));
  cellar_.fill(noise(300 * KiB, 1));
  EXPECT_EQ(stored_of(ten), (std::vector<int>{0, 3, 5, 6, 7, 8, 9}));
  EXPECT_EQ(stats().evicted, 3u);
  for (const int gone : {1, 2, 4}) {
    EXPECT_FALSE(cellar_.on_disk(ten[gone]));
    EXPECT_EQ(find(ten[gone]), nullptr);
  }
  expect_figures_true();
}

TEST_F(StoreTest, TheOrderOfUseSurvivesARestartExactly) {
  const auto ten = fill_ten();
  for (const int used : {3, 0, 7}) EXPECT_TRUE(cellar_.read(ten[used]));
  cellar_.restart();
  EXPECT_TRUE(cellar_.read(ten[1]));
  cellar_.restart();
  cellar_.fill(noise(600 * KiB, 1));
  EXPECT_EQ(stored_of(ten), (std::vector<int>{0, 1, 3, 7}));
  cellar_.fill(noise(100 * KiB, 2));
  EXPECT_EQ(stored_of(ten), (std::vector<int>{0, 1, 7}));
}

TEST_F(StoreTest, TheOrderOfUseSurvivesAKillASecondLater) {
  const auto ten = fill_ten();
  for (const int used : {3, 0, 7}) EXPECT_TRUE(cellar_.read(ten[used]));
  cellar_.pass(1s);
  cellar_.crash(Loss::nothing);
  cellar_.fill(noise(700 * KiB, 1));
  EXPECT_EQ(stored_of(ten), (std::vector<int>{0, 3, 7}));
}

TEST_F(StoreTest, ABlobLargerThanTheCacheIsRefusedAndCostsNothing) {
  const auto ten = fill_ten();
  for (const std::uint64_t size :
       {MiB + 1, 10 * MiB, std::uint64_t{1} << 63, std::numeric_limits<std::uint64_t>::max(),
        std::numeric_limits<std::uint64_t>::max() - 4095}) {
    EXPECT_EQ(failure_of([&] { cellar_.run(store().begin(digest_, size)); }), Errc::storage_full)
        << size;
  }
  EXPECT_EQ(stored_of(ten).size(), 10u);
  EXPECT_EQ(stats().evicted, 0u);
  EXPECT_EQ(store().size_of_blob(digest_), std::nullopt);
  cellar_.fill(noise(MiB, 3));
  EXPECT_EQ(stats().bytes, MiB) << "one that fits exactly is taken";
}

TEST_F(StoreTest, NothingIsEvictedForWhatDoesNotFitAnyway) {
  for (int i = 0; i < 3; ++i) cellar_.fill(noise(100 * KiB, i));
  const auto large = cellar_.begin(noise(700 * KiB, 9));
  EXPECT_EQ(failure_of([&] { cellar_.begin(noise(400 * KiB, 8)); }), Errc::storage_full);
  EXPECT_EQ(stats().evicted, 0u);
  EXPECT_EQ(stats().blobs, 3u);
}

TEST_F(StoreTest, FillsAtOnceNeverTakeMoreThanTheBound) {
  fill_ten();
  cellar_.disk.take_peak_bytes();
  std::vector<Cellar::Running<std::unique_ptr<BlobWriter>>> begins;
  std::vector<std::string> bytes;
  for (int i = 0; i < 8; ++i) {
    bytes.push_back(noise(200 * KiB, 50 + i));
    begins.push_back(cellar_.start(store().begin(digest_of(bytes.back()), bytes.back().size())));
  }
  std::map<int, std::unique_ptr<BlobWriter>> writers;
  for (int i = 0; i < 8; ++i) {
    std::unique_ptr<BlobWriter> writer;
    const auto failed = failure_of([&] { writer = cellar_.wait(begins[i]); });
    if (failed) {
      EXPECT_EQ(failed, Errc::storage_full);
    } else {
      writers[i] = std::move(writer);
    }
  }
  EXPECT_EQ(writers.size(), 5u);
  for (std::size_t at = 0; at < 200 * KiB; at += 50 * KiB) {
    std::vector<Cellar::Running<void>> appends;
    for (auto& [i, writer] : writers)
      appends.push_back(
          cellar_.start(writer->append(std::span(std::as_const(bytes[i])).subspan(at, 50 * KiB))));
    for (auto& append : appends) cellar_.wait(append);
  }
  std::vector<Cellar::Running<void>> commits;
  for (auto& [i, writer] : writers) commits.push_back(cellar_.start(writer->commit()));
  for (auto& commit : commits) cellar_.wait(commit);
  for (auto& [i, writer] : writers) EXPECT_EQ(cellar_.read(digest_of(bytes[i])), bytes[i]);
  EXPECT_LE(cellar_.disk.take_peak_bytes(), MiB);
  writers.clear();
  expect_figures_true();
}

TEST_F(StoreTest, TwoWhoNeedRoomAtOnceEvictNoMoreThanNeeded) {
  const auto ten = fill_ten();
  const auto gate = cellar_.disk.hold(Call::remove);
  auto first = cellar_.start(store().begin(digest_of("first"), 100 * KiB));
  cellar_.meet(gate);
  auto second = cellar_.start(store().begin(digest_of("second"), 100 * KiB));
  gate->open();
  const auto one = cellar_.wait(first);
  const auto two = cellar_.wait(second);
  EXPECT_EQ(stored_of(ten), (std::vector<int>{2, 3, 4, 5, 6, 7, 8, 9}));
}

TEST_F(StoreTest, WhatSomebodyHasOpenIsNotEvicted) {
  const auto ten = fill_ten();
  cellar_.restart();
  const auto held = find(ten[0]);  // Found, and no reader yet.
  EXPECT_EQ(cellar_.run(read_blob(held)), noise(100 * KiB, 10));
  for (int i = 1; i < 10; ++i) EXPECT_TRUE(cellar_.read(ten[i]));
  cellar_.fill(noise(200 * KiB, 1));
  EXPECT_EQ(stored_of(ten), (std::vector<int>{0, 3, 4, 5, 6, 7, 8, 9}));
  EXPECT_EQ(failure_of([&] { cellar_.begin(noise(MiB, 5)); }), Errc::storage_full);
  EXPECT_EQ(cellar_.run(read_blob(held)), noise(100 * KiB, 10));
}

TEST_F(StoreTest, WhatIsBeingVerifiedIsNotEvicted) {
  const auto ten = fill_ten();
  cellar_.restart();
  const auto gate = cellar_.disk.hold(Call::read);
  find(ten[0]).reset();
  cellar_.meet(gate);
  for (int i = 1; i < 10; ++i) EXPECT_TRUE(cellar_.read(ten[i]));
  cellar_.fill(noise(100 * KiB, 1));
  EXPECT_EQ(stored_of(ten), (std::vector<int>{0, 2, 3, 4, 5, 6, 7, 8, 9}));
  gate->open();
  EXPECT_EQ(cellar_.read(ten[0]), noise(100 * KiB, 10));
}

TEST_F(StoreTest, WhatIsBeingRemovedIsAMissAndNoDamage) {
  const auto ten = fill_ten();
  cellar_.restart();
  const auto gate = cellar_.disk.hold(Call::remove);
  auto begin = cellar_.start(store().begin(digest_, 100 * KiB));
  cellar_.meet(gate);
  EXPECT_EQ(find(ten[0]), nullptr);
  gate->open();
  cellar_.wait(begin);
  EXPECT_EQ(stats().quarantined, 0u);
  EXPECT_EQ(stats().evicted, 1u);
}

TEST_F(StoreTest, EvictedWhileItIsBeingOpenedItIsAMissAndNoDamage) {
  for (const Call call : {Call::open, Call::size}) {
    const auto ten = fill_ten();
    cellar_.restart();
    const auto gate = cellar_.disk.hold(call);
    const auto opening = cellar_.start(store().find(ten[0]));
    cellar_.meet(gate);
    cellar_.fill(bytes_);
    gate->open();
    EXPECT_EQ(cellar_.wait(opening), nullptr);
    EXPECT_EQ(stats().quarantined, 0u);
    EXPECT_THAT(cellar_.reports, Not(Contains(StartsWith("object set aside"))));
    cellar_.fill(noise(MiB, 4));  // Empties it for the next round.
    cellar_.restart();
    expect_figures_true();
  }
}

TEST_F(StoreTest, WhatIsKeptOpenIsClosedBeforeItIsRemoved) {
  const auto ten = fill_ten();  // All are kept open for the next hit.
  const auto gate = cellar_.disk.hold(Call::remove);
  auto begin = cellar_.start(store().begin(digest_, 100 * KiB));
  cellar_.meet(gate);
  EXPECT_EQ(find(ten[0]), nullptr);
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
    std::error_code gone;
    EXPECT_NE(std::filesystem::read_symlink(entry.path(), gone), cellar_.path(ten[0]))
        << "its space would come back on the loop";
  }
  gate->open();
  cellar_.wait(begin);
}

TEST_F(StoreTest, WhatCannotBeRemovedStaysStored) {
  const auto ten = fill_ten();
  cellar_.disk.fail(Call::remove, EIO, 3);
  EXPECT_EQ(failure_of([&] { cellar_.begin(noise(300 * KiB, 1)); }), Errc::storage_failed);
  EXPECT_EQ(stored_of(ten).size(), 10u);
  for (int i = 0; i < 10; ++i) EXPECT_EQ(cellar_.read(ten[i]), noise(100 * KiB, 10 + i));
  EXPECT_EQ(stats().evicted, 0u);
  EXPECT_THAT(cellar_.reports, Contains(StartsWith("eviction failed")));
  cellar_.disk.fail(Call::remove, EIO, 1);
  cellar_.fill(noise(300 * KiB, 1));
  EXPECT_EQ(stored_of(ten), (std::vector<int>{3, 4, 5, 6, 7, 8, 9}))
      << "what could not be removed at first could then";
  expect_figures_true();
}

class StoreMinFreeTest : public StoreTest {
 protected:
  StoreMinFreeTest() {
    cellar_.close();
    cellar_.min_free = {.bytes = 200 * KiB};
    cellar_.make();
    cellar_.open();
  }
};

TEST_F(StoreMinFreeTest, WhatOthersTakeComesOutOfTheCache) {
  const auto ten = fill_ten();
  cellar_.disk.set_capacity(950 * KiB);
  cellar_.pass(10s);
  EXPECT_EQ(stored_of(ten), (std::vector<int>{3, 4, 5, 6, 7, 8, 9}));
  EXPECT_EQ(stats().max_bytes, 750 * KiB);
  cellar_.disk.set_capacity(100 * KiB);
  cellar_.pass(10s);
  EXPECT_EQ(stored_of(ten), (std::vector<int>{}));
  EXPECT_EQ(failure_of([&] { cellar_.begin("x"); }), Errc::storage_full);
  cellar_.disk.set_capacity(10 * MiB);
  EXPECT_EQ(failure_of([&] { cellar_.fill("x"); }), std::nullopt);
}

TEST_F(StoreMinFreeTest, AFillLeavesTheRestFree) {
  const auto ten = fill_ten();
  cellar_.disk.set_capacity(1100 * KiB);
  cellar_.fill(noise(100 * KiB, 1));
  EXPECT_EQ(stored_of(ten), (std::vector<int>{2, 3, 4, 5, 6, 7, 8, 9}));
}

TEST_F(StoreTest, AShareIsOfTheFileSystem) {
  Cellar cellar({.share = 0.5});
  EXPECT_EQ(cellar.store->stats().max_bytes, std::uint64_t{1} << 39);
}

// ---- manifests ---------------------------------------------------------------------------------

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
  gate->open();
  EXPECT_EQ(failure_of([&] { cellar_.wait(begin); }), Errc::storage_full) << "it was in time";
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
    cellar_.disk.fail(call, ENOSPC);
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

// ---- the index ---------------------------------------------------------------------------------

TEST_F(StoreTest, WithoutItsIndexEverythingIsFoundAgain) {
  cellar_.fill(bytes_);
  const Digest manifest = cellar_.put_manifest("{}");
  for (const char* state : {"gone", "garbage", "empty", "a directory"}) {
    SCOPED_TRACE(state);
    cellar_.close();
    cellar_.restore_index({});
    const auto index = cellar_.root() / "index.db";
    if (state == std::string("garbage")) fake::write_file(index, noise(10'000));
    if (state == std::string("empty")) fake::write_file(index, "");
    if (state == std::string("a directory")) std::filesystem::create_directories(index / "x");
    cellar_.make();
    cellar_.open();
    EXPECT_EQ(cellar_.read(digest_), bytes_);
    EXPECT_NE(cellar_.manifest(manifest), nullptr);
    expect_figures_true();
    cellar_.restart();
    EXPECT_EQ(cellar_.read(digest_), bytes_) << "and the new index holds";
    EXPECT_EQ(std::filesystem::exists(cellar_.root() / "index.db.set-aside"),
              state != std::string("gone") && state != std::string("empty"));
    std::filesystem::remove_all(cellar_.root() / "index.db.set-aside");
  }
}

TEST_F(StoreTest, AnOlderIndexLosesNoFile) {
  cellar_.fill("old");
  cellar_.pass(1s);
  const auto old = cellar_.save_index();
  const auto ten = fill_ten();
  cellar_.fill(noise(24 * KiB, 3));  // Now "old" is evicted.
  cellar_.close();
  cellar_.restore_index(old);
  cellar_.make();
  cellar_.open();
  EXPECT_EQ(stored_of(ten).size(), 10u);
  EXPECT_EQ(find(digest_of("old")), nullptr);
  EXPECT_EQ(stats().quarantined, 0u);
  expect_figures_true();
}

TEST_F(StoreTest, AnIndexThatCannotBeWrittenCatchesUpWhenItCan) {
  cellar_.fill(bytes_);
  store().link("r/app", digest_);
  store().put_tag("r/app", "v1", digest_);
  const Digest gone = cellar_.fill("gone");
  store().link("r/app", gone);
  cellar_.pass(1s);
  const Digest manifest = cellar_.put_manifest("{}");
  {
    const NoGrowth full;
    store().unlink("r/app", gone);
    store().drop_tag("r/app", "v1");
    store().put_tag("r/app", "v2", digest_);
    for (int i = 0; i < 30; ++i) cellar_.pass(1s);
  }
  EXPECT_EQ(
      std::ranges::count_if(cellar_.reports,
                            [](const auto& line) { return line.starts_with("index not written"); }),
      1)
      << "told once per outage";
  cellar_.pass(10s);
  cellar_.crash(Loss::nothing);
  EXPECT_THAT(cellar_.reports, Not(Contains(StartsWith("reconciled")))) << "it knew everything";
  EXPECT_TRUE(store().has_manifest(manifest));
  EXPECT_TRUE(store().link_age("r/app", digest_));
  EXPECT_FALSE(store().link_age("r/app", gone));
  EXPECT_FALSE(store().tag("r/app", "v1"));
  EXPECT_TRUE(store().tag("r/app", "v2"));
}

TEST_F(StoreTest, AStartWithoutAnyIndexServesAndMakesOneLater) {
  cellar_.fill(bytes_);
  cellar_.close();
  cellar_.restore_index({});
  cellar_.make();
  {
    const NoGrowth full;
    cellar_.open();
    EXPECT_EQ(cellar_.read(digest_), bytes_);
    cellar_.pass(1s);
  }
  EXPECT_THAT(cellar_.reports, Contains(StartsWith("index set aside")));
  cellar_.reports.clear();
  cellar_.pass(10s);
  cellar_.crash(Loss::nothing);
  EXPECT_THAT(cellar_.reports, IsEmpty());
  EXPECT_EQ(cellar_.read(digest_), bytes_);
}

TEST_F(StoreTest, StoppedItsIndexSaysWhatItsDiskHolds) {
  const auto ten = fill_ten();
  cellar_.put_manifest("{}");
  store().put_manifest(manifest_of("[]"));  // Not stored yet when it stops.
  cellar_.close();
  std::map<Digest, std::uint64_t> rows;
  for (const ObjectRow& row : Index(cellar_.root()).load().objects)
    rows[row.digest] = row.size_bytes;
  std::map<Digest, std::uint64_t> files;
  for (const char* kind : {"blobs", "manifests"})
    for (const auto& entry : std::filesystem::recursive_directory_iterator(cellar_.root() / kind))
      if (entry.is_regular_file())
        files.emplace(*Digest::parse("sha256:" + entry.path().filename().string()),
                      entry.file_size());
  EXPECT_EQ(rows, files);
}

// ---- index and disk are compared ---------------------------------------------------------------

class StoreReconcileTest : public StoreTest {
 protected:
  // A blob in a directory that is not the last of those listed in one step.
  static std::string early_blob(std::size_t size) {
    for (std::uint64_t seed = 1;; ++seed) {
      const std::string bytes = noise(size, seed);
      if (digest_of(bytes).hex()[1] < 'e' && digest_of(bytes).hex()[0] == '0') return bytes;
    }
  }
  // Starts; the comparison stands still after `early` was listed.
  void open_and_hold() {
    cellar_.make();
    gate_ = cellar_.disk.hold(Call::list, 2 + 15);  // partial/, quarantine/, 00 to 0e
    cellar_.run(store().open());
    cellar_.poll();
    cellar_.meet(gate_);
  }
  void let_go() {
    gate_->open();
    cellar_.run_until([this] { return store().reconciled(); });
  }
  std::shared_ptr<fake::Gate> gate_;
  const std::string early_ = early_blob(300 * KiB);
};

TEST_F(StoreReconcileTest, WhatIsEvictedMeanwhileDoesNotComeBack) {
  const Digest digest = cellar_.fill(early_);
  cellar_.close();
  open_and_hold();
  cellar_.fill(noise(900 * KiB, 1));
  EXPECT_FALSE(cellar_.on_disk(digest));
  let_go();
  EXPECT_EQ(store().size_of_blob(digest), std::nullopt);
  expect_figures_true();
}

TEST_F(StoreReconcileTest, WhatIsSetAsideMeanwhileDoesNotComeBack) {
  const Digest digest = cellar_.fill(early_);
  cellar_.close();
  cellar_.disk.damage(cellar_.path(digest), noise(early_.size(), 5));
  open_and_hold();
  EXPECT_EQ(failure_of([&] { cellar_.read(digest); }), Errc::storage_failed);
  cellar_.run_until([&] { return !cellar_.on_disk(digest); });
  let_go();
  EXPECT_EQ(store().size_of_blob(digest), std::nullopt);
  expect_figures_true();
}

TEST_F(StoreReconcileTest, WhatIsStoredMeanwhileStays) {
  cellar_.close();
  open_and_hold();
  const Digest digest = cellar_.fill(early_);
  const Digest other = cellar_.fill(bytes_);
  store().link("r/app", digest);
  let_go();
  EXPECT_EQ(cellar_.read(digest), early_);
  EXPECT_EQ(cellar_.read(other), bytes_);
  EXPECT_TRUE(store().link_age("r/app", digest));
  EXPECT_EQ(stats().blobs, 2u);
  expect_figures_true();
}

TEST_F(StoreReconcileTest, WhatFailsToBeStoredMeanwhileIsNotFound) {
  cellar_.close();
  open_and_hold();
  const Digest digest = digest_of(early_);
  const auto writer = cellar_.begin(early_);
  cellar_.append(*writer, early_);
  cellar_.disk.fail(Call::rename, EIO);
  EXPECT_TRUE(failure_of([&] { cellar_.run(writer->commit()); }));
  let_go();
  EXPECT_EQ(store().size_of_blob(digest), std::nullopt);
}

TEST_F(StoreReconcileTest, IsGivenUpAtAStop) {
  cellar_.fill(early_);
  cellar_.close();
  open_and_hold();
  const auto close = cellar_.start(store().close());
  EXPECT_FALSE(close.done());
  gate_->open();
  cellar_.wait(close);
  cellar_.store.reset();
  cellar_.make();
  cellar_.open();
  EXPECT_EQ(cellar_.read(digest_of(early_)), early_);
}

TEST_F(StoreReconcileTest, WhatCannotBeListedIsNotTakenForGone) {
  cellar_.fill(bytes_);
  cellar_.fill(early_);
  cellar_.close();
  cellar_.make();
  cellar_.run(store().open());
  cellar_.disk.fail(Call::list, EIO, 300);
  cellar_.run_until([this] { return store().reconciled(); });
  EXPECT_EQ(stats().blobs, 2u);
  EXPECT_THAT(cellar_.reports, Contains(StartsWith("not reconciled")));
  EXPECT_EQ(cellar_.read(digest_), bytes_);
  cellar_.disk.heal();
}

TEST_F(StoreReconcileTest, OfTwoFilesOfOneDigestTheOneInTheIndexStays) {
  const Digest blob = cellar_.fill("{}");
  const Digest manifest = cellar_.put_manifest("[]");
  cellar_.close();
  const Layout layout = cellar_.layout();
  std::filesystem::create_directories(layout.directory(ObjectKind::manifest, blob));
  fake::write_file(cellar_.path(blob, ObjectKind::manifest), to_record(*manifest_of("{}")));
  std::filesystem::create_directories(layout.directory(ObjectKind::blob, manifest));
  fake::write_file(cellar_.path(manifest), "[]");
  cellar_.make();
  cellar_.open();
  EXPECT_EQ(cellar_.read(blob), "{}");
  EXPECT_NE(cellar_.manifest(manifest), nullptr);
  EXPECT_FALSE(cellar_.on_disk(blob, ObjectKind::manifest));
  EXPECT_FALSE(cellar_.on_disk(manifest));
  expect_figures_true();
}

TEST_F(StoreReconcileTest, TheDiskKnowsBetterThanTheIndexOfWhichKindAnObjectIs) {
  const Digest digest = cellar_.fill("{}");
  cellar_.close();
  {
    Index index(cellar_.root());
    index.apply({ObjectRow{digest, ObjectKind::manifest, 2, 5, 5}});
  }
  cellar_.make();
  cellar_.open();
  EXPECT_EQ(cellar_.read(digest), "{}");
  EXPECT_FALSE(store().has_manifest(digest));
  expect_figures_true();
}

TEST_F(StoreReconcileTest, AnIndexWithAnotherSizeTakesNothingFromAGoodFile) {
  const Digest digest = cellar_.fill(bytes_);
  const Digest manifest = cellar_.put_manifest("{}");
  cellar_.close();
  {
    Index index(cellar_.root());
    index.apply({ObjectRow{digest, ObjectKind::blob, 7, 5, 5},
                 ObjectRow{manifest, ObjectKind::manifest, 7, 6, 6}, LinkRow{"r/app", digest, 5}});
  }
  cellar_.make();
  cellar_.open();
  EXPECT_EQ(store().size_of_blob(digest), bytes_.size());
  EXPECT_EQ(cellar_.read(digest), bytes_);
  EXPECT_NE(cellar_.manifest(manifest), nullptr);
  EXPECT_TRUE(store().link_age("r/app", digest));
  EXPECT_EQ(stats().quarantined, 0u);
  expect_figures_true();
}

TEST_F(StoreReconcileTest, MoreThanTheBoundIsTakenBackAtOnce) {
  fill_ten();
  cellar_.close();
  for (int i = 0; i < 10; ++i) {
    const std::string bytes = noise(100 * KiB, 300 + i);
    const auto directory = cellar_.layout().directory(ObjectKind::blob, digest_of(bytes));
    std::filesystem::create_directories(directory);
    fake::write_file(cellar_.path(digest_of(bytes)), bytes);
  }
  cellar_.make();
  cellar_.open();
  EXPECT_LE(cellar_.bytes_on_disk(), MiB);
  EXPECT_EQ(stats().blobs, 10u);
  expect_figures_true();
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
