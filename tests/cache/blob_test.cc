#include "cache/blob.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include "tests/cache/cellar.h"

namespace staithe::cache {
namespace {

class BlobTest : public testing::Test {
 protected:
  std::shared_ptr<Blob> blob(std::optional<std::uint64_t> size_bytes) {
    return std::make_shared<Blob>(io_.get_executor(), digest_of("x"), File(), size_bytes);
  }
  struct Waiting {
    std::optional<std::uint64_t> ready;
    std::optional<Errc> failed;
    bool ended = false;
  };
  // Waits past `offset`, as one reader.
  std::shared_ptr<Waiting> wait_past(const std::shared_ptr<Blob>& blob, std::uint64_t offset) {
    auto waiting = std::make_shared<Waiting>();
    asio::co_spawn(io_, blob->wait_past(offset),
                   [waiting, blob](std::exception_ptr error, std::uint64_t ready) {
                     waiting->ended = true;
                     if (!error) {
                       waiting->ready = ready;
                     } else {
                       waiting->failed = failure_of([&] { std::rethrow_exception(error); });
                     }
                   });
    poll();
    return waiting;
  }
  void poll() {
    io_.restart();
    io_.poll();
  }
  asio::io_context io_;
};

TEST_F(BlobTest, EveryReaderGetsWhatItWaitsForAtItsOwnPace) {
  const auto blob = this->blob(100);
  const auto first = wait_past(blob, 0);
  const auto far = wait_past(blob, 60);
  blob->grow(10);
  poll();
  EXPECT_EQ(first->ready, 10u);
  EXPECT_FALSE(far->ended);
  EXPECT_EQ(wait_past(blob, 9)->ready, 10u) << "at once";
  const auto second = wait_past(blob, 10);
  blob->grow(61);
  poll();
  EXPECT_EQ(second->ready, 61u);
  EXPECT_EQ(far->ready, 61u);
}

TEST_F(BlobTest, ReaderThatLeavesDelaysNobody) {
  const auto blob = this->blob(100);
  asio::cancellation_signal signal;
  bool left = false;
  asio::co_spawn(io_, blob->wait_past(0),
                 asio::bind_cancellation_slot(
                     signal.slot(), [&](std::exception_ptr, std::uint64_t) { left = true; }));
  const auto other = wait_past(blob, 0);
  signal.emit(asio::cancellation_type::terminal);
  poll();
  EXPECT_TRUE(left);
  EXPECT_FALSE(other->ended);
  blob->grow(1);
  poll();
  EXPECT_EQ(other->ready, 1u);
}

TEST_F(BlobTest, TheEndIsReadableOnlyWhenItIsWhole) {
  const auto blob = this->blob(100);
  blob->grow(99);
  const auto end = wait_past(blob, 99);
  bool whole = false;
  asio::co_spawn(io_, blob->wait_whole(), [&](std::exception_ptr error) { whole = !error; });
  poll();
  EXPECT_FALSE(end->ended);
  EXPECT_FALSE(whole);
  blob->finish(100);
  poll();
  EXPECT_EQ(end->ready, 100u);
  EXPECT_TRUE(whole);
  EXPECT_EQ(wait_past(blob, 100)->ready, 100u) << "behind the end of a whole blob nobody waits";
}

TEST_F(BlobTest, AFailureReachesThoseWhoWaitAndLeavesWhatWasReadable) {
  const auto blob = this->blob(100);
  blob->grow(10);
  const auto waiting = wait_past(blob, 10);
  blob->fail({Errc::upstream_failed, "it broke off"});
  poll();
  EXPECT_EQ(waiting->failed, Errc::upstream_failed);
  EXPECT_EQ(wait_past(blob, 5)->ready, 10u);
  EXPECT_EQ(wait_past(blob, 10)->failed, Errc::upstream_failed);
}

TEST_F(BlobTest, OnceCondemnedNothingOfItIsReadable) {
  const auto blob = this->blob(100);
  blob->finish(100);
  EXPECT_EQ(wait_past(blob, 50)->ready, 100u);
  blob->condemn({Errc::storage_failed, "it is damaged"});
  EXPECT_FALSE(blob->whole());
  for (const std::uint64_t offset : {0, 50, 99})
    EXPECT_EQ(wait_past(blob, offset)->failed, Errc::storage_failed);
}

TEST_F(BlobTest, LearnsItsSizeAtTheEndIfNobodyToldItBefore) {
  const auto blob = this->blob(std::nullopt);
  EXPECT_FALSE(blob->size_bytes());
  blob->grow(5);
  blob->finish(6);
  EXPECT_EQ(blob->size_bytes(), 6u);
  EXPECT_TRUE(blob->whole());
}

TEST_F(BlobTest, AnEmptyBlobIsWholeWithoutGrowing) {
  const auto blob = this->blob(0);
  const auto waiting = wait_past(blob, 0);
  EXPECT_FALSE(waiting->ended);
  blob->finish(0);
  poll();
  EXPECT_EQ(waiting->ready, 0u);
}

TEST_F(BlobTest, CountsItsReaders) {
  const auto blob = this->blob(1);
  EXPECT_EQ(blob->readers(), 0u);
  {
    const Blob::Reading one(*blob);
    const Blob::Reading two(*blob);
    EXPECT_EQ(blob->readers(), 2u);
  }
  EXPECT_EQ(blob->readers(), 0u);
}

TEST_F(BlobTest, ItsFileIsClosedAsItWasToldWhenTheLastOwnerLetsGo) {
  int ends[2];
  ASSERT_EQ(::pipe2(ends, O_CLOEXEC), 0);
  const File other_end(ends[1]);
  auto blob = std::make_shared<Blob>(io_.get_executor(), digest_of("x"), File(ends[0]), 1);
  File taken;
  blob->close_by([&](File file) { taken = std::move(file); });
  auto other = blob;
  blob.reset();
  EXPECT_FALSE(taken);
  other.reset();
  EXPECT_EQ(taken.fd(), ends[0]);
}

}  // namespace
}  // namespace staithe::cache
