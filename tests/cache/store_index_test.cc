// The store and its index: lost, old or failing, it costs no file; and what a start compares.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

#include "tests/cache/store_fixture.h"

namespace staithe::cache {
namespace {

using namespace std::chrono_literals;
using testing::Contains;
using testing::IsEmpty;
using testing::Not;
using testing::StartsWith;

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

// ---- every damage of the index -----------------------------------------------------------------

class StoreIndexDamageTest : public StoreTest {
 protected:
  void SetUp() override {
    for (int i = 0; i < 4; ++i) cellar_.fill(blob(i));
    cellar_.put_manifest("{}");
    cellar_.store->link("r/app", digest_of("{}"));
    cellar_.pass(1s);
    before_a_stop_ = cellar_.save_index();
    cellar_.close();
    after_a_stop_ = cellar_.save_index();
  }
  static std::string blob(int number) { return noise(5'000 + 1'000 * number, 30 + number); }

  // With these files everything is served, the figures are true, and the next start finds all rows.
  void expect_nothing_lost_with(const Cellar::IndexFiles& files) {
    cellar_.restore_index(files);
    cellar_.make();
    cellar_.open();
    expect_all();
    cellar_.close();
    cellar_.reports.clear();
    cellar_.make();
    cellar_.open();
    EXPECT_THAT(cellar_.reports, IsEmpty());
    expect_all();
    cellar_.close();
  }
  void expect_all() {
    EXPECT_EQ(stats().blobs, 4u);
    EXPECT_EQ(stats().manifests, 1u);
    EXPECT_EQ(stats().quarantined, 0u);
    for (int i = 0; i < 4; ++i) {
      EXPECT_EQ(store().size_of_blob(digest_of(blob(i))), blob(i).size());
      EXPECT_TRUE(cellar_.read(digest_of(blob(i))) == blob(i));
    }
    EXPECT_NE(cellar_.manifest(digest_of("{}")), nullptr);
    expect_figures_true();
  }

  Cellar::IndexFiles before_a_stop_;  // with its log
  Cellar::IndexFiles after_a_stop_;
};

TEST_F(StoreIndexDamageTest, CutAtEachBlockOf512BytesItCostsNothing) {
  const std::string whole = after_a_stop_["index.db"];
  for (std::size_t size = 0; size < whole.size() && !HasFailure(); size += 512) {
    SCOPED_TRACE(size);
    expect_nothing_lost_with({{"index.db", whole.substr(0, size)}});
  }
}

TEST_F(StoreIndexDamageTest, ItsLogCutAtEachBlockOf512BytesCostsNothing) {
  const std::string whole = before_a_stop_["index.db-wal"];
  ASSERT_GT(whole.size(), 4096u);
  for (std::size_t size = 0; size < whole.size() && !HasFailure(); size += 512) {
    SCOPED_TRACE(size);
    expect_nothing_lost_with(
        {{"index.db", before_a_stop_["index.db"]}, {"index.db-wal", whole.substr(0, size)}});
  }
}

TEST_F(StoreIndexDamageTest, WhateverItContainsItCostsNothing) {
  const std::string good = after_a_stop_["index.db"];
  // SQLite's file format, section 1.3: the user version stands in these four bytes.
  constexpr std::size_t version_at = 60;
  const auto of_version = [&](const std::string& version) {
    return std::string(good).replace(version_at, 4, version);
  };
  const std::map<std::string, std::string> files = {
      {"empty", ""},
      {"text", "this is no database"},
      {"noise", noise(good.size(), 9)},
      {"NULs", std::string(good.size(), '\0')},
      {"only its first page", good.substr(0, 4096) + noise(good.size() - 4096, 8)},
      {"all but its first page", noise(4096, 8) + good.substr(4096)},
      {"of a release before", of_version({'\0', '\0', '\0', '\0'})},
      {"of a release to come", of_version({'\0', '\0', '\0', '\x7f'})},
  };
  for (const auto& [what, bytes] : files) {
    SCOPED_TRACE(what);
    expect_nothing_lost_with({{"index.db", bytes}});
  }
  expect_nothing_lost_with({});
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
  std::shared_ptr<fake::DiskGate> gate_;
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

}  // namespace
}  // namespace staithe::cache
