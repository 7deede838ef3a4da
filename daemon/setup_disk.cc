#include "daemon/setup_disk.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <utility>
#include <vector>

#include "cache/disk.h"
#include "cache/escape.h"
#include "daemon/child.h"

namespace staithe::daemon {
namespace {

constexpr std::string_view leftover_suffix = ".staithe-new";
constexpr std::string_view usual_directories =
    "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/opt/rke2/bin:"
    "/var/lib/rancher/rke2/bin";
constexpr std::chrono::seconds program_patience{10};

std::string shown_path(const std::filesystem::path& path) { return printable(path.native(), 400); }

[[noreturn]] void fail_with(const std::filesystem::path& path, std::string_view what, int error) {
  std::string remedy;
  if (error == EACCES || error == EPERM) remedy = ": run it as root";
  if (error == EROFS) remedy = ": the file system is mounted read-only";
  throw Failure(Errc::storage_failed, shown_path(path) + " cannot be " + std::string(what) + " (" +
                                          describe_errno(error) + ")" + remedy);
}

std::filesystem::path leftover(const std::filesystem::path& path) {
  return path.parent_path() / ("." + path.filename().native() + std::string(leftover_suffix));
}

void copy_attributes(const std::filesystem::path& from, int to) {
  char names[4096];
  const ssize_t size = llistxattr(from.c_str(), names, sizeof names);
  for (ssize_t at = 0; at < size;) {
    const std::string name = names + at;
    at += static_cast<ssize_t>(name.size()) + 1;
    char value[4096];
    const ssize_t length = lgetxattr(from.c_str(), name.c_str(), value, sizeof value);
    // A label that this process may not set is the default one, which a new file has anyway.
    if (length >= 0 && fsetxattr(to, name.c_str(), value, static_cast<std::size_t>(length), 0) != 0)
      continue;
  }
}

}  // namespace

SetupDisk::SetupDisk(std::filesystem::path root, std::function<void(std::string_view)> before_step)
    : root_(std::move(root)), before_step_(std::move(before_step)) {}

std::filesystem::path SetupDisk::at(const std::filesystem::path& path) const {
  const std::filesystem::path real = root_ / path.relative_path();
  if (root_ == "/") return real;
  // A link out of the tree would lead to this machine's own files.
  std::error_code ignored;
  const std::string inside = std::filesystem::weakly_canonical(root_, ignored).native() + "/";
  const std::string parent =
      std::filesystem::weakly_canonical(real.parent_path(), ignored).native() + "/";
  if (!parent.starts_with(inside)) {
    throw Failure(Errc::storage_failed, shown_path(path) + " leads out of " + shown_path(root_) +
                                            " by a link: change it where it is");
  }
  return real;
}

std::optional<FileState> SetupDisk::read(const std::filesystem::path& path) const {
  const std::filesystem::path real = at(path);
  const cache::File file(::open(real.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
  if (file.fd() < 0) {
    if (errno == ENOENT || errno == ENOTDIR) return std::nullopt;
    if (errno == ELOOP) {
      throw Failure(Errc::storage_failed,
                    "it is a symbolic link, which a new file would replace: change what it "
                    "points to");
    }
    fail_with(path, "read", errno);
  }
  struct stat status{};
  if (fstat(file.fd(), &status) != 0) fail_with(path, "read", errno);
  if (!S_ISREG(status.st_mode))
    throw Failure(Errc::storage_failed, shown_path(path) + " is not a regular file");
  if (status.st_size > static_cast<off_t>(most_client_file_bytes)) {
    throw Failure(Errc::storage_failed,
                  shown_path(path) + " is longer than 1 MiB, which no configuration is");
  }
  FileState state{.content = {}, .owner = {status.st_mode & 07777, status.st_uid, status.st_gid}};
  state.content.resize(static_cast<std::size_t>(status.st_size));
  std::size_t done = 0;
  while (done < state.content.size()) {
    const ssize_t count =
        ::read(file.fd(), state.content.data() + done, state.content.size() - done);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) fail_with(path, "read", errno);
    if (count == 0) break;
    done += static_cast<std::size_t>(count);
  }
  state.content.resize(done);
  return state;
}

void SetupDisk::write(const std::filesystem::path& path, std::string_view content,
                      const FileOwner& owner) const {
  const std::filesystem::path real = at(path);
  const std::filesystem::path temporary = leftover(real);
  remove_leftover(path);
  step("create");
  const cache::File file(
      ::open(temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (file.fd() < 0) fail_with(path, "written", errno);
  step("write");
  for (std::string_view rest = content; !rest.empty();) {
    const ssize_t count = ::write(file.fd(), rest.data(), rest.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) {
      const int error = errno;
      ::unlink(temporary.c_str());
      fail_with(path, "written", error);
    }
    rest.remove_prefix(static_cast<std::size_t>(count));
  }
  step("own");
  copy_attributes(real, file.fd());
  // The mode last: changing the owner takes set-user-id bits away.
  if ((::geteuid() == 0 && fchown(file.fd(), owner.uid, owner.gid) != 0) ||
      fchmod(file.fd(), owner.mode) != 0 || fsync(file.fd()) != 0) {
    const int error = errno;
    ::unlink(temporary.c_str());
    fail_with(path, "written", error);
  }
  step("rename");
  if (::rename(temporary.c_str(), real.c_str()) != 0) {
    const int error = errno;
    ::unlink(temporary.c_str());
    fail_with(path, "written", error);
  }
  sync_directory(real.parent_path());
}

void SetupDisk::remove(const std::filesystem::path& path) const {
  const std::filesystem::path real = at(path);
  step("unlink");
  if (::unlink(real.c_str()) != 0 && errno != ENOENT) fail_with(path, "removed", errno);
  sync_directory(real.parent_path());
}

void SetupDisk::remove_leftover(const std::filesystem::path& path) const {
  const std::filesystem::path temporary = leftover(at(path));
  struct stat status{};
  if (lstat(temporary.c_str(), &status) != 0) return;
  step("unlink leftover");
  if (::unlink(temporary.c_str()) != 0 && errno != ENOENT) fail_with(path, "written", errno);
}

bool SetupDisk::has_directory(const std::filesystem::path& path) const {
  struct stat status{};
  return stat(at(path).c_str(), &status) == 0 && S_ISDIR(status.st_mode);
}

void SetupDisk::make_directory(const std::filesystem::path& path, mode_t mode) const {
  const std::filesystem::path real = at(path);
  step("mkdir");
  // The mode at once, whatever the umask is: a crash cannot leave a directory of another.
  const mode_t mask = ::umask(0);
  const int result = ::mkdir(real.c_str(), mode);
  const int error = errno;
  ::umask(mask);
  if (result != 0) {
    if (error == EEXIST) return;
    fail_with(path, "made", error);
  }
  sync_directory(real.parent_path());
}

bool SetupDisk::remove_directory(const std::filesystem::path& path) const {
  const std::filesystem::path real = at(path);
  step("rmdir");
  if (::rmdir(real.c_str()) != 0) {
    if (errno == ENOTEMPTY || errno == EEXIST) return false;
    if (errno != ENOENT) fail_with(path, "removed", errno);
    return true;
  }
  sync_directory(real.parent_path());
  return true;
}

std::vector<std::string> SetupDisk::list(const std::filesystem::path& directory) const {
  std::vector<std::string> names;
  std::error_code error;
  for (std::filesystem::directory_iterator it(at(directory), error), end; !error && it != end;
       it.increment(error)) {
    names.push_back(it->path().filename());
  }
  std::ranges::sort(names);
  return names;
}

void SetupDisk::sync_directory(const std::filesystem::path& real) const {
  step("sync");
  const cache::File directory(::open(real.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (directory.fd() < 0 || fsync(directory.fd()) != 0) fail_with(real, "synced", errno);
}

RootMachine::RootMachine(const SetupDisk& disk, std::string_view search_path) : disk_(disk) {
  if (is_running() && !search_path.empty()) search_path_ = std::string(search_path) + ":";
  for (std::string_view rest = usual_directories; !rest.empty();) {
    const std::size_t end = std::min(rest.find(':'), rest.size());
    const std::filesystem::path directory = rest.substr(0, end);
    search_path_ += (disk_.root() / directory.relative_path()).native() + ":";
    rest.remove_prefix(std::min(end + 1, rest.size()));
  }
}

Result<std::optional<std::string>> RootMachine::read(const std::filesystem::path& path) const {
  try {
    auto state = disk_.read(path);
    if (!state) return std::nullopt;
    return std::move(state->content);
  } catch (const Failure& failure) {
    return std::unexpected(failure.error());
  }
}

std::vector<std::string> RootMachine::list(const std::filesystem::path& directory) const {
  try {
    return disk_.list(directory);
  } catch (const Failure&) {
    return {};
  }
}

std::filesystem::path RootMachine::find(std::string_view program) const {
  const std::filesystem::path found = find_program(program, search_path_);
  if (found.empty() || is_running()) return found;
  return "/" / found.lexically_relative(disk_.root());
}

std::optional<std::string> RootMachine::run(std::string_view program,
                                            const std::vector<std::string>& arguments,
                                            std::string_view input) const {
  const std::filesystem::path found = find_program(program, search_path_);
  if (found.empty()) return std::nullopt;
  auto result = run_child({.program = found,
                           .arguments = arguments,
                           .input = input,
                           .most_bytes = 64 << 10,
                           .timeout = program_patience});
  if (!result || result->status != 0) return std::nullopt;
  return std::move(result->output);
}

bool RootMachine::is_running() const { return disk_.root() == "/"; }

}  // namespace staithe::daemon
