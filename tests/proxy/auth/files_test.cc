#include "proxy/auth/files.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/thread_pool.hpp>
#include <fstream>
#include <string>

#include "cache/error.h"

namespace staithe::proxy::auth {
namespace {

namespace fs = std::filesystem;

class RealFiles : public testing::Test {
 protected:
  RealFiles() {
    std::string pattern = testing::TempDir() + "/files_testXXXXXX";
    directory = mkdtemp(pattern.data());
  }
  ~RealFiles() override {
    pool.join();
    fs::remove_all(directory);
  }
  fs::path make(const std::string& name, std::string_view text, mode_t mode = 0600) const {
    const fs::path path = directory / name;
    std::ofstream(path, std::ios::binary) << text;
    EXPECT_EQ(::chmod(path.c_str(), mode), 0);
    return path;
  }
  Result<std::string> read(const fs::path& path, FileRules rules = {}) {
    asio::io_context io;
    Result<std::string> text = fail(Errc::cancelled, "the call waits");
    asio::co_spawn(io, files.read(path, rules),
                   [&](const std::exception_ptr& error, const Secret& secret) {
                     try {
                       if (error) std::rethrow_exception(error);
                       text = std::string(secret.reveal());
                     } catch (const Failure& failure) {
                       text = std::unexpected(failure.error());
                     }
                   });
    io.run();
    return text;
  }
  // The refusal's words after the name of the file.
  std::string refusal(const fs::path& path, FileRules rules = {}) {
    const auto text = read(path, rules);
    if (text) return "it was read: " + *text;
    EXPECT_EQ(text.error().code, Errc::identity_missing);
    const std::string start = "the file " + path.string() + " ";
    EXPECT_TRUE(text.error().detail.starts_with(start)) << text.error().detail;
    return text.error().detail.substr(std::min(start.size(), text.error().detail.size()));
  }

  asio::thread_pool pool{1};
  PosixFiles files{pool};
  fs::path directory;
};

TEST_F(RealFiles, AreReadAsTheyAre) {
  EXPECT_EQ(read(make("secret", "s3cr3t\n")), "s3cr3t\n");
  EXPECT_EQ(read(make("empty", "")), "");
  const std::string bytes("a\0b\r\n\xff", 6);
  EXPECT_EQ(read(make("bytes", bytes)), bytes);
}

TEST_F(RealFiles, NobodyElseMayReadOrWriteAPrivateOne) {
  for (const mode_t mode : {0600U, 0400U, 0640U, 0440U, 0700U})
    EXPECT_EQ(read(make("f", "x", mode)), "x") << std::oct << mode;
  for (const mode_t mode : {0644U, 0604U, 0602U, 0601U, 0660U, 0620U, 0666U, 0777U}) {
    EXPECT_EQ(refusal(make("f", "x", mode)),
              "may be read or written by others than its owner: chmod 0600 it")
        << std::oct << mode;
    EXPECT_EQ(read(make("f", "x", mode), {.is_private = false}), "x");
  }
}

TEST_F(RealFiles, APrivateOneBelongsToUsOrToRoot) {
  if (::geteuid() != 0) GTEST_SKIP() << "only root can give a file away";
  const fs::path path = make("f", "x");
  ASSERT_EQ(::chown(path.c_str(), 12345, 12345), 0);
  EXPECT_EQ(refusal(path),
            "belongs to another user, who could change it: give it to root (chown root)");
  EXPECT_EQ(read(path, {.is_private = false}), "x");
}

TEST_F(RealFiles, AMissingOneIsNamedWithARemedy) {
  EXPECT_EQ(refusal(directory / "missing"),
            "cannot be read: No such file or directory; create it, or let the user of staithed "
            "read it");
  EXPECT_EQ(refusal(make("f", "x") / "below"),
            "cannot be read: Not a directory; create it, or let the user of staithed read it");
}

TEST_F(RealFiles, ControlCharactersInANameAreEscaped) {
  const auto text = read(directory / "a\nb\x1b[2J");
  ASSERT_FALSE(text);
  EXPECT_TRUE(text.error().detail.contains("a\\nb\\x1b[2J")) << text.error().detail;
}

TEST_F(RealFiles, ALinkIsFollowedOnlyWhereItMayBeOne) {
  const fs::path link = directory / "link";
  fs::create_symlink(make("f", "x"), link);
  EXPECT_EQ(read(link), "x");
  EXPECT_EQ(refusal(link, {.may_be_link = false}), "is a link, which is not followed here");
  // The rules are for what it points to.
  ASSERT_EQ(::chmod((directory / "f").c_str(), 0644), 0);
  EXPECT_EQ(refusal(link), "may be read or written by others than its owner: chmod 0600 it");
  // Links that go round in a circle are no refusal of links.
  fs::create_symlink(directory / "b", directory / "a");
  fs::create_symlink(directory / "a", directory / "b");
  EXPECT_TRUE(refusal(directory / "a").starts_with("cannot be read: Too many levels"));
}

TEST_F(RealFiles, OnlyARegularFileIsRead) {
  EXPECT_EQ(refusal(directory), "is not a regular file");
  EXPECT_EQ(refusal("/dev/zero", {.is_private = false}), "is not a regular file");
  // Nobody writes to this one, and nobody waits for that.
  const fs::path fifo = directory / "fifo";
  ASSERT_EQ(::mkfifo(fifo.c_str(), 0600), 0);
  EXPECT_EQ(refusal(fifo), "is not a regular file");
}

TEST_F(RealFiles, HaveALimit) {
  const fs::path path = make("f", std::string(100, 'x'));
  EXPECT_EQ(read(path, {.max_bytes = 100}), std::string(100, 'x'));
  EXPECT_EQ(refusal(path, {.max_bytes = 99}), "is longer than 99 bytes");
  EXPECT_EQ(refusal(make("g", std::string(65'537, 'x'))), "is longer than 65536 bytes");
  // Its size says nothing: what the kernel makes up while it is read.
  EXPECT_EQ(refusal("/proc/self/smaps", {.max_bytes = 100, .is_private = false}),
            "is longer than 100 bytes");
  EXPECT_TRUE(read("/proc/self/stat", {.is_private = false}));
}

TEST(LineEnd, IsWhatEditorsLeave) {
  const std::pair<std::string_view, std::string_view> table[] = {
      {"", ""},         {"a", "a"},     {"a\n", "a"},   {"a\r\n", "a"},        {"\n", ""},
      {"a\n\n", "a\n"}, {"a \n", "a "}, {"\na", "\na"}, {"a\r\n\r\n", "a\r\n"}};
  for (const auto& [text, without] : table) EXPECT_EQ(without_line_end(text), without);
}

}  // namespace
}  // namespace staithe::proxy::auth
