#include "cache/disk.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <map>
#include <string>
#include <vector>

#include "tests/cache/cellar.h"

namespace staithe::cache {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::Pair;

class PosixDiskTest : public testing::Test {
 protected:
  std::filesystem::path in(std::string_view name) const { return directory_.path() / name; }
  void write(const std::filesystem::path& path, std::string_view bytes) {
    const File file = disk_.create(path);
    disk_.write(file, bytes, 0);
  }
  std::map<std::string, std::uint64_t> listed(const std::filesystem::path& directory) {
    std::map<std::string, std::uint64_t> files;
    disk_.list(directory, [&](const std::string& name, std::uint64_t size) { files[name] = size; });
    return files;
  }
  static mode_t mode_of(const std::filesystem::path& path) {
    struct stat status{};
    EXPECT_EQ(::lstat(path.c_str(), &status), 0);
    return status.st_mode & 07777;
  }

  fake::TemporaryDirectory directory_;
  PosixDisk disk_;
};

TEST_F(PosixDiskTest, GivesBackWhatWasWrittenWhereItWasWritten) {
  const File file = disk_.create(in("file"));
  disk_.write(file, std::string_view("world"), 6);
  disk_.write(file, std::string_view("hello "), 0);
  EXPECT_EQ(disk_.size(file), 11u);
  std::string bytes(20, '?');
  EXPECT_EQ(disk_.read(file, bytes, 0), 11u) << "fewer at the end of the file";
  EXPECT_EQ(bytes.substr(0, 11), "hello world");
  EXPECT_EQ(disk_.read(file, bytes, 11), 0u);
  disk_.sync(file);
  const File again = disk_.open(in("file"));
  ASSERT_TRUE(again);
  EXPECT_EQ(disk_.read(again, std::span(bytes).first(5), 6), 5u);
  EXPECT_EQ(bytes.substr(0, 5), "world");
}

TEST_F(PosixDiskTest, SetsSpaceAsideWithoutChangingTheFile) {
  const File file = disk_.create(in("file"));
  disk_.write(file, std::string_view("hello"), 0);
  ASSERT_TRUE(disk_.preallocate(file, 1 << 20)) << "no file system we test on lacks it";
  EXPECT_EQ(disk_.size(file), 5u);
  EXPECT_GE(disk_.allocated(in("file")), 1u << 20);
  EXPECT_EQ(disk_.allocated(in("nothing")), 0u);
  EXPECT_EQ(failure_of([&] { disk_.preallocate(file, std::uint64_t{1} << 60); }),
            Errc::storage_full);
}

TEST_F(PosixDiskTest, OpensForWritingOnlyWhatIsThere) {
  write(in("file"), "hello");
  const File file = disk_.reopen(in("file"));
  ASSERT_TRUE(file);
  disk_.write(file, std::string_view("J"), 0);
  EXPECT_EQ(fake::read_file(in("file")), "Jello");
  EXPECT_FALSE(disk_.reopen(in("nothing")));
  std::filesystem::create_symlink(in("file"), in("link"));
  EXPECT_EQ(failure_of([&] { disk_.reopen(in("link")); }), Errc::storage_failed);
}

TEST_F(PosixDiskTest, FindsNoFileWhereThereIsNone) {
  EXPECT_FALSE(disk_.open(in("nothing")));
  EXPECT_FALSE(disk_.open(in("no/directory")));
  EXPECT_FALSE(disk_.remove(in("nothing")));
  EXPECT_TRUE(listed(in("nothing")).empty());
}

TEST_F(PosixDiskTest, OpensNothingButFilesAndDoesNotWaitForAWriter) {
  write(in("file"), "bytes");
  std::filesystem::create_symlink("file", in("link"));
  std::filesystem::create_directory(in("directory"));
  ASSERT_EQ(::mkfifo(in("fifo").c_str(), 0600), 0);
  for (const char* name : {"link", "directory", "fifo"})
    EXPECT_EQ(failure_of([&] { disk_.open(in(name)); }), Errc::storage_failed) << name;
}

TEST_F(PosixDiskTest, CreatesPrivateFilesAndReplacesNone) {
  const mode_t old = ::umask(0);
  write(in("file"), "bytes");
  EXPECT_TRUE(disk_.make_directory(in("directory")));
  ::umask(old);
  EXPECT_EQ(mode_of(in("file")), 0600u);
  EXPECT_EQ(mode_of(in("directory")), 0700u);
  EXPECT_FALSE(disk_.make_directory(in("directory")));
  EXPECT_EQ(failure_of([&] { disk_.create(in("file")); }), Errc::storage_failed);
  std::filesystem::create_symlink("target", in("link"));
  EXPECT_EQ(failure_of([&] { disk_.create(in("link")); }), Errc::storage_failed);
  EXPECT_FALSE(std::filesystem::exists(in("target")));
}

TEST_F(PosixDiskTest, RenamesOverWhatIsThere) {
  write(in("old"), "old");
  write(in("new"), "new");
  disk_.rename(in("new"), in("old"));
  disk_.sync_directory(directory_.path());
  EXPECT_THAT(listed(directory_.path()), ElementsAre(Pair("old", 3)));
  EXPECT_EQ(fake::read_file(in("old")), "new");
  EXPECT_TRUE(disk_.remove(in("old")));
  EXPECT_EQ(failure_of([&] { disk_.rename(in("gone"), in("old")); }), Errc::storage_failed);
}

TEST_F(PosixDiskTest, ListsRegularFilesOnly) {
  write(in("file"), "bytes");
  write(in(".hidden"), "bytes");
  std::filesystem::create_directory(in("directory"));
  std::filesystem::create_symlink("file", in("link"));
  EXPECT_THAT(listed(directory_.path()), ElementsAre(Pair("file", 5)));
}

TEST_F(PosixDiskTest, ListsThroughNoLink) {
  std::filesystem::create_directory(in("directory"));
  write(in("directory/file"), "bytes");
  std::filesystem::create_directory_symlink("directory", in("link"));
  EXPECT_EQ(failure_of([&] { listed(in("link")); }), Errc::storage_failed);
  EXPECT_EQ(failure_of([&] { disk_.sync_directory(in("link")); }), Errc::storage_failed);
}

TEST_F(PosixDiskTest, TellsAFileThatMayNotGrowFromADiskWithoutSpace) {
  struct rlimit old{};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &old), 0);
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  const File file = disk_.create(in("file"));
  struct rlimit small = old;
  small.rlim_cur = 10;
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &small), 0);
  std::optional<Errc> code;
  std::string sentence;
  try {
    disk_.write(file, std::string_view("more than ten bytes"), 0);
  } catch (const Failure& failure) {
    code = failure.code();
    sentence = failure.what();
  }
  ::setrlimit(RLIMIT_FSIZE, &old);
  std::signal(SIGXFSZ, handler);
  EXPECT_EQ(code, Errc::storage_failed) << "nothing has to go for what would never fit";
  EXPECT_THAT(sentence, HasSubstr(in("file").string())) << "it names the path";
  EXPECT_THAT(sentence, HasSubstr("File too large")) << "and the cause";
}

TEST_F(PosixDiskTest, ReadsOnceWhatItReadsAnyway) {
  const std::string bytes = noise(10'000);
  write(in("file"), bytes);
  const File file = disk_.open(in("file"));
  std::string piece(4096, '\0');
  std::string all;
  while (const std::size_t n = disk_.read_once(file, piece, all.size())) all.append(piece, 0, n);
  EXPECT_EQ(all, bytes);
  EXPECT_EQ(disk_.read_once(file, piece, 20'000), 0u);
  EXPECT_EQ(failure_of([&] { disk_.read_once(File(), piece, 0); }), Errc::storage_failed);
}

TEST_F(PosixDiskTest, ReadingOnceLeavesTheMemoryOfOthersAsItWas) {
  // Where there is a disk behind the files; the directory of the other tests is in memory.
  const std::filesystem::path path =
      std::filesystem::temp_directory_path() / ("staithe_disk_test." + std::to_string(::getpid()));
  std::filesystem::remove(path);
  constexpr std::size_t size = 1 << 20;
  write(path, noise(size));
  const File file = disk_.open(path);
  std::filesystem::remove(path);
  const auto pages_in_memory = [&] {
    void* mapped = ::mmap(nullptr, size, PROT_READ, MAP_SHARED, file.fd(), 0);
    std::vector<unsigned char> resident(size / 4096);
    EXPECT_EQ(::mincore(mapped, size, resident.data()), 0);
    ::munmap(mapped, size);
    return std::ranges::count_if(resident, [](unsigned char page) { return (page & 1) != 0; });
  };
  const auto empty_memory = [&] {
    disk_.sync(file);
    ::posix_fadvise(file.fd(), 0, 0, POSIX_FADV_DONTNEED);
  };
  empty_memory();
  if (pages_in_memory() != 0) GTEST_SKIP() << path << " is not on a disk";
  std::string piece(size / 4, '\0');
  for (std::size_t at = 0; at < size; at += piece.size())
    EXPECT_EQ(disk_.read_once(file, piece, at), piece.size());
  EXPECT_EQ(pages_in_memory(), 0);
  // What somebody has read stays.
  disk_.read(file, piece, 0);
  const auto read = pages_in_memory();
  EXPECT_GE(read, std::ssize(piece) / 4096);
  disk_.read_once(file, piece, 0);
  EXPECT_EQ(pages_in_memory(), read);
  disk_.let_go(file, size);
  EXPECT_EQ(pages_in_memory(), 0);
}

TEST_F(PosixDiskTest, KnowsTheSpaceOfItsFileSystem) {
  const Space space = disk_.space(directory_.path());
  EXPECT_GT(space.total_bytes, 0u);
  EXPECT_LE(space.free_bytes, space.total_bytes);
  EXPECT_EQ(failure_of([&] { disk_.space(in("nothing")); }), Errc::storage_failed);
}

TEST(File, ClosesItselfOnce) {
  int ends[2];
  ASSERT_EQ(::pipe2(ends, O_CLOEXEC), 0);
  {
    File first(ends[0]);
    File second(std::move(first));
    EXPECT_FALSE(first);  // NOLINT(bugprone-use-after-move): moved-from is empty by contract.
    first = std::move(second);
    EXPECT_EQ(first.fd(), ends[0]);
    EXPECT_EQ(::fcntl(ends[0], F_GETFD), FD_CLOEXEC);
  }
  EXPECT_EQ(::fcntl(ends[0], F_GETFD), -1);
  ::close(ends[1]);
}

}  // namespace
}  // namespace staithe::cache
