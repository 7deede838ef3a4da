#include "daemon/resident.h"

#include <gtest/gtest.h>

#include <stdexcept>
#include <string>
#include <vector>

namespace staithe::daemon {
namespace {

// What is needed to answer, to throw and to catch is in pages that were let go.
TEST(Resident, ProgramWorksOnWhenItsPagesWereLetGo) {
  std::vector<std::string> words;
  for (int i = 0; i < 3; ++i) {
    EXPECT_GT(release_program_pages(), 100'000u);
    release_unused_memory();
    try {
      throw std::runtime_error("word " + std::to_string(i));
    } catch (const std::exception& e) {
      words.emplace_back(e.what());
    }
  }
  EXPECT_EQ(words, (std::vector<std::string>{"word 0", "word 1", "word 2"}));
}

TEST(Resident, ProcessorTimeNeverGoesBack) {
  auto before = processor_time();
  for (int i = 0; i < 1000; ++i) {
    const auto now = processor_time();
    EXPECT_GE(now, before);
    before = now;
  }
}

}  // namespace
}  // namespace staithe::daemon
