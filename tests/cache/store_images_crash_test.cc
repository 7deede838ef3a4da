// Pins and purges with the power lost, and with a fault, at every call of the disk.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/cache/images.h"

namespace staithe::cache {
namespace {

using namespace std::chrono_literals;

constexpr const char* app = "r.example/app";

// Two images that share a layer, one to be pinned, one to be purged, and a third by then pinned no
// more.
class Operator {
 public:
  explicit Operator(Cellar& cellar) : cellar_(cellar) {
    pull(cellar_, app, "kept", {"config of kept", base_, kept_});
    pull(cellar_, app, "gone", {"config of gone", base_, gone_});
    pull(cellar_, app, "let_go", {"config of let go", noise(1000, 9)});
    cellar_.run(cellar_.store->pin(app, "let_go"));
    cellar_.pass(1s);
  }

  // Goes on after each failure, and remembers what was promised.
  void work() {
    pinned_ = !failure_of([&] { cellar_.run(cellar_.store->pin(app, "kept")); });
    Purged purged;
    purged_ = !failure_of([&] { purged = cellar_.run(cellar_.store->purge_image(app, "gone")); }) &&
              purged.faults.empty() && purged.in_use.objects == 0;
    unpinned_ = !failure_of([&] { cellar_.run(cellar_.store->unpin(app, "let_go")); });
  }
  void expect_what_was_promised() {
    Store& store = *cellar_.store;
    EXPECT_EQ(store.stats().bytes, cellar_.bytes_on_disk());
    if (purged_) {
      EXPECT_FALSE(store.tag(app, "gone"));
      EXPECT_FALSE(store.size_of_blob(digest_of(gone_)));
    }
    if (unpinned_) EXPECT_FALSE(store.pinned(app, "let_go"));
    EXPECT_FALSE(cellar_.run(store.images()).empty());
    if (!pinned_) return;
    EXPECT_TRUE(store.pinned(app, "kept"));
    for (int i = 0; i < 6; ++i) failure_of([&] { cellar_.fill(noise(60'000, 50 + i)); });
    for (const std::string& bytes : {base_, kept_, std::string("config of kept")})
      EXPECT_EQ(cellar_.read(digest_of(bytes)), bytes);
  }

 private:
  Cellar& cellar_;
  const std::string base_ = noise(20'000, 1);
  const std::string kept_ = noise(20'000, 2);
  const std::string gone_ = noise(20'000, 3);
  bool pinned_ = false;
  bool purged_ = false;
  bool unpinned_ = false;
};

class ImagesCrashTest : public testing::TestWithParam<Loss> {};

TEST_P(ImagesCrashTest, AtEachCallLosesNoPinAndBringsNothingBack) {
  bool lost = true;
  std::uint64_t k = 1;
  for (; lost; ++k) {
    SCOPED_TRACE("call " + std::to_string(k));
    Cellar cellar({.bytes = 256 * 1024});
    Operator operator_(cellar);
    cellar.disk.lose_power_at(k);
    operator_.work();
    lost = cellar.disk.powerless();
    cellar.crash(GetParam(), k);
    operator_.expect_what_was_promised();
    if (HasFailure()) return;
  }
  EXPECT_GT(k, 15u) << "there are that many calls that change something";
}

INSTANTIATE_TEST_SUITE_P(Losses, ImagesCrashTest,
                         testing::Values(Loss::nothing, Loss::everything, Loss::some),
                         [](const auto& info) {
                           return info.param == Loss::nothing      ? "Nothing"
                                  : info.param == Loss::everything ? "Everything"
                                                                   : "Some";
                         });

class ImagesFaultTest : public testing::TestWithParam<int> {};

TEST_P(ImagesFaultTest, OfEachCallInTurnIsToldOrHarmless) {
  bool failed = true;
  for (std::uint64_t k = 1; failed; ++k) {
    SCOPED_TRACE("call " + std::to_string(k));
    Cellar cellar({.bytes = 256 * 1024});
    Operator operator_(cellar);
    cellar.disk.fail_at(k, GetParam());
    operator_.work();
    failed = cellar.disk.failed();
    cellar.disk.heal();
    cellar.restart();
    operator_.expect_what_was_promised();
    if (HasFailure()) return;
  }
}

INSTANTIATE_TEST_SUITE_P(Errors, ImagesFaultTest, testing::Values(EIO, ENOSPC),
                         [](const auto& info) { return info.param == EIO ? "Eio" : "Enospc"; });

}  // namespace
}  // namespace staithe::cache
