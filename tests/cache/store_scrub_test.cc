// The background scrub, and verifying everything at once.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sched.h>

#include <fstream>
#include <limits>

#include "tests/cache/store_fixture.h"

namespace staithe::cache {
namespace {

using namespace std::chrono_literals;
using State = Scrub::State;
using testing::Contains;
using testing::HasSubstr;
using testing::SizeIs;
using testing::StartsWith;
using testing::UnorderedElementsAre;

class ScrubTest : public StoreTest {
 protected:
  // A look every hour, and due is what was not verified for seven.
  ScrubTest() { store().scrub().set_interval(8h); }

  Scrub::Figures figures() const { return cellar_.store->scrub().figures(); }
  bool at_work() const {
    const State state = figures().state;
    return state == State::running || state == State::yielding;
  }
  // To the next instant at which something is to happen, and until it has happened.
  void tick() {
    cellar_.clock.advance_to_next();
    cellar_.settle();
    cellar_.pass(0s);
  }
  // Until the first object of a pass is read.
  void begin_pass() {
    const auto before = figures().began;
    while (figures().began == before) {
      if (const auto next = figures().next; next && *next - 10s > cellar_.clock.now())
        cellar_.pass(*next - 10s - cellar_.clock.now());
      tick();
    }
  }
  void finish_pass() {
    while (at_work()) tick();
  }
  void scrub() {
    begin_pass();
    finish_pass();
  }
  std::size_t set_aside_reports() const {
    return std::ranges::count_if(
        cellar_.reports, [](const auto& line) { return line.starts_with("object set aside"); });
  }
};

TEST_F(ScrubTest, FindsWhatHasDecayedAndLeavesTheRest) {
  const auto ten = fill_ten();
  const auto damage = [&](int i, std::string bytes) {
    cellar_.disk.damage(cellar_.path(ten[i]), bytes);
  };
  const auto bytes_of = [](int i) { return noise(100 * KiB, 10 + i); };
  std::string flipped = bytes_of(1);
  flipped[50'000] ^= 1;
  damage(1, flipped);
  damage(3, bytes_of(3).substr(0, 70'000));
  damage(4, std::string(100 * KiB, '\0'));
  damage(6, bytes_of(7));
  damage(7, bytes_of(6));
  damage(9, bytes_of(9) + "x");
  const auto manifest = cellar_.put_manifest("{\"n\":1}");
  const auto good_manifest = cellar_.put_manifest("{\"n\":2}");
  cellar_.disk.damage(cellar_.path(manifest, ObjectKind::manifest), "x/y\n{\"n\":3}");
  scrub();
  EXPECT_EQ(stored_of(ten), (std::vector<int>{0, 2, 5, 8}));
  EXPECT_FALSE(store().has_manifest(manifest));
  EXPECT_TRUE(store().has_manifest(good_manifest));
  EXPECT_EQ(stats().quarantined, 7u);
  EXPECT_EQ(set_aside_reports(), 7u);
  EXPECT_EQ(figures().pass.damaged, 7u);
  EXPECT_EQ(figures().pass.objects, 12u);
  EXPECT_EQ(figures().pass.total_objects, 12u);
  EXPECT_EQ(figures().pass.bytes, figures().pass.total_bytes);
  expect_figures_true();
  cellar_.fill(bytes_of(4));
  EXPECT_EQ(cellar_.read(ten[4]), bytes_of(4));
  scrub();
  EXPECT_EQ(figures().pass.objects, 6u);
  EXPECT_EQ(stats().quarantined, 7u);
}

TEST_F(ScrubTest, ReadsEachObjectOnceInAnInterval) {
  fill_ten();
  const auto began = cellar_.clock.now();
  std::uint64_t reads = cellar_.disk.calls(Call::read);
  for (int round = 1; round <= 3; ++round) {
    scrub();
    EXPECT_EQ(cellar_.disk.calls(Call::read) - reads, 10u * round);
  }
  const auto took = cellar_.clock.now() - began;
  EXPECT_GE(took, 3 * 7h);
  EXPECT_LE(took, 3 * 8h + 1h);
}

TEST_F(ScrubTest, WhatAReaderHasVerifiedIsNotDue) {
  const auto ten = fill_ten();
  cellar_.restart();
  store().scrub().set_interval(8h);
  cellar_.pass(6h);
  for (const int read : {2, 5}) EXPECT_TRUE(cellar_.read(ten[read]));
  scrub();
  EXPECT_EQ(figures().pass.total_objects, 8u);
}

TEST_F(ScrubTest, GoesOnAfterARestartWithTheOneVerifiedLongestAgo) {
  std::vector<Digest> digests;
  for (int i = 0; i < 8; ++i) {
    digests.push_back(cellar_.fill(noise(10 * KiB, 10 + i)));
    cellar_.pass(2s);
  }
  EXPECT_TRUE(cellar_.read(digests[0]));  // The order of use is another.
  for (const int damaged : {0, 7})
    cellar_.disk.damage(cellar_.path(digests[damaged]), std::string(10 * KiB, 'x'));
  begin_pass();
  while (figures().pass.objects < 3) tick();
  EXPECT_EQ(stats().quarantined, 1u);
  EXPECT_EQ(store().size_of_blob(digests[0]), std::nullopt);
  cellar_.pass(0s);
  const std::size_t left = 8 - figures().pass.objects;
  cellar_.scrub_interval = 8h;
  cellar_.restart();
  EXPECT_EQ(figures().pass.total_objects, 0u);
  const auto start = cellar_.clock.now();
  begin_pass();
  EXPECT_LE(cellar_.clock.now() - start, 2min);
  EXPECT_EQ(figures().pass.total_objects, left);
  EXPECT_EQ(stats().quarantined, 0u);
  finish_pass();
  EXPECT_EQ(stats().quarantined, 1u);
  EXPECT_EQ(store().size_of_blob(digests[7]), std::nullopt);
}

TEST_F(ScrubTest, AnIndexThatWasLostMakesEverythingDueAtOnce) {
  fill_ten();
  cellar_.close();
  cellar_.restore_index({});
  cellar_.scrub_interval = 8h;
  cellar_.make();
  cellar_.open();
  begin_pass();
  finish_pass();
  EXPECT_EQ(figures().pass.objects, 10u);
}

TEST_F(ScrubTest, IsOffAtAnIntervalOfZeroAndOnAgainAfterAReload) {
  fill_ten();
  store().scrub().set_interval(0h);
  const std::uint64_t reads = cellar_.disk.calls(Call::read);
  cellar_.pass(100h);
  EXPECT_EQ(cellar_.disk.calls(Call::read), reads);
  EXPECT_EQ(figures().state, State::off);
  store().scrub().set_interval(8h);
  EXPECT_EQ(figures().state, State::waiting);
  begin_pass();
  store().scrub().set_interval(0h);
  finish_pass();
  EXPECT_LT(figures().pass.objects, 10u);
}

class LargeScrubTest : public ScrubTest {
 protected:
  LargeScrubTest() {
    cellar_.close();
    large_.scrub_interval = 8h;
    large_.make();
    large_.open();
    digest_of_large_ = large_.fill(noise(40 * MiB, 4));
    large_.pass(7h);
  }
  void tick() {
    large_.clock.advance_to_next();
    large_.settle();
    large_.pass(0s);
  }
  State state() const { return large_.store->scrub().figures().state; }
  // How many steps the scrub makes while this time passes.
  std::uint64_t steps_in(std::chrono::nanoseconds time) {
    const Instant until = large_.clock.now() + time;
    const std::uint64_t before = large_.disk.calls(Call::read);
    while (large_.clock.now() < until) tick();
    return large_.disk.calls(Call::read) - before;
  }

  Cellar large_{Cellar::Unopened(), {.bytes = 100 * MiB}};
  Digest digest_of_large_ = digest_;
};

TEST_F(LargeScrubTest, KeepsToItsRateAndStandsBackForTraffic) {
  while (state() == State::waiting) tick();
  EXPECT_LE(steps_in(250ms), 9u);
  EXPECT_GE(steps_in(125ms), 3u);
  EXPECT_EQ(state(), State::running);
  {
    const auto writer = large_.begin(noise(MiB, 5));
    steps_in(500ms);
    EXPECT_EQ(state(), State::yielding);
    const std::uint64_t steps = steps_in(3s);
    EXPECT_GE(steps, 5u) << "it gets on";
    EXPECT_LE(steps, 7u);
  }
  {
    const auto blob = large_.run(large_.store->find(digest_of_large_));
    const Blob::Reading reading(*blob);
    steps_in(1s);
    EXPECT_EQ(state(), State::yielding) << "somebody reads a blob";
  }
  steps_in(1s);
  while (state() != State::waiting) tick();
  const auto figures = large_.store->scrub().figures();
  EXPECT_EQ(figures.pass.objects, 1u);
  EXPECT_EQ(figures.pass.bytes, 40 * MiB);
}

TEST_F(LargeScrubTest, ABlobThatIsEvictedIsLetGoAtTheNextStep) {
  large_.disk.damage(large_.path(digest_of_large_), noise(40 * MiB, 6));
  while (state() == State::waiting) tick();
  steps_in(100ms);
  large_.fill(noise(90 * MiB, 7));
  ASSERT_EQ(large_.store->size_of_blob(digest_of_large_), std::nullopt);
  const std::uint64_t reads = large_.disk.calls(Call::read);
  while (state() != State::waiting) tick();
  EXPECT_LE(large_.disk.calls(Call::read) - reads, 2u);
  EXPECT_EQ(large_.store->stats().quarantined, 0u);
}

TEST_F(LargeScrubTest, ReadsOnAThreadThatGetsWhatNobodyElseWants) {
  const auto gate = large_.disk.hold(Call::read);
  while (!gate->reached()) {
    large_.clock.advance_to_next();
    large_.poll();
    if (state() != State::waiting) large_.meet(gate);
  }
  int idle = 0;
  for (const auto& task : std::filesystem::directory_iterator("/proc/self/task"))
    if (::sched_getscheduler(std::stoi(task.path().filename())) == SCHED_IDLE) ++idle;
  EXPECT_EQ(idle, 1);
  gate->open();
}

TEST_F(ScrubTest, AWallClockThatJumpsCausesOnePassAndNoneTooFew) {
  fill_ten();
  scrub();
  for (const auto jump : {87600h, -87600h, -1000h, 1000h}) {
    SCOPED_TRACE(jump.count());
    cellar_.clock.jump_wall(jump);
    const std::uint64_t reads = cellar_.disk.calls(Call::read);
    cellar_.pass(30min);
    cellar_.pass(30min);
    cellar_.pass(2h);
    for (int i = 0; i < 20 * 60; ++i) tick();
    EXPECT_EQ(cellar_.disk.calls(Call::read) - reads, 10u) << "all of it is due, and once";
    cellar_.pass(2h);
    EXPECT_EQ(cellar_.disk.calls(Call::read) - reads, 10u);
  }
  // One that never stands still: a pass per look at most.
  const std::uint64_t reads = cellar_.disk.calls(Call::read);
  for (int i = 0; i < 60; ++i) {
    cellar_.clock.jump_wall(i % 2 == 0 ? 1000h : -1000h);
    cellar_.pass(1min);
  }
  EXPECT_LE(cellar_.disk.calls(Call::read) - reads, 20u);
}

TEST_F(ScrubTest, WhatWasReplacedWhileItWasReadIsNotJudged) {
  cellar_.fill(bytes_);
  cellar_.disk.damage(cellar_.path(digest_), noise(bytes_.size(), 5));
  cellar_.pass(7h);
  const auto gate = cellar_.disk.hold(Call::read);
  while (!gate->reached()) {
    cellar_.clock.advance_to_next();
    cellar_.poll();
    if (at_work()) cellar_.meet(gate);
  }
  // Its file goes, and another comes, while the scrub has the old one open.
  std::filesystem::remove(cellar_.path(digest_));
  cellar_.fill(bytes_);
  gate->open();
  cellar_.pass(0s);
  finish_pass();
  EXPECT_EQ(stats().quarantined, 0u);
  EXPECT_EQ(cellar_.read(digest_), bytes_);
}

TEST_F(ScrubTest, AReaderAtThatMomentIsCutOffAndTheNextOneGetsTheRightBytes) {
  cellar_.fill(bytes_);
  const auto blob = find(digest_);
  ASSERT_TRUE(blob->whole());
  cellar_.disk.damage(cellar_.path(digest_), noise(bytes_.size(), 5));
  scrub();
  EXPECT_EQ(stats().quarantined, 1u);
  EXPECT_EQ(failure_of([&] { cellar_.run(blob->wait_past(1000)); }), Errc::storage_failed);
  EXPECT_EQ(find(digest_), nullptr);
  cellar_.fill(bytes_);
  EXPECT_EQ(cellar_.read(digest_), bytes_);
}

TEST_F(ScrubTest, AFirstReaderAtThatMomentIsCutOffToo) {
  cellar_.fill(bytes_);
  cellar_.scrub_interval = 8h;
  cellar_.restart();
  cellar_.disk.damage(cellar_.path(digest_), noise(bytes_.size(), 5));
  cellar_.pass(7h);
  const auto gate = cellar_.disk.hold(Call::read);
  while (!gate->reached()) {
    cellar_.clock.advance_to_next();
    cellar_.poll();
    if (at_work()) cellar_.meet(gate);
  }
  auto read = cellar_.start([](Store& from, Digest digest) -> asio::awaitable<std::string> {
    co_return co_await read_blob(co_await from.find(digest));
  }(store(), digest_));
  EXPECT_EQ(failure_of([&] { cellar_.wait(read); }), Errc::storage_failed);
  gate->open();
  cellar_.pass(0s);
  finish_pass();
  EXPECT_EQ(stats().quarantined, 1u);
  EXPECT_EQ(set_aside_reports(), 1u);
}

TEST_F(ScrubTest, ADiskThatFailsDoesNotCostTheCache) {
  const auto ten = fill_ten();
  cellar_.disk.fail(Call::read, EIO, std::numeric_limits<int>::max());
  scrub();
  EXPECT_THAT(stored_of(ten), SizeIs(7));
  EXPECT_THAT(cellar_.reports, Contains(StartsWith("scrub broken off")));
  cellar_.disk.heal();
  scrub();
  EXPECT_EQ(figures().pass.objects, 7u);
  EXPECT_EQ(figures().pass.damaged, 0u);
}

class VerifyAllTest : public ScrubTest {
 protected:
  Verification verify_all(Scrub::Progress progress = {}) {
    return cellar_.run(store().scrub().verify_all(std::move(progress)));
  }
};

TEST_F(VerifyAllTest, ReadsEverythingAndNamesWhatIsDamaged) {
  const auto ten = fill_ten();
  const auto manifest = cellar_.put_manifest("{\"n\":1}");
  cellar_.disk.damage(cellar_.path(ten[2]), noise(100 * KiB, 99));
  cellar_.disk.damage(cellar_.path(manifest, ObjectKind::manifest), "");
  std::size_t steps = 0;
  const auto result = verify_all([&](const Verification& so_far) -> asio::awaitable<void> {
    EXPECT_EQ(so_far.total_objects, 11u);
    EXPECT_LE(so_far.objects, 11u);
    ++steps;
    co_return;
  });
  EXPECT_GE(steps, 11u);
  EXPECT_EQ(result.objects, 11u);
  EXPECT_EQ(result.bytes, result.total_bytes);
  EXPECT_EQ(result.damaged, 2u);
  EXPECT_THAT(result.damaged_digests, UnorderedElementsAre(ten[2], manifest));
  EXPECT_EQ(result.unreadable, 0u);
  EXPECT_EQ(result.broken_off, "");
  EXPECT_EQ(stats().quarantined, 2u);
  const auto again = verify_all();
  EXPECT_EQ(again.objects, 9u);
  EXPECT_EQ(again.damaged, 0u);
  cellar_.pass(5h);
  EXPECT_EQ(figures().began, std::nullopt) << "what was verified is not due";
}

TEST_F(VerifyAllTest, WhatCannotBeOpenedIsNamedAndStays) {
  const auto ten = fill_ten();
  cellar_.restart();
  cellar_.disk.fail(Call::open, EMFILE, 2);
  const auto result = verify_all();
  EXPECT_EQ(result.unreadable, 2u);
  EXPECT_THAT(result.unreadable_digests, SizeIs(2));
  EXPECT_EQ(result.objects, 10u);
  EXPECT_THAT(stored_of(ten), SizeIs(10));
  cellar_.disk.fail(Call::open, EMFILE, std::numeric_limits<int>::max());
  const auto broken = verify_all();
  EXPECT_EQ(broken.objects, 3u);
  EXPECT_THAT(broken.broken_off, HasSubstr("in a row"));
}

TEST_F(VerifyAllTest, EndsWhenNobodyListensAnyMore) {
  fill_ten();
  const std::uint64_t reads = cellar_.disk.calls(Call::read);
  EXPECT_EQ(failure_of([&] {
              verify_all([](const Verification& so_far) -> asio::awaitable<void> {
                if (so_far.objects == 3) throw Failure(Errc::cancelled, "the client has left");
                co_return;
              });
            }),
            Errc::cancelled);
  EXPECT_EQ(cellar_.disk.calls(Call::read) - reads, 3u);
}

TEST_F(VerifyAllTest, BesideTheScrubCountsDamageOnce) {
  const auto ten = fill_ten();
  cellar_.disk.damage(cellar_.path(ten[0]), noise(100 * KiB, 99));
  cellar_.pass(7h);
  const auto gate = cellar_.disk.hold(Call::read);
  while (!gate->reached()) {
    cellar_.clock.advance_to_next();
    cellar_.poll();
    if (at_work()) cellar_.meet(gate);
  }
  auto all = cellar_.start(store().scrub().verify_all({}));
  EXPECT_EQ(cellar_.wait(all).damaged, 1u);
  gate->open();
  cellar_.pass(0s);
  finish_pass();
  EXPECT_EQ(stats().quarantined, 1u);
  EXPECT_EQ(set_aside_reports(), 1u);
  EXPECT_EQ(figures().pass.damaged, 0u);
}

}  // namespace
}  // namespace staithe::cache
