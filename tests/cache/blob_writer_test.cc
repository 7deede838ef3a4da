#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>

#include "tests/cache/cellar.h"

namespace staithe::cache {
namespace {

using testing::HasSubstr;

class BlobWriterTest : public testing::Test {
 protected:
  static constexpr std::uint64_t max_bytes = 1 << 20;

  Store::Stats stats() const { return cellar_.store->stats(); }
  std::size_t partial_files() const { return cellar_.files_in(cellar_.layout().partial()); }
  // Nothing is left of a transfer that failed: no file, no byte of the budget, no growing blob.
  void expect_nothing_left(const Digest& digest) {
    cellar_.settle();
    EXPECT_EQ(cellar_.store->size_of_blob(digest), std::nullopt);
    EXPECT_FALSE(cellar_.on_disk(digest));
    EXPECT_EQ(partial_files(), 0u);
    EXPECT_EQ(stats().bytes, 0u);
    EXPECT_EQ(cellar_.bytes_on_disk(), 0u);
    // The whole budget can be had again, so no reservation stayed behind.
    EXPECT_FALSE(failure_of([&] { cellar_.fill(noise(max_bytes, 99)); }));
  }

  Cellar cellar_{{.bytes = max_bytes}};
  const std::string bytes_ = noise(200'000);
  const Digest digest_ = digest_of(bytes_);
};

TEST_F(BlobWriterTest, ReadersGetAllButTheEndAsItComesAndTheEndWithTheCommit) {
  auto writer = cellar_.begin(bytes_);
  const auto reader = cellar_.start(read_blob(writer->blob()));
  cellar_.append(*writer, std::string_view(bytes_).substr(0, 150'000));
  EXPECT_EQ(writer->blob()->ready_bytes(), 150'000u);
  cellar_.append(*writer, {});
  cellar_.append(*writer, std::string_view(bytes_).substr(150'000));
  EXPECT_EQ(writer->blob()->ready_bytes(), bytes_.size() - 1);
  EXPECT_FALSE(reader.done());
  EXPECT_EQ(cellar_.run(cellar_.store->find(digest_)), writer->blob())
      << "joined, not fetched again";
  EXPECT_EQ(cellar_.store->size_of_blob(digest_), bytes_.size());
  cellar_.run(writer->commit());
  EXPECT_EQ(cellar_.wait(reader), bytes_);
  EXPECT_EQ(stats().blobs, 1u);
}

TEST_F(BlobWriterTest, ReadersHaveTheEndBeforeTheDiskHasSynced) {
  auto writer = cellar_.begin(bytes_);
  const auto reader = cellar_.start(read_blob(writer->blob()));
  cellar_.append(*writer, bytes_);
  const auto gate = cellar_.disk.hold(Call::sync);
  const auto commit = cellar_.start(writer->commit());
  cellar_.meet(gate);
  EXPECT_EQ(cellar_.wait(reader), bytes_);
  EXPECT_FALSE(commit.done());
  EXPECT_FALSE(cellar_.on_disk(digest_)) << "not under its name before it is synced";
  gate->open();
  cellar_.wait(commit);
  EXPECT_TRUE(cellar_.on_disk(digest_));
}

class BlobWriterAndMemory : public BlobWriterTest {
 protected:
  BlobWriterAndMemory() {
    cellar_.begin_to_sync_every_bytes = 50'000;
    cellar_.restart();
  }
};

TEST_F(BlobWriterAndMemory, TheDiskBeginsLongBeforeTheEnd) {
  auto writer = cellar_.begin(bytes_);
  const Blob::Reading reading(*writer->blob());
  cellar_.append(*writer, std::string_view(bytes_).substr(0, 49'000));
  cellar_.settle();
  EXPECT_EQ(cellar_.disk.begun_to_sync, 0);
  cellar_.append(*writer, std::string_view(bytes_).substr(49'000, 1'000));
  cellar_.settle();
  EXPECT_EQ(cellar_.disk.begun_to_sync, 1);
  cellar_.append(*writer, std::string_view(bytes_).substr(50'000));
  cellar_.settle();
  EXPECT_EQ(cellar_.disk.begun_to_sync, 2) << "once for all that came together";
  cellar_.run(writer->commit());
  cellar_.settle();
  EXPECT_EQ(cellar_.disk.let_go_bytes, 0u) << "somebody reads it";
}

TEST_F(BlobWriterAndMemory, WhatNobodyWaitsForDoesNotStayThere) {
  auto writer = cellar_.begin(bytes_);
  cellar_.append(*writer, std::string_view(bytes_).substr(0, 60'000));
  cellar_.append(*writer, std::string_view(bytes_).substr(60'000, 60'000));
  cellar_.settle();
  EXPECT_GE(cellar_.disk.let_go_bytes, 60'000u);
  EXPECT_LE(cellar_.disk.let_go_bytes, 120'000u);
  cellar_.append(*writer, std::string_view(bytes_).substr(120'000));
  cellar_.run(writer->commit());
  cellar_.settle();
  EXPECT_EQ(cellar_.disk.let_go_bytes, bytes_.size());
}

TEST_F(BlobWriterAndMemory, WhatSomebodyHasReadStaysAlsoWhenTheyAreGone) {
  auto writer = cellar_.begin(bytes_);
  {
    const Blob::Reading reading(*writer->blob());
  }
  cellar_.append(*writer, std::string_view(bytes_).substr(0, 40'000));
  cellar_.append(*writer, std::string_view(bytes_).substr(40'000));
  cellar_.settle();
  cellar_.disk.let_go_bytes = 0;
  cellar_.run(writer->commit());
  cellar_.settle();
  EXPECT_EQ(cellar_.disk.let_go_bytes, 0u);
}

TEST_F(BlobWriterTest, KeepsTheDurableOrder) {
  auto writer = cellar_.begin(bytes_);
  cellar_.append(*writer, bytes_);
  const std::uint64_t directories = cellar_.disk.calls(Call::sync_directory);
  const auto sync = cellar_.disk.hold(Call::sync);
  const auto rename = cellar_.disk.hold(Call::rename);
  const auto commit = cellar_.start(writer->commit());
  cellar_.meet(sync);
  EXPECT_FALSE(rename->reached());
  sync->open();
  cellar_.meet(rename);
  EXPECT_EQ(cellar_.disk.calls(Call::sync_directory), directories + 1) << "of the new directory";
  rename->open();
  cellar_.wait(commit);
  EXPECT_EQ(cellar_.disk.calls(Call::sync_directory), directories + 2) << "of the new name";
}

TEST_F(BlobWriterTest, WrongBytesAreNeitherKeptNorReadToTheirEnd) {
  std::string wrong = bytes_;
  wrong.back() ^= 1;
  auto writer = cellar_.begin(bytes_);
  auto blob = writer->blob();
  cellar_.append(*writer, wrong);
  EXPECT_EQ(failure_of([&] { cellar_.run(writer->commit()); }), Errc::digest_invalid);
  EXPECT_EQ(blob->ready_bytes(), bytes_.size() - 1);
  writer->abandon({Errc::digest_invalid, "wrong bytes"});
  EXPECT_EQ(failure_of([&] { cellar_.run(read_blob(blob)); }), Errc::digest_invalid);
  writer.reset();
  EXPECT_EQ(stats().bytes, cost_bytes(bytes_.size())) << "still open in a reader";
  blob.reset();
  expect_nothing_left(digest_);
}

TEST_F(BlobWriterTest, MoreBytesThanAnnouncedAreRefusedBeforeTheyAreWritten) {
  auto writer = cellar_.begin(bytes_);
  cellar_.append(*writer, bytes_);
  EXPECT_EQ(failure_of([&] { cellar_.append(*writer, "x"); }), Errc::upstream_nonsense);
  EXPECT_EQ(writer->written_bytes(), bytes_.size());
  writer.reset();
  expect_nothing_left(digest_);
}

TEST_F(BlobWriterTest, FewerBytesThanAnnouncedAreNotCommitted) {
  auto writer = cellar_.begin(bytes_);
  EXPECT_EQ(failure_of([&] { cellar_.run(writer->commit()); }), Errc::upstream_nonsense);
  cellar_.append(*writer, std::string_view(bytes_).substr(1));
  EXPECT_EQ(failure_of([&] { cellar_.run(writer->commit()); }), Errc::upstream_nonsense);
  writer.reset();
  expect_nothing_left(digest_);
}

TEST_F(BlobWriterTest, DestroyedItFailsItsReadersAndLeavesNothing) {
  auto writer = cellar_.begin(bytes_);
  const auto reader = cellar_.start(read_blob(writer->blob()));
  cellar_.append(*writer, std::string_view(bytes_).substr(0, 1000));
  writer.reset();
  EXPECT_EQ(failure_of([&] { cellar_.wait(reader); }), Errc::cancelled);
  expect_nothing_left(digest_);
}

TEST_F(BlobWriterTest, AbandonedItSaysWhy) {
  auto writer = cellar_.begin(bytes_);
  const auto reader = cellar_.start(read_blob(writer->blob()));
  writer->abandon({Errc::throttled, "later"});
  writer->abandon({Errc::denied, "only the first counts"});
  EXPECT_EQ(failure_of([&] { cellar_.wait(reader); }), Errc::throttled);
  writer.reset();
  expect_nothing_left(digest_);
}

TEST_F(BlobWriterTest, ADigestCanBeBegunAgainAfterItFailed) {
  cellar_.begin(bytes_).reset();
  EXPECT_EQ(cellar_.fill(bytes_), digest_);
  EXPECT_EQ(cellar_.read(digest_), bytes_);
}

TEST_F(BlobWriterTest, TheEmptyBlobIsABlobLikeAnyOther) {
  for (const bool known_size : {true, false}) {
    const Digest digest = cellar_.fill("", known_size);
    EXPECT_EQ(digest.to_string(),
              "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    EXPECT_EQ(cellar_.read(digest), "");
    EXPECT_EQ(cellar_.store->size_of_blob(digest), 0u);
    cellar_.restart();
    EXPECT_EQ(cellar_.read(digest), "");
    EXPECT_EQ(stats().quarantined, 0u);
    std::filesystem::remove(cellar_.path(digest));
    cellar_.restart();
    EXPECT_EQ(cellar_.read(digest), std::nullopt);
  }
}

TEST_F(BlobWriterTest, ABlobOfUnknownSizeLearnsItAtItsEnd) {
  auto writer = cellar_.begin(bytes_, false);
  EXPECT_EQ(cellar_.store->size_of_blob(digest_), std::nullopt);
  const auto reader = cellar_.start(read_blob(writer->blob()));
  for (std::size_t at = 0; at < bytes_.size(); at += 7777)
    cellar_.append(*writer, std::string_view(bytes_).substr(at, 7777));
  cellar_.run(writer->commit());
  EXPECT_EQ(cellar_.wait(reader), bytes_);
  EXPECT_EQ(cellar_.store->size_of_blob(digest_), bytes_.size());
  EXPECT_EQ(stats().bytes, cost_bytes(bytes_.size()));
}

TEST_F(BlobWriterTest, ABlobOfUnknownSizeStopsAtTheBound) {
  cellar_.fill(noise(300'000, 5));
  auto writer = cellar_.begin("whatever", false);
  std::optional<Errc> stopped;
  for (int i = 0; i < 100 && !stopped; ++i)
    stopped = failure_of([&] { cellar_.append(*writer, noise(50'000)); });
  EXPECT_EQ(stopped, Errc::storage_full);
  EXPECT_LE(cellar_.disk.take_peak_bytes(), max_bytes);
  EXPECT_GT(writer->written_bytes(), 0u);
  writer.reset();
  expect_nothing_left(digest_of("whatever"));
}

// ---- a disk that fails -------------------------------------------------------------------------

TEST_F(BlobWriterTest, AFailedCreateLeavesNothing) {
  for (const int error : {ENOSPC, EIO, EMFILE}) {
    cellar_.disk.fail(Call::create, error);
    EXPECT_EQ(failure_of([&] { cellar_.begin(bytes_); }),
              error == ENOSPC ? Errc::storage_full : Errc::storage_failed);
  }
  cellar_.pass(std::chrono::seconds(
      10));  // Three failures in a row switch writing off until the store has tried again.
  expect_nothing_left(digest_);
}

TEST_F(BlobWriterTest, AFailedWriteEndsTheTransfer) {
  auto writer = cellar_.begin(bytes_);
  cellar_.append(*writer, std::string_view(bytes_).substr(0, 1000));
  cellar_.disk.fail(Call::write, ENOSPC);
  EXPECT_EQ(failure_of([&] { cellar_.append(*writer, std::string_view(bytes_).substr(1000)); }),
            Errc::storage_full);
  EXPECT_EQ(writer->written_bytes(), 1000u);
  writer.reset();
  expect_nothing_left(digest_);
}

TEST_F(BlobWriterTest, AFailedStepOfTheCommitCostsTheReadersNothingAndStoresNothing) {
  struct Step {
    Call call;
    const char* name;
  };
  for (const Step step :
       {Step{Call::make_directory, "make_directory"}, Step{Call::sync, "sync"},
        Step{Call::rename, "rename"}, Step{Call::sync_directory, "sync_directory"}}) {
    for (const int error : {EIO, ENOSPC}) {
      SCOPED_TRACE(step.name);
      auto writer = cellar_.begin(bytes_);
      const auto reader = cellar_.start(read_blob(writer->blob()));
      cellar_.append(*writer, bytes_);
      const std::uint64_t syncs = cellar_.disk.calls(Call::sync);
      cellar_.disk.fail(step.call, error);
      EXPECT_EQ(failure_of([&] { cellar_.run(writer->commit()); }),
                error == EIO ? Errc::storage_failed : Errc::storage_full);
      EXPECT_EQ(cellar_.wait(reader), bytes_) << "the bytes were right";
      EXPECT_EQ(cellar_.disk.calls(Call::sync), syncs + 1) << "a failed sync is not tried again";
      writer.reset();
      cellar_.settle();
      EXPECT_FALSE(cellar_.on_disk(digest_));
      EXPECT_EQ(partial_files(), 0u);
      EXPECT_EQ(stats().bytes, 0u);
      cellar_.pass(std::chrono::seconds(10));  // It tries to write again.
    }
  }
  expect_nothing_left(digest_);
}

TEST_F(BlobWriterTest, AfterTheLastDirectorySyncFailedTheNameIsGoneForGood) {
  cellar_.fill("makes the first directory sync its own");
  auto writer = cellar_.begin(bytes_);
  cellar_.append(*writer, bytes_);
  const auto gate = cellar_.disk.hold(Call::rename);
  const auto commit = cellar_.start(writer->commit());
  cellar_.meet(gate);
  cellar_.disk.fail(Call::sync_directory, EIO);
  gate->open();
  EXPECT_EQ(failure_of([&] { cellar_.wait(commit); }), Errc::storage_failed);
  writer.reset();
  cellar_.settle();
  EXPECT_FALSE(cellar_.on_disk(digest_)) << "its name was there, its durability was not";
  EXPECT_EQ(cellar_.store->size_of_blob(digest_), std::nullopt);
}

TEST_F(BlobWriterTest, SpaceOfAFailedTransferCountsUntilItsReadersLetGo) {
  auto writer = cellar_.begin(bytes_);
  auto blob = writer->blob();
  cellar_.append(*writer, bytes_);
  cellar_.disk.fail(Call::sync, EIO);
  EXPECT_TRUE(failure_of([&] { cellar_.run(writer->commit()); }));
  writer.reset();
  cellar_.settle();
  EXPECT_EQ(stats().bytes, cost_bytes(bytes_.size()));
  EXPECT_EQ(cellar_.run(read_blob(blob)), bytes_);
  EXPECT_EQ(failure_of([&] { cellar_.begin(noise(max_bytes, 2)); }), Errc::storage_full);
  blob.reset();
  expect_nothing_left(digest_);
}

TEST_F(BlobWriterTest, SpaceOfAFailedTransferCountsUntilItsFileIsRemoved) {
  auto writer = cellar_.begin(bytes_);
  cellar_.append(*writer, bytes_);
  const auto gate = cellar_.disk.hold(Call::remove);
  writer.reset();
  cellar_.meet(gate);
  cellar_.poll();
  EXPECT_EQ(stats().bytes, cost_bytes(bytes_.size()));
  gate->open();
  expect_nothing_left(digest_);
}

// ---- cancelled ---------------------------------------------------------------------------------

asio::awaitable<void> append_then_commit(BlobWriter& writer, std::string bytes) {
  co_await writer.append(bytes);
  co_await writer.commit();
}

TEST_F(BlobWriterTest, CancelledBeforeItsCommitIsPublishedItLeavesNothing) {
  auto writer = cellar_.begin(bytes_);
  auto blob = writer->blob();
  const auto gate = cellar_.disk.hold(Call::write);
  auto filling = cellar_.start(append_then_commit(*writer, bytes_));
  cellar_.meet(gate);
  filling.cancel();
  gate->open();
  EXPECT_ANY_THROW(cellar_.wait(filling));
  writer.reset();
  EXPECT_TRUE(blob->error());
  blob.reset();
  expect_nothing_left(digest_);
}

// Publishes without a co_await between the cancellation and the publishing itself.
asio::awaitable<void> wait_then_commit(Event& event, BlobWriter& writer) {
  co_await event.wait();
  co_await asio::this_coro::throw_if_cancelled(false);
  auto commit = writer.commit();
  co_await asio::this_coro::throw_if_cancelled(true);
  co_await std::move(commit);
}

TEST_F(BlobWriterTest, CancelledAtItsCommitItCanStillBeAbandoned) {
  auto writer = cellar_.begin(bytes_);
  cellar_.append(*writer, bytes_);
  Event event(cellar_.io.get_executor());
  auto filling = cellar_.start(wait_then_commit(event, *writer));
  filling.cancel();
  EXPECT_ANY_THROW(cellar_.wait(filling));
  writer->abandon({Errc::cancelled, "stopping"});
  writer.reset();
  expect_nothing_left(digest_);
}

// A blob that could not be opened is fetched again, and at the same time it is evicted.
class RefillTest : public BlobWriterTest {
 protected:
  RefillTest() {
    cellar_.fill(bytes_);
    cellar_.restart();
    cellar_.disk.fail(Call::open, EMFILE);
    EXPECT_EQ(cellar_.run(cellar_.store->find(digest_)), nullptr);
    const auto create = cellar_.disk.hold(Call::create);
    const auto again = cellar_.start(cellar_.store->begin(digest_, bytes_.size()));
    cellar_.meet(create);
    removal_ = cellar_.disk.hold(Call::remove);
    large_ = cellar_.start(cellar_.store->begin(digest_of("large"), 700'000));
    cellar_.meet(removal_);
    create->open();
    writer_ = cellar_.wait(again);
    cellar_.append(*writer_, bytes_);
    commit_ = cellar_.start(writer_->commit());
    cellar_.poll();
    EXPECT_FALSE(commit_.done()) << "the removal could hit the new file";
  }

  std::shared_ptr<fake::DiskGate> removal_;
  Cellar::Running<std::unique_ptr<BlobWriter>> large_;
  std::unique_ptr<BlobWriter> writer_;
  Cellar::Running<void> commit_;
};

TEST_F(RefillTest, PublishesOnceTheOldFileIsRemoved) {
  removal_->open();
  cellar_.wait(commit_);
  cellar_.wait(large_);
  cellar_.settle();
  EXPECT_TRUE(cellar_.on_disk(digest_));
  EXPECT_EQ(cellar_.read(digest_), bytes_);
  EXPECT_EQ(stats().bytes, cost_bytes(bytes_.size()));
  EXPECT_EQ(stats().evicted, 1u);
}

TEST_F(RefillTest, CancelledWhileItWaitsItLeavesNothing) {
  commit_.cancel();
  cellar_.poll();
  EXPECT_TRUE(commit_.done());
  EXPECT_ANY_THROW(commit_.get());
  writer_.reset();
  removal_->open();
  cellar_.wait(large_).reset();
  expect_nothing_left(digest_);
}

}  // namespace
}  // namespace staithe::cache
