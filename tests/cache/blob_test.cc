#include "cache/blob.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <random>
#include <vector>

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
  std::shared_ptr<Waiting> wait_past(const std::shared_ptr<Blob>& blob, std::uint64_t offset,
                                     std::uint64_t least_bytes = 1,
                                     Blob::End end = Blob::End::held_back) {
    auto waiting = std::make_shared<Waiting>();
    asio::co_spawn(io_, blob->wait_past(offset, end, least_bytes),
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
  // As long as it takes: a timer may have to end.
  void run_until_ended(const Waiting& waiting) {
    while (!waiting.ended) {
      io_.restart();
      io_.run_one_for(std::chrono::seconds(10));
    }
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

TEST_F(BlobTest, AReaderSleepsUntilThereIsEnoughForIt) {
  const auto blob = this->blob(100);
  const auto one = wait_past(blob, 0, 1);
  const auto ten = wait_past(blob, 0, 10);
  const auto behind = wait_past(blob, 50, 10);
  blob->grow(9);
  io_.restart();
  EXPECT_GT(io_.poll(), 0u);
  EXPECT_EQ(one->ready, 9u);
  EXPECT_FALSE(ten->ended);
  blob->grow(10);
  poll();
  EXPECT_EQ(ten->ready, 10u);
  blob->add({50, 60});
  poll();
  EXPECT_EQ(behind->ready, 60u);
}

TEST_F(BlobTest, OfASlowWriterLessIsEnough) {
  const auto blob = this->blob(100);
  const auto ten = wait_past(blob, 0, 10);
  const auto far = wait_past(blob, 50, 10);
  blob->grow(3);
  run_until_ended(*ten);
  EXPECT_EQ(ten->ready, 3u);
  EXPECT_FALSE(far->ended) << "of what it waits for there is nothing";
  const auto again = wait_past(blob, 3, 10);
  blob->grow(5);
  run_until_ended(*again);
  EXPECT_EQ(again->ready, 5u);
}

TEST_F(BlobTest, NobodyWaitsForMoreThanCanComeBeforeTheEnd) {
  const auto blob = this->blob(100);
  const auto held = wait_past(blob, 0, 1000);
  const auto part = wait_past(blob, 90, 1000, Blob::End::as_it_comes);
  blob->grow(99);
  poll();
  EXPECT_EQ(held->ready, 99u);
  EXPECT_FALSE(part->ended);
  blob->grow(100);
  poll();
  EXPECT_EQ(part->ready, 100u);
  const auto end = wait_past(blob, 99, 1000);
  EXPECT_FALSE(end->ended);
  blob->finish(100);
  poll();
  EXPECT_EQ(end->ready, 100u);
}

// Against the rule itself, whatever comes in whatever order.
TEST_F(BlobTest, ThoseAreWokenWhoseBytesHaveComeAndNoOthers) {
  std::mt19937 random(7);
  const auto up_to = [&](std::uint64_t most) { return random() % (most + 1); };
  for (int round = 0; round < 200; ++round) {
    const bool told = round % 3 != 0;
    const auto blob = this->blob(told ? std::optional<std::uint64_t>(64) : std::nullopt);
    struct Reader {
      std::uint64_t offset;
      std::uint64_t least;
      Blob::End end;
      std::shared_ptr<Waiting> waiting;
    };
    std::vector<Reader> readers;
    for (int i = 0; i < 12; ++i) {
      Reader reader{.offset = up_to(62),
                    .least = 1 + up_to(8),
                    .end = up_to(1) ? Blob::End::as_it_comes : Blob::End::held_back,
                    .waiting = nullptr};
      reader.least = std::min(reader.least, 63 - reader.offset);
      reader.waiting = wait_past(blob, reader.offset, reader.least, reader.end);
      readers.push_back(std::move(reader));
    }
    for (int step = 0; step < 12; ++step) {
      const std::uint64_t begin = up_to(63);
      blob->add({begin, std::min<std::uint64_t>(64, begin + 1 + up_to(16))});
      poll();
      for (const Reader& reader : readers) {
        const std::uint64_t ready = blob->ready_from(reader.offset, reader.end);
        if (ready >= reader.offset + reader.least) {
          EXPECT_TRUE(reader.waiting->ended);
        } else if (reader.waiting->ended) {  // It has waited for a while.
          EXPECT_GT(*reader.waiting->ready, reader.offset);
        }
      }
    }
    blob->finish(64);
    poll();
    for (const Reader& reader : readers) EXPECT_TRUE(reader.waiting->ended);
  }
}

TEST_F(BlobTest, MayGoWhileAReaderWasAboutToTakeLess) {
  auto blob = this->blob(100);
  asio::cancellation_signal signal;
  asio::co_spawn(
      io_, blob->wait_past(0, Blob::End::held_back, 50),
      asio::bind_cancellation_slot(signal.slot(), [](std::exception_ptr, std::uint64_t) {}));
  poll();
  blob->grow(10);
  signal.emit(asio::cancellation_type::terminal);
  poll();
  blob.reset();
  io_.restart();
  io_.run();  // What was about to wake it finds nothing.
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
  EXPECT_FALSE(blob->condemned());
  blob->condemn({Errc::storage_failed, "it is damaged"});
  EXPECT_FALSE(blob->whole());
  EXPECT_TRUE(blob->condemned()) << "for those who send it on other threads";
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
