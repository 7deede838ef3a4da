// Transfers that broke off, and those that go on from there.
#include "tests/cache/store_fixture.h"

namespace staithe::cache {
namespace {

using testing::Contains;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

using namespace std::chrono_literals;

const Error gone{Errc::unreachable, "played"};

class StorePartialsTest : public StoreTest {
 protected:
  static constexpr std::uint64_t mark_every = 64 * KiB;

  StorePartialsTest() {
    cellar_.mark_every_bytes = mark_every;
    cellar_.least_kept_bytes = 16 * KiB;
    cellar_.restart();
  }

  // Writes the first `bytes` of `whole`, in pieces of 16 KiB.
  std::unique_ptr<BlobWriter> begun(std::string_view whole, std::uint64_t bytes) {
    auto writer = cellar_.begin(whole);
    append(*writer, whole, bytes);
    return writer;
  }
  void append(BlobWriter& writer, std::string_view whole, std::uint64_t end) {
    while (writer.written_bytes() < end) {
      const std::uint64_t at = writer.written_bytes();
      cellar_.append(writer, whole.substr(at, std::min<std::uint64_t>(16 * KiB, end - at)));
    }
  }
  void break_off(std::string_view whole, std::uint64_t bytes, Error error = gone) {
    begun(whole, bytes)->abandon(std::move(error));
    cellar_.settle();
  }
  std::unique_ptr<BlobWriter> resume(std::string_view whole) {
    auto writer = cellar_.run(store().resume(digest_of(whole), whole.size()));
    cellar_.run(writer->recover());
    return writer;
  }
  // Where the next transfer goes on; it is led to its end, and read.
  std::uint64_t finish(std::string_view whole) {
    auto writer = resume(whole);
    const std::uint64_t from = writer->written_bytes();
    append(*writer, whole, whole.size());
    cellar_.run(writer->commit());
    writer.reset();
    EXPECT_TRUE(cellar_.read(digest_of(whole)) == whole);
    EXPECT_EQ(partial_files(), 0u);
    EXPECT_EQ(store().resumable(digest_of(whole)), std::nullopt);
    expect_figures_true();
    return from;
  }
  // A day has gone by when the bounds are looked at.
  void expire() {
    cellar_.pass(24h);
    cellar_.pass(11s);
  }
  std::size_t partial_files() const { return cellar_.files_in(cellar_.layout().partial()); }
  std::filesystem::path partial() const {
    return std::filesystem::directory_iterator(cellar_.layout().partial())->path();
  }
  void damage_at(std::uint64_t offset) {
    std::string bytes = fake::read_file(partial());
    bytes.at(offset) ^= 1;
    cellar_.disk.damage(partial(), bytes);
  }

  const std::string whole_ = noise(500 * KiB, 3);
  const Digest of_whole_ = digest_of(whole_);
};

TEST_F(StorePartialsTest, GoOnWhereTheyBrokeOff) {
  break_off(whole_, 200 * KiB + 17);
  expect_figures_true();
  EXPECT_EQ(store().resumable(of_whole_), 200 * KiB + 17);
  EXPECT_EQ(find(of_whole_), nullptr) << "a part is not a blob";
  EXPECT_EQ(finish(whole_), 200 * KiB + 17);
}

TEST_F(StorePartialsTest, AreNotGoneOnWithWhenTheirBytesAreInDoubt) {
  for (const Errc reason : {Errc::upstream_nonsense, Errc::digest_invalid, Errc::storage_failed,
                            Errc::storage_full, Errc::denied}) {
    break_off(whole_, 200 * KiB, {reason, "played"});
    EXPECT_EQ(store().resumable(of_whole_), std::nullopt) << to_string(reason);
    EXPECT_EQ(partial_files(), 0u);
    expect_figures_true();
  }
}

TEST_F(StorePartialsTest, OfFewBytesOrUnknownSizeAreNotKept) {
  break_off(whole_, 15 * KiB);
  EXPECT_EQ(partial_files(), 0u);
  auto writer = cellar_.begin(whole_, false);
  append(*writer, whole_, 300 * KiB);
  writer.reset();
  cellar_.settle();
  EXPECT_EQ(partial_files(), 0u);
  expect_figures_true();
}

TEST_F(StorePartialsTest, SurviveAStopToTheByte) {
  auto writer = begun(whole_, 200 * KiB + 17);
  writer.reset();  // As a daemon that is asked to stop leaves it.
  cellar_.restart();
  expect_figures_true();
  EXPECT_EQ(finish(whole_), 200 * KiB + 17);
}

TEST_F(StorePartialsTest, SurviveAKillUpToTheLastMark) {
  auto writer = begun(whole_, 200 * KiB + 17);
  cellar_.pass(2s);  // The index is written.
  cellar_.disk.lose_power();
  writer.reset();
  cellar_.crash(Loss::nothing);
  expect_figures_true();
  EXPECT_EQ(finish(whole_), 192 * KiB);
}

TEST_F(StorePartialsTest, SurviveALossOfPowerAsFarAsTheirBytesDo) {
  for (std::uint64_t seed = 1; seed < 30; ++seed) {
    SCOPED_TRACE(seed);
    auto writer = begun(whole_, 400 * KiB);
    cellar_.pass(2s);
    cellar_.disk.lose_power();
    writer.reset();
    cellar_.crash(seed % 5 == 0 ? Loss::everything : Loss::some, seed);
    expect_figures_true();
    const std::uint64_t from = finish(whole_);
    EXPECT_EQ(from % mark_every, 0u);
    EXPECT_LE(from, 400 * KiB);
    cellar_.store->set_bounds({.bytes = 0}, {});
    cellar_.pass(11s);
    cellar_.store->set_bounds({.bytes = MiB}, {});
    ASSERT_EQ(find(of_whole_), nullptr);
  }
}

TEST_F(StorePartialsTest, GoOnBeforeTheFirstDamage) {
  break_off(whole_, 400 * KiB);
  damage_at(150 * KiB);
  EXPECT_EQ(finish(whole_), 128 * KiB);
  EXPECT_THAT(cellar_.reports, Contains(HasSubstr("partial blob damaged")));
  EXPECT_EQ(stats().quarantined, 0u);
}

TEST_F(StorePartialsTest, ThatCannotBeReadBeginAnew) {
  break_off(whole_, 400 * KiB);
  cellar_.disk.fail(Call::read, EIO);
  EXPECT_EQ(finish(whole_), 0u);
}

TEST_F(StorePartialsTest, ThatCannotBeOpenedBeginAnew) {
  break_off(whole_, 400 * KiB);
  cellar_.disk.fail(Call::reopen, EIO);
  EXPECT_EQ(finish(whole_), 0u);
  EXPECT_THAT(cellar_.reports, Contains(HasSubstr("not resumed")));
}

TEST_F(StorePartialsTest, RemovedByHandBeginAnew) {
  break_off(whole_, 400 * KiB);
  std::filesystem::remove(partial());
  EXPECT_EQ(finish(whole_), 0u);
}

TEST_F(StorePartialsTest, LongerThanTheBlobBeginAnew) {
  break_off(whole_, 400 * KiB);
  auto writer = cellar_.run(store().resume(of_whole_, 300 * KiB));
  EXPECT_EQ(writer->written_bytes(), 0u);
  cellar_.run(writer->recover());
  EXPECT_EQ(writer->written_bytes(), 0u);
  writer.reset();
  cellar_.settle();
  expect_figures_true();
}

TEST_F(StorePartialsTest, GiveReadersWhatIsThereBeforeTheRestComes) {
  break_off(whole_, 400 * KiB);
  auto writer = cellar_.run(store().resume(of_whole_, whole_.size()));
  const auto blob = find(of_whole_);
  ASSERT_EQ(blob, writer->blob());
  auto reading = cellar_.start(blob->wait_past(mark_every));
  EXPECT_FALSE(reading.done()) << "nothing that was not hashed again";
  auto gate = cellar_.disk.hold(Call::read, 2);
  auto recovering = cellar_.start(writer->recover());
  cellar_.meet(gate);
  EXPECT_EQ(cellar_.wait(std::move(reading)), 2 * mark_every);
  gate->open();
  cellar_.wait(std::move(recovering));
  EXPECT_EQ(blob->ready_bytes(), 400 * KiB);
  append(*writer, whole_, whole_.size());
  cellar_.run(writer->commit());
  EXPECT_TRUE(cellar_.run(read_blob(blob)) == whole_);
}

TEST_F(StorePartialsTest, AStopWhileItIsHashedAgainCostsNothingOfIt) {
  break_off(whole_, 400 * KiB);
  cellar_.run(store().resume(of_whole_, whole_.size()))->abandon({Errc::cancelled, "stopping"});
  cellar_.settle();
  EXPECT_EQ(finish(whole_), 400 * KiB);
}

TEST_F(StorePartialsTest, ThatHadComeToTheirEndOnlyNeedTheCommit) {
  break_off(whole_, whole_.size());
  EXPECT_EQ(finish(whole_), whole_.size());
}

TEST_F(StorePartialsTest, OfWrongBytesEndWithTheDigest) {
  std::string wrong = whole_;
  wrong[1000] ^= 1;
  auto writer = cellar_.run(store().begin(of_whole_, whole_.size()));
  append(*writer, wrong, 400 * KiB);
  writer.reset();
  writer = resume(whole_);
  EXPECT_EQ(writer->written_bytes(), 400 * KiB);
  append(*writer, whole_, whole_.size());
  EXPECT_EQ(failure_of([&] { cellar_.run(writer->commit()); }), Errc::digest_invalid);
  writer->abandon({Errc::digest_invalid, "played"});
  writer.reset();
  cellar_.settle();
  EXPECT_EQ(finish(whole_), 0u);
}

// Parts that several connections have brought, each marked as it came.
class SparsePartialsTest : public StorePartialsTest {
 protected:
  void write(BlobWriter& writer, std::uint64_t begin, std::uint64_t end) {
    for (std::uint64_t at = begin; at < end; at += 16 * KiB)
      cellar_.run(writer.write(
          at, std::span(whole_).subspan(at, std::min<std::uint64_t>(16 * KiB, end - at))));
  }
  // The end, a part in the middle that touches no other, and the start.
  std::unique_ptr<BlobWriter> begun_in_parts() {
    auto writer = cellar_.begin(whole_);
    write(*writer, 400 * KiB, whole_.size());
    write(*writer, 150 * KiB, 250 * KiB);
    write(*writer, 0, 100 * KiB);
    return writer;
  }
  static std::vector<Extent> missing(const BlobWriter& writer) {
    std::vector<Extent> gaps;
    const std::uint64_t size = *writer.blob()->size_bytes();
    for (Extent gap = writer.blob()->present().gap_from(0, size); gap.begin < size;
         gap = writer.blob()->present().gap_from(gap.end, size))
      gaps.push_back(gap);
    return gaps;
  }
  void fill_gaps(BlobWriter& writer) {
    for (const Extent& gap : missing(writer)) write(writer, gap.begin, gap.end);
    cellar_.run(writer.commit());
  }
};

TEST_F(SparsePartialsTest, AreReadAsTheyComeButForTheLastByte) {
  auto writer = begun_in_parts();
  const auto blob = writer->blob();
  EXPECT_EQ(blob->ready_from(0, Blob::End::held_back), 100 * KiB);
  EXPECT_EQ(blob->ready_from(100 * KiB, Blob::End::held_back), 100 * KiB);
  EXPECT_EQ(blob->ready_from(160 * KiB, Blob::End::held_back), 250 * KiB);
  EXPECT_EQ(blob->ready_from(450 * KiB, Blob::End::held_back), whole_.size() - 1);
  EXPECT_EQ(blob->ready_from(450 * KiB, Blob::End::as_it_comes), whole_.size());
  std::vector<std::uint64_t> waited_for;
  blob->on_wait([&](std::uint64_t offset) { waited_for.push_back(offset); });
  const auto reader = cellar_.start(blob->wait_past(300 * KiB));
  EXPECT_EQ(waited_for, std::vector<std::uint64_t>{300 * KiB});
  fill_gaps(*writer);
  EXPECT_GT(cellar_.wait(reader), 300 * KiB);
  EXPECT_TRUE(cellar_.read(of_whole_) == whole_);
}

TEST_F(SparsePartialsTest, AreHashedBehindTheWritersInTheOrderOfTheBlob) {
  auto writer = begun_in_parts();
  const auto hashing = cellar_.start(writer->hash_along());
  cellar_.settle();
  EXPECT_FALSE(hashing.done());
  for (const Extent& gap : missing(*writer)) write(*writer, gap.begin, gap.end);
  cellar_.wait(hashing);
  const std::uint64_t reads = cellar_.disk.calls(Call::read);
  cellar_.run(writer->commit());
  EXPECT_EQ(cellar_.disk.calls(Call::read), reads) << "nothing is left to hash";
  EXPECT_TRUE(cellar_.read(of_whole_) == whole_);
}

TEST_F(SparsePartialsTest, SurviveAStopToTheByte) {
  begun_in_parts().reset();
  cellar_.restart();
  expect_figures_true();
  auto writer = resume(whole_);
  EXPECT_EQ(missing(*writer),
            (std::vector<Extent>{{100 * KiB, 150 * KiB}, {250 * KiB, 400 * KiB}}));
  fill_gaps(*writer);
  writer.reset();
  EXPECT_TRUE(cellar_.read(of_whole_) == whole_);
  expect_figures_true();
}

TEST_F(SparsePartialsTest, SurviveAKillUpToTheirMarks) {
  auto writer = begun_in_parts();
  cellar_.pass(2s);
  cellar_.disk.lose_power();
  writer.reset();
  cellar_.crash(Loss::nothing);
  writer = resume(whole_);
  // From the start 64 KiB at a time are marked, of the other parts 16.
  EXPECT_EQ(missing(*writer),
            (std::vector<Extent>{
                {64 * KiB, 150 * KiB}, {246 * KiB, 400 * KiB}, {496 * KiB, whole_.size()}}));
  fill_gaps(*writer);
  writer.reset();
  EXPECT_TRUE(cellar_.read(of_whole_) == whole_);
}

TEST_F(SparsePartialsTest, LoseOnlyThePartsThatAreDamaged) {
  begun_in_parts().reset();
  cellar_.settle();
  damage_at(200 * KiB);
  cellar_.restart();
  auto writer = resume(whole_);
  EXPECT_EQ(writer->written_bytes(), 100 * KiB);
  EXPECT_TRUE(writer->blob()->present().contains({400 * KiB, whole_.size()}));
  EXPECT_FALSE(writer->blob()->present().contains({200 * KiB, 200 * KiB + 1}));
  EXPECT_THAT(cellar_.reports, Contains(HasSubstr("partial blob damaged")));
  fill_gaps(*writer);
  writer.reset();
  EXPECT_TRUE(cellar_.read(of_whole_) == whole_);
}

TEST_F(SparsePartialsTest, WrongInAnyPartEndWithTheDigest) {
  std::string wrong = whole_;
  wrong[170 * KiB] ^= 1;
  auto writer = cellar_.begin(whole_);
  cellar_.run(writer->write(150 * KiB, std::span(wrong).subspan(150 * KiB, 100 * KiB)));
  write(*writer, 0, 150 * KiB);
  write(*writer, 250 * KiB, whole_.size());
  EXPECT_EQ(failure_of([&] { cellar_.run(writer->commit()); }), Errc::digest_invalid);
}

TEST_F(StorePartialsTest, BreakOffAgainAndAgain) {
  for (std::uint64_t at = 50 * KiB; at < whole_.size(); at += 50 * KiB) {
    auto writer = resume(whole_);
    EXPECT_EQ(writer->written_bytes(), at - 50 * KiB);
    append(*writer, whole_, at);
    writer.reset();
    if (at % (100 * KiB) == 0) cellar_.restart();
    expect_figures_true();
  }
  EXPECT_EQ(finish(whole_), 450 * KiB);
}

TEST_F(StorePartialsTest, GiveWayInTheOrderOfUse) {
  const Digest old = cellar_.fill(noise(200 * KiB, 10));
  cellar_.pass(60s);
  break_off(whole_, 300 * KiB);
  cellar_.pass(60s);
  const Digest young = cellar_.fill(noise(200 * KiB, 11));
  cellar_.pass(60s);
  cellar_.fill(noise(400 * KiB, 12));  // 1,100 of 1,024 KiB: the oldest goes.
  EXPECT_FALSE(store().size_of_blob(old));
  EXPECT_TRUE(store().resumable(of_whole_));
  cellar_.fill(noise(200 * KiB, 13));
  EXPECT_FALSE(store().resumable(of_whole_));
  EXPECT_TRUE(store().size_of_blob(young));
  EXPECT_EQ(partial_files(), 0u);
  expect_figures_true();
}

TEST_F(StorePartialsTest, TakeNoMoreRoomThanThereIs) {
  break_off(whole_, 300 * KiB);
  // A resumed blob needs room for what is missing only.
  auto others = begun(noise(MiB - 500 * KiB, 20), 1);
  auto writer = resume(whole_);
  EXPECT_EQ(writer->written_bytes(), 300 * KiB);
  others.reset();
  writer.reset();
  cellar_.settle();
  EXPECT_EQ(finish(whole_), 300 * KiB);
  EXPECT_LE(cellar_.disk.take_peak_bytes(), MiB);
}

TEST_F(StorePartialsTest, StayWhenThereIsNoRoomToGoOn) {
  break_off(whole_, 100 * KiB);
  auto others = begun(noise(800 * KiB, 20), 1);
  EXPECT_EQ(failure_of([&] { cellar_.run(store().resume(of_whole_, whole_.size())); }),
            Errc::storage_full);
  others.reset();
  cellar_.settle();
  EXPECT_EQ(finish(whole_), 100 * KiB);
}

TEST_F(StorePartialsTest, NobodyAsksForAreRoomForOthersAfterADay) {
  break_off(whole_, 300 * KiB);
  cellar_.pass(24h - 30s);
  EXPECT_TRUE(store().resumable(of_whole_));
  expire();
  EXPECT_FALSE(store().resumable(of_whole_));
  EXPECT_EQ(partial_files(), 0u);
  expect_figures_true();
}

TEST_F(StorePartialsTest, AreSweptWithoutTheIndexThatVouchesForThem) {
  break_off(whole_, 300 * KiB);
  cellar_.close();
  cellar_.restore_index({});
  cellar_.make();
  cellar_.open();
  EXPECT_EQ(partial_files(), 0u);
  EXPECT_EQ(finish(whole_), 0u);
}

TEST_F(StorePartialsTest, AreReplacedByATransferThatBeginsAnew) {
  break_off(whole_, 300 * KiB);
  {
    auto writer = cellar_.begin(whole_);
    EXPECT_EQ(writer->written_bytes(), 0u);
    EXPECT_EQ(partial_files(), 1u);
  }
  cellar_.settle();
  EXPECT_EQ(partial_files(), 0u);
  expect_figures_true();
}

TEST_F(StorePartialsTest, ThatCannotBeRemovedKeepATransferFromBeginningAnew) {
  break_off(whole_, 300 * KiB);
  cellar_.disk.fail(Call::remove, EIO);
  EXPECT_EQ(failure_of([&] { cellar_.begin(whole_); }), Errc::storage_failed);
  EXPECT_EQ(finish(whole_), 300 * KiB);
}

TEST_F(StorePartialsTest, CountForAsLongAsAReaderHasThem) {
  auto writer = begun(whole_, 300 * KiB);
  auto reader = writer->blob();
  writer->abandon(gone);
  writer.reset();
  expire();
  EXPECT_EQ(partial_files(), 0u);
  EXPECT_EQ(stats().bytes, 300 * KiB) << "its space is not free yet";
  reader.reset();
  expect_figures_true();
}

TEST_F(StorePartialsTest, ThatCannotBeRemovedStayCounted) {
  break_off(whole_, 300 * KiB);
  cellar_.disk.fail(Call::remove, EIO);
  expire();
  EXPECT_EQ(partial_files(), 1u);
  expect_figures_true();
  cellar_.pass(11s);
  EXPECT_EQ(partial_files(), 0u);
  expect_figures_true();
}

}  // namespace
}  // namespace staithe::cache
