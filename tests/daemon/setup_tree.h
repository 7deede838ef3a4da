// A machine's files below a directory of a test, with programs that only say their version.
#pragma once

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <optional>
#include <sstream>
#include <string>
#include <tuple>
#include <vector>

#include "daemon/setup_apply.h"
#include "daemon/setup_disk.h"
#include "tests/fake/machine.h"

namespace staithe::fake {

// What a tree is: mode, and a file's text.
using Tree = std::map<std::string, std::tuple<mode_t, std::optional<std::string>>>;

class SetupTree : public daemon::Machine {
 public:
  SetupTree() {
    std::string pattern = testing::TempDir() + "/setup_XXXXXX";
    root_ = mkdtemp(pattern.data());
    clear();
  }
  ~SetupTree() override { std::filesystem::remove_all(root_); }
  SetupTree(const SetupTree&) = delete;
  SetupTree& operator=(const SetupTree&) = delete;

  void clear() {
    std::filesystem::remove_all(root_);
    std::filesystem::create_directories(root_ / "var/lib");
    std::filesystem::create_directories(root_ / "etc");
  }
  void write(const std::filesystem::path& path, const std::string& text, mode_t mode = 0640) {
    const std::filesystem::path real = root_ / path.relative_path();
    std::filesystem::create_directories(real.parent_path());
    std::ofstream(real, std::ios::binary) << text;
    chmod(real.c_str(), mode);
  }
  std::string text(const std::filesystem::path& path) const {
    std::ifstream file(root_ / path.relative_path(), std::ios::binary);
    std::stringstream text;
    text << file.rdbuf();
    return text.str();
  }
  bool exists(const std::filesystem::path& path) const {
    return std::filesystem::exists(root_ / path.relative_path());
  }
  Tree tree() const { return tree_below(root_); }
  const std::filesystem::path& root() const { return root_; }
  daemon::SetupDisk disk() const { return daemon::SetupDisk(root_); }

  FakeMachine& programs() { return programs_; }

  Result<std::optional<std::string>> read(const std::filesystem::path& path) const override {
    const daemon::SetupDisk files(root_);
    return daemon::RootMachine(files, "").read(path);
  }
  std::vector<std::string> list(const std::filesystem::path& directory) const override {
    return daemon::SetupDisk(root_).list(directory);
  }
  std::filesystem::path find(std::string_view program) const override {
    return programs_.find(program);
  }
  std::optional<std::string> run(std::string_view program,
                                 const std::vector<std::string>& arguments,
                                 std::string_view input) const override {
    return programs_.run(program, arguments, input);
  }
  bool is_running() const override { return false; }

 private:
  static Tree tree_below(const std::filesystem::path& root) {
    Tree tree;
    for (const auto& entry : std::filesystem::recursive_directory_iterator(root)) {
      struct stat status{};
      lstat(entry.path().c_str(), &status);
      std::optional<std::string> text;
      if (S_ISREG(status.st_mode)) {
        std::ifstream file(entry.path(), std::ios::binary);
        std::stringstream content;
        content << file.rdbuf();
        text = content.str();
      }
      tree[entry.path().lexically_relative(root).native()] = {status.st_mode, std::move(text)};
    }
    return tree;
  }

  std::filesystem::path root_;
  FakeMachine programs_;
};

}  // namespace staithe::fake
