// A story of the store, told to its end once for every call of the disk: with the power lost there,
// and with that call failing.
//
//   STAITHE_CRASH_POINTS=10000   how many such points each test tries; once it is through with the
//                                first story, it goes on with others, made up by chance
//   STAITHE_SEED=17              begins with that story instead: the one that failed
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <iostream>
#include <map>
#include <set>

#include "tests/cache/cellar.h"
#include "tests/fake/effort.h"

namespace staithe::cache {
namespace {

using namespace std::chrono_literals;

constexpr std::uint64_t max_bytes = 256 * 1024;

class Story {
 public:
  // Seed 1 is the story that is told here, each other one is made up.
  explicit Story(std::uint64_t seed) : random_(seed) {
    for (int i = 0; i < 6; ++i)
      add(noise(seed == 1 ? 60'000 + 1000 * i : 1 + below(100'000), 70 + 10 * seed + i));
    add("");
    for (int i = 0; i < 3; ++i) manifests_.push_back("{\"n\":" + std::to_string(i) + "}");
    if (seed == 1) {
      steps_ = {
          {Step::fill, 0},    {Step::fill, 1},    {Step::put, 0},  {Step::link, 0},
          {Step::give_up, 2}, {Step::pass, 1},    {Step::fill, 2}, {Step::fill, 6},
          {Step::read, 0},    {Step::fill, 3},    {Step::put, 1},  {Step::restart, 0},
          {Step::read, 3},    {Step::read, 0},    {Step::fill, 4}, {Step::put, 2},
          {Step::give_up, 5}, {Step::restart, 0}, {Step::fill, 5},
      };
      return;
    }
    for (int i = 0; i < 20; ++i) {
      static constexpr Step steps[] = {Step::fill, Step::fill, Step::fill,    Step::read, Step::put,
                                       Step::link, Step::pass, Step::give_up, Step::fill};
      steps_.push_back({steps[below(std::size(steps))], static_cast<int>(below(7))});
      if (i % 8 == 7) steps_.push_back({Step::restart, 0});
    }
  }

  // Goes on after each failure, as a daemon does; leaves no store if that could not start.
  void tell(Cellar& cellar) {
    if (!start(cellar)) return;
    for (const auto& [step, number] : steps_) {
      switch (step) {
        case Step::fill:
          fill(cellar, number);
          break;
        case Step::give_up:
          give_up(cellar, number);
          break;
        case Step::read:
          read(cellar, number);
          break;
        case Step::put:
          put(cellar, number % 3);
          break;
        case Step::link:
          cellar.store->link("r/app", digests_[number]);
          break;
        case Step::pass:
          cellar.pass(std::chrono::seconds(number));
          break;
        case Step::restart:
          note_promises(cellar);
          cellar.close();
          if (!start(cellar)) return;
      }
    }
    note_promises(cellar);
  }

  void expect_no_wrong_byte(Cellar& cellar) const {
    for (const Digest& digest : digests_) {
      std::optional<std::string> read;
      failure_of([&] { read = cellar.read(digest); });
      if (read) EXPECT_EQ(*read == blobs_.at(digest), true) << digest.to_string();
    }
    for (const std::string& manifest : manifests_) {
      const auto read = cellar.manifest(digest_of(manifest));
      if (read) EXPECT_EQ(read->bytes, manifest);
    }
  }

  // After a good start.
  void expect_sound(Cellar& cellar) const {
    EXPECT_EQ(cellar.store->stats().bytes, cellar.bytes_on_disk());
    EXPECT_LE(cellar.bytes_on_disk(), max_bytes);
    // Removed files may be back and the index may not know the newest, so what had to go again at
    // the start may be any of them.
    const bool crowded = cellar.store->stats().evicted > 0;
    for (const Digest& digest : promised_) {
      if (crowded && !cellar.store->size_of_blob(digest)) continue;
      std::optional<std::string> read;
      EXPECT_FALSE(failure_of([&] { read = cellar.read(digest); }));
      EXPECT_TRUE(read == blobs_.at(digest)) << "promised " << digest.to_string();
    }
    for (const Digest& digest : promised_manifests_)
      if (!crowded || cellar.store->has_manifest(digest))
        EXPECT_NE(cellar.manifest(digest), nullptr) << "promised " << digest.to_string();
    expect_no_wrong_byte(cellar);
    cellar.settle();
    EXPECT_EQ(cellar.store->stats().bytes, cellar.bytes_on_disk());
    const std::string more = noise(max_bytes, 5);
    EXPECT_FALSE(failure_of([&] { cellar.fill(more); })) << "all of the room can be had";
    EXPECT_EQ(cellar.read(digest_of(more)), more);
    EXPECT_EQ(cellar.bytes_on_disk(), max_bytes);
  }

 private:
  enum class Step { fill, give_up, read, put, link, pass, restart };

  std::uint64_t below(std::uint64_t bound) { return random_.next() % bound; }
  void add(std::string bytes) {
    digests_.push_back(digest_of(bytes));
    blobs_.emplace(digests_.back(), std::move(bytes));
  }
  // A start that fails is tried again, as the service manager does.
  static bool start(Cellar& cellar) {
    for (int i = 0; i < 2; ++i) {
      cellar.make();
      if (!failure_of([&] { cellar.open(); })) return true;
      cellar.close();
    }
    return false;
  }
  void fill(Cellar& cellar, int number) {
    failure_of([&] {
      if (cellar.run(cellar.store->find(digests_[number]))) return;
      cellar.fill(blobs_.at(digests_[number]));
      committed_.insert(digests_[number]);
    });
    cellar.settle();
  }
  void give_up(Cellar& cellar, int number) {
    failure_of([&] {
      const auto writer = cellar.begin(blobs_.at(digests_[number]));
      // Half of it: the next one goes on from there.
      const std::string& bytes = blobs_.at(digests_[number]);
      cellar.append(*writer, std::string_view(bytes).substr(0, bytes.size() / 4));
      cellar.append(*writer, std::string_view(bytes).substr(bytes.size() / 4, bytes.size() / 4));
    });
    cellar.settle();
  }
  void put(Cellar& cellar, int number) {
    cellar.store->put_manifest(manifest_of(manifests_[number]));
    cellar.settle();
  }
  void read(Cellar& cellar, int number) {
    std::optional<std::string> read;
    failure_of([&] { read = cellar.read(digests_[number]); });
    if (read) EXPECT_TRUE(*read == blobs_.at(digests_[number]));
    cellar.settle();
  }
  // What was committed, is stored, and is to be found after any loss of power.
  void note_promises(Cellar& cellar) {
    promised_.clear();
    promised_manifests_.clear();
    for (const Digest& digest : digests_)
      if (committed_.contains(digest) && cellar.store->size_of_blob(digest))
        promised_.insert(digest);
    for (const std::string& manifest : manifests_)
      if (cellar.store->has_manifest(digest_of(manifest)))
        promised_manifests_.insert(digest_of(manifest));
  }

  SeededRandom random_;
  std::vector<std::pair<Step, int>> steps_;
  std::vector<Digest> digests_;
  std::map<Digest, std::string> blobs_;
  std::vector<std::string> manifests_;
  std::set<Digest> committed_;
  std::set<Digest> promised_;
  std::set<Digest> promised_manifests_;
};

// Calls `try_point(seed, k)` for k = 1, 2, ... of each story, until it says that the story has no
// such call; then for the next story, until there were enough points. With a tenth of the effort at
// every fifth call only: which of them fails makes no difference to threads.
template <class Try>
void try_all_points(Try try_point) {
  const std::uint64_t points = number_from("STAITHE_CRASH_POINTS", 1);
  const auto step = static_cast<std::uint64_t>(std::max(1, 50 / fake::effort(100)));
  std::uint64_t tried = 0;
  for (std::uint64_t seed = number_from("STAITHE_SEED", 1); tried < points; ++seed) {
    for (std::uint64_t k = 1;; k += step, ++tried) {
      SCOPED_TRACE("STAITHE_SEED=" + std::to_string(seed) + ", call " + std::to_string(k));
      const bool reached = try_point(seed, k);
      if (testing::Test::HasFailure()) return;
      if (!reached) break;
    }
  }
  testing::Test::RecordProperty("points", std::to_string(tried));
  std::cout << tried << " points\n";
}

class StoreCrashTest : public testing::TestWithParam<Loss> {};

TEST_P(StoreCrashTest, AtEachCallCostsNoPromiseAndNoStart) {
  try_all_points([](std::uint64_t seed, std::uint64_t k) {
    Cellar cellar(Cellar::Unopened(), {.bytes = max_bytes});
    cellar.keep_small_partials();
    Story story(seed);
    cellar.disk.lose_power_at(k);
    story.tell(cellar);
    const bool lost = cellar.disk.powerless();
    if (!cellar.store) cellar.make();
    cellar.die(GetParam(), k);
    cellar.make();
    cellar.open();
    story.expect_sound(cellar);
    return lost;
  });
}

INSTANTIATE_TEST_SUITE_P(Losses, StoreCrashTest,
                         testing::Values(Loss::nothing, Loss::everything, Loss::some),
                         [](const auto& info) {
                           return info.param == Loss::nothing      ? "Nothing"
                                  : info.param == Loss::everything ? "Everything"
                                                                   : "Some";
                         });

class StoreFaultTest : public testing::TestWithParam<int> {};

TEST_P(StoreFaultTest, OfEachCallInTurnCostsNoWrongByteAndNoRoom) {
  try_all_points([](std::uint64_t seed, std::uint64_t k) {
    Cellar cellar(Cellar::Unopened(), {.bytes = max_bytes});
    cellar.keep_small_partials();
    Story story(seed);
    cellar.disk.fail_at(k, GetParam());
    story.tell(cellar);
    const bool failed = cellar.disk.failed();
    cellar.disk.heal();
    EXPECT_TRUE(cellar.store) << "one fault costs one try at a start";
    if (!cellar.store) return false;
    story.expect_no_wrong_byte(cellar);
    cellar.restart();
    story.expect_sound(cellar);
    return failed;
  });
}

INSTANTIATE_TEST_SUITE_P(Errors, StoreFaultTest, testing::Values(EIO, ENOSPC),
                         [](const auto& info) { return info.param == EIO ? "Eio" : "Enospc"; });

}  // namespace
}  // namespace staithe::cache
