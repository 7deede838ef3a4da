// What the tests of the store have in common: a cellar of one MiB.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <memory>
#include <string>
#include <vector>

#include "tests/cache/cellar.h"

namespace staithe::cache {

inline constexpr std::uint64_t KiB = 1024;
inline constexpr std::uint64_t MiB = 1024 * KiB;

class StoreTest : public testing::Test {
 protected:
  Store& store() { return *cellar_.store; }
  Store::Stats stats() const { return cellar_.store->stats(); }
  std::shared_ptr<Blob> find(const Digest& digest) {
    return cellar_.run(cellar_.store->find(digest));
  }
  // What the figures say is what the disk holds.
  void expect_figures_true() {
    cellar_.settle();
    EXPECT_EQ(stats().bytes, cellar_.bytes_on_disk());
  }
  static mode_t mode_of(const std::filesystem::path& path) {
    struct stat status{};
    EXPECT_EQ(::lstat(path.c_str(), &status), 0) << path;
    return status.st_mode & 07777;
  }

  Cellar cellar_{{.bytes = MiB}};
  // A hundred KiB each, so that ten fill the cache; numbered in the order of use.
  std::vector<Digest> fill_ten() {
    std::vector<Digest> digests;
    for (int i = 0; i < 10; ++i) digests.push_back(cellar_.fill(noise(100 * KiB, 10 + i)));
    return digests;
  }
  std::vector<int> stored_of(const std::vector<Digest>& digests) const {
    std::vector<int> stored;
    for (std::size_t i = 0; i < digests.size(); ++i)
      if (cellar_.store->size_of_blob(digests[i])) stored.push_back(static_cast<int>(i));
    return stored;
  }

  const std::string bytes_ = noise(100 * KiB);
  const Digest digest_ = digest_of(bytes_);
};

}  // namespace staithe::cache
