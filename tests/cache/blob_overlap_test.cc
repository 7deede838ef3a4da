// Writes of one blob that overlap: each is written and hashed while others are.
#include <algorithm>
#include <numeric>
#include <random>

#include "tests/cache/store_fixture.h"

namespace staithe::cache {
namespace {

class BlobOverlapTest : public StoreTest {
 protected:
  static constexpr std::size_t piece_bytes = 10'000;

  BlobOverlapTest() {
    cellar_.keep_small_partials();
    cellar_.restart();
  }

  using Write = Cellar::Running<void>;
  // One piece after the other, without waiting for any.
  std::vector<Write> start_all(BlobWriter& writer, const std::string& bytes) {
    std::vector<Write> writes;
    for (std::size_t at = 0; at < bytes.size(); at += piece_bytes) {
      EXPECT_TRUE(writer.in_order(at));
      writes.push_back(cellar_.start(writer.write(
          at, std::span(bytes).subspan(at, std::min(piece_bytes, bytes.size() - at)))));
    }
    return writes;
  }
  // The end of all; what the first that failed said.
  std::optional<Errc> wait_all(std::vector<Write>& writes) {
    cellar_.run_until([&] { return std::ranges::all_of(writes, &Write::done); });
    std::optional<Errc> first;
    for (Write& write : writes) {
      const auto failed = failure_of([&] { write.get(); });
      if (!first) first = failed;
    }
    return first;
  }

  const std::string whole_ = noise(50'000, 7);
  const Digest of_whole_ = digest_of(whole_);
};

TEST_F(BlobOverlapTest, NoByteIsReadBeforeItIsWritten) {
  auto writer = cellar_.begin(whole_);
  const auto first = cellar_.disk.hold(Call::write);
  auto writes = start_all(*writer, whole_);
  cellar_.meet(first);
  EXPECT_EQ(writer->blob()->present().bytes(), 0u);
  const auto third = cellar_.disk.hold(Call::write, 1);
  first->open();
  cellar_.meet(third);
  cellar_.run_until([&] { return writer->written_bytes() == 2 * piece_bytes; });
  cellar_.poll();
  EXPECT_EQ(writer->blob()->present().bytes(), 2 * piece_bytes);
  EXPECT_FALSE(writes[2].done());
  third->open();
  EXPECT_EQ(wait_all(writes), std::nullopt);
  cellar_.run(writer->commit());
  EXPECT_TRUE(cellar_.read(of_whole_) == whole_);
  EXPECT_EQ(cellar_.disk.calls(Call::read), 0u) << "hashed on its way, not read back";
}

TEST_F(BlobOverlapTest, AFaultOfAnyOfThemEndsAllAndNothingIsKept) {
  for (std::uint64_t k = 0; k < whole_.size() / piece_bytes; ++k) {
    SCOPED_TRACE(k);
    auto writer = cellar_.begin(whole_);
    const auto gate = cellar_.disk.hold(Call::write, static_cast<int>(k));
    auto writes = start_all(*writer, whole_);
    cellar_.meet(gate);
    cellar_.disk.fail(Call::write, EIO);
    gate->open();
    EXPECT_EQ(wait_all(writes), Errc::storage_failed);
    EXPECT_EQ(writer->written_bytes(), k * piece_bytes) << "nothing behind it is taken";
    // Even if it is given up for a reason that says nothing of the bytes.
    writer->abandon({Errc::unreachable, "played"});
    writer.reset();
    cellar_.settle();
    EXPECT_EQ(store().resumable(of_whole_), std::nullopt);
    EXPECT_EQ(cellar_.files_in(cellar_.layout().partial()), 0u);
    expect_figures_true();
    cellar_.pass(std::chrono::seconds(10));
    cellar_.settle();  // The store tries the disk again, and the gate counts its write, too.
  }
}

TEST_F(BlobOverlapTest, CancelledTheyEndOnceTheyAreDoneWithTheBytesAndTheseAreKept) {
  auto writer = cellar_.begin(whole_);
  const auto gate = cellar_.disk.hold(Call::write, 1);
  auto writes = start_all(*writer, whole_);
  cellar_.meet(gate);
  for (Write& write : writes) write.cancel();
  cellar_.poll();
  EXPECT_FALSE(writes[1].done());
  EXPECT_FALSE(writes[4].done());
  gate->open();
  cellar_.run_until([&] { return std::ranges::all_of(writes, &Write::done); });
  EXPECT_EQ(writer->written_bytes(), whole_.size());
  writer->abandon({Errc::cancelled, "stopping"});
  writer.reset();
  cellar_.restart();
  EXPECT_EQ(store().resumable(of_whole_), whole_.size());
  writer = cellar_.run(store().resume(of_whole_, whole_.size()));
  cellar_.run(writer->recover());
  EXPECT_EQ(writer->written_bytes(), whole_.size());
  cellar_.run(writer->commit());
  EXPECT_TRUE(cellar_.read(of_whole_) == whole_);
}

TEST_F(BlobOverlapTest, NoMarkVouchesForAByteThatIsNotWritten) {
  auto writer = cellar_.begin(whole_);
  const auto gate = cellar_.disk.hold(Call::write, 2);
  auto writes = start_all(*writer, whole_);
  cellar_.meet(gate);  // All of it may be hashed by now.
  cellar_.pass(std::chrono::seconds(2));
  cellar_.disk.lose_power();
  gate->open();
  EXPECT_EQ(wait_all(writes), Errc::storage_failed);
  writer.reset();
  cellar_.crash(Loss::nothing);
  EXPECT_LE(store().resumable(of_whole_).value_or(0), 2 * piece_bytes);
  for (const std::string& report : cellar_.reports)
    EXPECT_EQ(report.find("partial blob damaged"), std::string::npos) << report;
  cellar_.fill(whole_);
  EXPECT_TRUE(cellar_.read(of_whole_) == whole_);
}

TEST_F(BlobOverlapTest, WrongBytesAmongThemAreNotCommitted) {
  std::string wrong = whole_;
  wrong[3 * piece_bytes + 5] ^= 1;
  auto writer = cellar_.begin(whole_);
  auto writes = start_all(*writer, wrong);
  EXPECT_EQ(wait_all(writes), std::nullopt);
  EXPECT_EQ(failure_of([&] { cellar_.run(writer->commit()); }), Errc::digest_invalid);
  writer.reset();
  cellar_.settle();
  EXPECT_FALSE(cellar_.on_disk(of_whole_));
}

// Several connections: each brings its part in order, several pieces at once.
TEST_F(BlobOverlapTest, AnyOrderOfThemMakesTheBlob) {
  std::mt19937 random(11);
  for (int round = 0; round < 60; ++round) {
    SCOPED_TRACE(round);
    const std::string bytes = noise(20'000 + random() % 80'000, 1000 + round);
    auto writer = cellar_.begin(bytes);
    auto hashing = cellar_.start(writer->hash_along());
    struct Part {
      std::size_t at, end;
    };
    std::vector<Part> parts;
    for (std::size_t at = 0; at < bytes.size();) {
      const std::size_t end = std::min<std::size_t>(bytes.size(), at + 1 + random() % 30'000);
      parts.push_back({at, end});
      at = end;
    }
    std::vector<Write> writes;
    while (!parts.empty()) {
      Part& part = parts[random() % parts.size()];
      const std::size_t size = std::min<std::size_t>(part.end - part.at, 1 + random() % 9'000);
      const bool alone = !writer->in_order(part.at);
      writes.push_back(
          cellar_.start(writer->write(part.at, std::span(bytes).subspan(part.at, size))));
      if (alone || random() % 4 == 0) cellar_.wait(writes.back());
      part.at += size;
      std::erase_if(parts, [](const Part& p) { return p.at == p.end; });
    }
    EXPECT_EQ(wait_all(writes), std::nullopt);
    cellar_.wait(hashing);
    cellar_.run(writer->commit());
    writer.reset();
    ASSERT_TRUE(cellar_.read(digest_of(bytes)) == bytes);
    expect_figures_true();
  }
}

}  // namespace
}  // namespace staithe::cache
