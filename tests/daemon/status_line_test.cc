#include "daemon/status_line.h"

#include <gtest/gtest.h>

namespace staithe::daemon {
namespace {

StatusFigures figures() {
  StatusFigures f{.connections = 12, .transfers = 1, .cache = {}, .hit_ratio = 0.934, .fault = {}};
  f.cache.bytes = 3ULL << 30;
  f.cache.max_bytes = 80ULL << 30;
  return f;
}

TEST(StatusLine, SaysWhatIsServedAndHeld) {
  EXPECT_EQ(status_line(figures()),
            "serving; 12 connections, 1 transfer; 3.0 GiB of 80.0 GiB cached, 93% hits");
}

TEST(StatusLine, LeavesOutHitsBeforeTheFirst) {
  StatusFigures f = figures();
  f.hit_ratio.reset();
  EXPECT_EQ(status_line(f), "serving; 12 connections, 1 transfer; 3.0 GiB of 80.0 GiB cached");
}

TEST(StatusLine, SaysThatTheCacheTakesNothingAndWhy) {
  StatusFigures f = figures();
  f.cache.mode = cache::Store::Mode::pass_through;
  f.cache.mode_reason = "the disk is full";
  EXPECT_TRUE(status_line(f).ends_with("; the cache takes nothing: the disk is full"));
  f.cache.mode = cache::Store::Mode::read_only;
  EXPECT_TRUE(status_line(f).ends_with("; the cache is read only: the disk is full"));
}

TEST(StatusLine, StaysOneLineWhateverAFaultSays) {
  StatusFigures f = figures();
  f.fault = "a:1: b\nREADY=1" + std::string(5000, 'x');
  const std::string line = status_line(f);
  EXPECT_EQ(line.find('\n'), std::string::npos);
  EXPECT_LT(line.size(), 500U);
  EXPECT_NE(line.find("configuration not reloaded: a:1: b READY=1"), std::string::npos) << line;
}

}  // namespace
}  // namespace staithe::daemon
