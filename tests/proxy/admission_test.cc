#include "proxy/admission.h"

#include <gtest/gtest.h>

#include <array>

namespace staithe::proxy {
namespace {

using namespace std::chrono_literals;

constexpr Instant now{1h};

TEST(Pass, CoversWhatWasNotedUnderTheSameRulesUntilItsEnd) {
  RequestMeter meter;
  RequestMeter::Registry& ours = meter.registry("ours");
  RequestMeter::Registry& other = meter.registry("other");
  Pass pass;
  EXPECT_FALSE(pass.covers(&ours, 0, now)) << "nothing is noted yet";
  EXPECT_FALSE(pass.covers(nullptr, 0, now));
  pass.note(&ours, 1, now + 1min);
  EXPECT_TRUE(pass.covers(&ours, 1, now));
  EXPECT_TRUE(pass.covers(&ours, 1, now + 1min - 1ns));
  EXPECT_FALSE(pass.covers(&ours, 1, now + 1min));
  EXPECT_FALSE(pass.covers(&other, 1, now));
  EXPECT_FALSE(pass.covers(nullptr, 1, now));
  EXPECT_FALSE(pass.covers(&ours, 2, now)) << "the rules have changed";
  EXPECT_FALSE(pass.covers(&ours, 0, now));
}

TEST(Pass, ForgetsWhatWasNotedUnderOtherRules) {
  RequestMeter meter;
  Pass pass;
  pass.note(&meter.registry("ours"), 1, Instant::max());
  pass.note(&meter.registry("other"), 2, Instant::max());
  EXPECT_TRUE(pass.covers(&meter.registry("other"), 2, now));
  for (const std::uint64_t version : {1U, 2U})
    EXPECT_FALSE(pass.covers(&meter.registry("ours"), version, now)) << version;
}

TEST(Pass, TakesTheLastWordAboutARegistry) {
  RequestMeter meter;
  Pass pass;
  pass.note(&meter.registry("ours"), 1, Instant::max());
  pass.note(&meter.registry("ours"), 1, now);
  EXPECT_FALSE(pass.covers(&meter.registry("ours"), 1, now));
}

TEST(Pass, IsForAFewRegistriesAndDropsTheOldest) {
  RequestMeter meter;
  Pass pass;
  for (int i = 0; i < 10; ++i) pass.note(&meter.registry(std::to_string(i)), 1, Instant::max());
  for (std::size_t i = 0; i < 10; ++i)
    EXPECT_EQ(pass.covers(&meter.registry(std::to_string(i)), 1, now),
              i >= 10 - Pass::most_registries)
        << i;
}

}  // namespace
}  // namespace staithe::proxy
