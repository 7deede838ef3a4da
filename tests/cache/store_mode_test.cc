// What the store can do at the moment, says of itself, and how it finds back.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/cache/store_fixture.h"

namespace staithe::cache {
namespace {

using namespace std::chrono_literals;
using testing::Contains;
using testing::HasSubstr;
using testing::StartsWith;

// How often the store looks around.
constexpr auto look = 10s;

class StoreModeTest : public testing::Test {
 protected:
  Store& store() { return *cellar_.store; }
  Store::Stats stats() { return store().stats(); }
  static std::string bytes_of(int number) { return noise(100 * KiB, 100 + number); }
  std::optional<Errc> fill(int number) {
    return failure_of([&] { cellar_.fill(bytes_of(number)); });
  }
  std::size_t changes() const {
    return static_cast<std::size_t>(std::ranges::count_if(
        cellar_.reports, [](const auto& line) { return line.starts_with("cache mode"); }));
  }
  void expect_good() {
    EXPECT_EQ(stats().mode, Store::Mode::read_write);
    EXPECT_EQ(stats().mode_reason, "");
    EXPECT_EQ(fill(99), std::nullopt);
    EXPECT_TRUE(cellar_.read(digest_of(bytes_of(99))) == bytes_of(99));
    cellar_.settle();
    EXPECT_EQ(stats().bytes, cellar_.bytes_on_disk());
  }
  std::filesystem::path elsewhere() const { return cellar_.root().parent_path() / "elsewhere"; }

  Cellar cellar_{{.bytes = MiB}};
  const std::string bytes_ = noise(100 * KiB);
  const Digest digest_ = cellar_.fill(bytes_);
};

TEST_F(StoreModeTest, OneFailureOrTwoCostTheirOwnFilesOnly) {
  for (const Call call : {Call::create, Call::write, Call::sync, Call::rename}) {
    cellar_.disk.fail(call, EIO, 2);
    EXPECT_EQ(fill(1), Errc::storage_failed);
    EXPECT_EQ(fill(2), Errc::storage_failed);
    EXPECT_EQ(stats().mode, Store::Mode::read_write);
    EXPECT_EQ(fill(3 + static_cast<int>(call)), std::nullopt);
  }
  EXPECT_EQ(changes(), 0u);
}

class StoreFailingCallTest : public StoreModeTest, public testing::WithParamInterface<Call> {};

TEST_P(StoreFailingCallTest, AgainAndAgainSwitchesWritingOffUntilItWorks) {
  cellar_.disk.fail(GetParam(), EIO, 1000);
  for (int i = 0; i < 3; ++i) EXPECT_EQ(fill(i), Errc::storage_failed);
  EXPECT_EQ(stats().mode, Store::Mode::pass_through);
  EXPECT_THAT(stats().mode_reason, HasSubstr("Input/output error"));
  const auto creates = cellar_.disk.calls(Call::create);
  for (int i = 0; i < 10; ++i) EXPECT_EQ(fill(i), Errc::storage_failed);
  cellar_.put_manifest("{}");
  EXPECT_EQ(cellar_.disk.calls(Call::create), creates) << "nothing more is tried";
  EXPECT_NE(cellar_.manifest(digest_of("{}")), nullptr) << "from memory";
  EXPECT_TRUE(cellar_.read(digest_) == bytes_);
  cellar_.pass(look);
  EXPECT_EQ(stats().mode, Store::Mode::pass_through) << "it looked, and it is as bad as it was";
  EXPECT_EQ(changes(), 1u) << "told once";
  EXPECT_EQ(cellar_.files_in(cellar_.layout().partial()), 0u);
  cellar_.disk.heal();
  cellar_.pass(look);
  expect_good();
  EXPECT_EQ(changes(), 2u);
  EXPECT_EQ(cellar_.files_in(cellar_.layout().partial()), 0u);
}

INSTANTIATE_TEST_SUITE_P(Calls, StoreFailingCallTest,
                         testing::Values(Call::create, Call::write, Call::sync),
                         [](const auto& info) {
                           return info.param == Call::create  ? "Create"
                                  : info.param == Call::write ? "Write"
                                                              : "Sync";
                         });

TEST_F(StoreModeTest, ProbingNeedsNoRoomOfAFullCache) {
  for (int i = 0; i < 9; ++i) fill(i);
  cellar_.fill(noise(24 * KiB, 50));
  ASSERT_EQ(stats().bytes, MiB);
  cellar_.disk.fail(Call::sync, EIO, 1000);
  // The first of them evicts.
  for (int i = 0; i < 3; ++i) failure_of([&] { cellar_.fill(noise(4 * KiB, 60 + i)); });
  EXPECT_EQ(stats().mode, Store::Mode::pass_through);
  cellar_.disk.heal();
  cellar_.disk.take_peak_bytes();
  cellar_.pass(look);
  EXPECT_EQ(stats().mode, Store::Mode::read_write);
  EXPECT_LE(cellar_.disk.take_peak_bytes(), MiB);
}

TEST_F(StoreModeTest, AReadOnlyFileSystemIsSeenWithoutAnyWrite) {
  cellar_.disk.turn_read_only();
  cellar_.pass(look);
  EXPECT_EQ(stats().mode, Store::Mode::read_only);
  EXPECT_THAT(stats().mode_reason, HasSubstr("is read-only"));
  EXPECT_EQ(fill(1), Errc::storage_failed);
  EXPECT_TRUE(cellar_.read(digest_) == bytes_);
  EXPECT_THAT(cellar_.reports, Contains(StartsWith("cache mode: read-only: ")));
  cellar_.disk.heal();
  cellar_.pass(look);
  expect_good();
}

TEST_F(StoreModeTest, ADiskFilledByOthersIsPassedThrough) {
  cellar_.disk.set_capacity(0);
  cellar_.pass(look);
  EXPECT_EQ(fill(1), Errc::storage_full);
  EXPECT_EQ(stats().mode, Store::Mode::pass_through);
  EXPECT_THAT(stats().mode_reason, HasSubstr("others have filled"));
  cellar_.disk.set_capacity(std::uint64_t{1} << 30);
  cellar_.pass(look);
  expect_good();
}

TEST_F(StoreModeTest, WithoutInodesTheOldestGoAndEveryFillIsStored) {
  for (int i = 0; i < 20; ++i) cellar_.fill(noise(KiB, 200 + i));
  cellar_.disk.limit_files(21);
  for (int i = 0; i < 60; ++i) {
    const std::string bytes = noise(KiB, 300 + i);
    const Digest manifest = cellar_.put_manifest("{\"n\":" + std::to_string(i) + "}");
    EXPECT_FALSE(failure_of([&] { cellar_.fill(bytes); }));
    EXPECT_TRUE(cellar_.read(digest_of(bytes)) == bytes);
    EXPECT_TRUE(store().has_manifest(manifest)) << "used before it, but later than the rest";
  }
  EXPECT_EQ(stats().mode, Store::Mode::read_write);
  EXPECT_EQ(stats().bytes, cellar_.bytes_on_disk());
  EXPECT_EQ(changes(), 0u);
}

TEST_F(StoreModeTest, WithinAQuotaTheOldestGoAndEveryFillIsStored) {
  cellar_.disk.limit_bytes(500 * KiB);
  for (int i = 0; i < 20; ++i) {
    EXPECT_EQ(fill(i), std::nullopt);
    EXPECT_TRUE(cellar_.read(digest_of(bytes_of(i))) == bytes_of(i));
  }
  EXPECT_EQ(stats().mode, Store::Mode::read_write);
  EXPECT_EQ(stats().bytes, cellar_.bytes_on_disk());
}

TEST_F(StoreModeTest, ADiskThatOthersKeepWithoutInodesDoesNotCostTheWholeCache) {
  Cellar cellar({.bytes = 64 * MiB});
  for (int i = 0; i < 400; ++i) cellar.fill(noise(100, 1000 + i));
  cellar.disk.limit_files(0);
  for (int i = 0; i < 10; ++i) EXPECT_TRUE(failure_of([&] { cellar.fill(noise(100, i)); }));
  EXPECT_EQ(cellar.store->stats().mode, Store::Mode::pass_through);
  EXPECT_GE(cellar.store->stats().blobs, 200u);
  EXPECT_TRUE(cellar.read(digest_of(noise(100, 1399))));
}

TEST_F(StoreModeTest, ADirectoryMovedAwayIsNoticedAndTakenUpAgainWhenItIsBack) {
  std::filesystem::rename(cellar_.root(), elsewhere());
  cellar_.pass(look);
  EXPECT_EQ(stats().mode, Store::Mode::pass_through);
  EXPECT_THAT(stats().mode_reason, HasSubstr("was removed or replaced"));
  EXPECT_EQ(fill(1), Errc::storage_failed);
  EXPECT_FALSE(std::filesystem::exists(cellar_.root()));
  std::filesystem::rename(elsewhere(), cellar_.root());
  cellar_.pass(look);
  EXPECT_TRUE(cellar_.read(digest_) == bytes_);
  expect_good();
  cellar_.restart();
  EXPECT_TRUE(cellar_.read(digest_) == bytes_);
}

// In the place of the directory stands another instance's, with a file under every name that ours
// knows.
class StoreReplacedTest : public StoreModeTest {
 protected:
  void replace() {
    manifest_ = cellar_.put_manifest("{}");
    cellar_.restart();
    EXPECT_TRUE(cellar_.read(digest_) == bytes_);  // Verified: it is trusted from now on.
    std::filesystem::copy(cellar_.root(), elsewhere(), std::filesystem::copy_options::recursive);
    std::filesystem::rename(cellar_.root(), cellar_.root().string() + ".old");
    std::filesystem::rename(elsewhere(), cellar_.root());
    fake::write_file(cellar_.path(digest_), std::string(bytes_.size(), 'x'));
    fake::write_file(cellar_.path(manifest_, ObjectKind::manifest), "nonsense");
    for (const char* name : {"index.db", "index.db-wal"})
      fake::write_file(cellar_.root() / name, "theirs");
    before_ = snapshot();
  }
  std::map<std::string, std::string> snapshot() const {
    std::map<std::string, std::string> files;
    for (const auto& entry : std::filesystem::recursive_directory_iterator(cellar_.root()))
      files[entry.path()] = entry.is_regular_file() ? fake::read_file(entry.path()) : "";
    return files;
  }
  void expect_untouched() { EXPECT_TRUE(snapshot() == before_); }

  Digest manifest_ = digest_of("{}");
  std::map<std::string, std::string> before_;
};

TEST_F(StoreReplacedTest, NothingOfItIsServedOrTouched) {
  replace();
  cellar_.pass(look);
  EXPECT_EQ(stats().mode, Store::Mode::pass_through);
  EXPECT_EQ(cellar_.manifest(manifest_), nullptr);
  EXPECT_FALSE(store().has_manifest(manifest_));
  EXPECT_EQ(fill(1), Errc::storage_failed);
  cellar_.put_manifest("[]");
  cellar_.pass(1min);
  EXPECT_EQ(changes(), 1u);
  expect_untouched();
  cellar_.close();
  expect_untouched();
}

TEST_F(StoreReplacedTest, NotEvenBeforeTheNextLook) {
  replace();
  EXPECT_EQ(cellar_.manifest(manifest_), nullptr);
  EXPECT_EQ(fill(1), Errc::storage_failed);
  EXPECT_EQ(stats().mode, Store::Mode::pass_through);
  cellar_.settle();
  cellar_.close();
  expect_untouched();
}

TEST_F(StoreReplacedTest, AFillThatWasUnderWayEndsWithoutAFileThere) {
  const std::string bytes = noise(100 * KiB, 7);
  auto writer = cellar_.begin(bytes);
  cellar_.append(*writer, bytes);
  std::filesystem::rename(cellar_.root(), elsewhere());
  std::filesystem::create_directory(cellar_.root());
  EXPECT_EQ(failure_of([&] { cellar_.run(writer->commit()); }), Errc::storage_failed);
  EXPECT_TRUE(cellar_.run(read_blob(writer->blob())) == bytes) << "its readers have it all";
  const std::shared_ptr<Blob> outlives = writer->blob();
  writer.reset();
  cellar_.settle();
  EXPECT_EQ(cellar_.files_in(cellar_.root()), 0u);
  cellar_.close();
  EXPECT_EQ(cellar_.files_in(cellar_.root()), 0u);
  EXPECT_TRUE(outlives->file()) << "a reader may hold it longer than the store lives";
}

TEST_F(StoreModeTest, ALockThatIsRemovedIsNoticedToo) {
  std::filesystem::remove(cellar_.layout().lock());
  cellar_.pass(look);
  EXPECT_EQ(stats().mode, Store::Mode::pass_through) << "a second instance could start now";
  EXPECT_EQ(fill(1), Errc::storage_failed);
}

TEST_F(StoreModeTest, AnEmptiedDirectoryIsMadeAnew) {
  for (const char* name : {"partial", "blobs", "manifests", "quarantine"})
    std::filesystem::remove_all(cellar_.root() / name);
  for (int i = 0; i < 3; ++i) EXPECT_EQ(fill(i), Errc::storage_failed);
  cellar_.pass(look);
  EXPECT_EQ(stats().mode, Store::Mode::read_write);
  EXPECT_EQ(fill(5), std::nullopt);
  EXPECT_TRUE(cellar_.read(digest_of(bytes_of(5))) == bytes_of(5));
}

TEST(StoreMode, HasTheWordsOfTheInterface) {
  EXPECT_STREQ(to_string(Store::Mode::read_write), "read-write");
  EXPECT_STREQ(to_string(Store::Mode::pass_through), "pass-through");
  EXPECT_STREQ(to_string(Store::Mode::read_only), "read-only");
}

}  // namespace
}  // namespace staithe::cache
