// A library for LD_PRELOAD that counts what a daemon asks of the file system of its cache
// directory, and does something at the k-th of these calls: kills the daemon right before or after
// it, makes it fail, makes it do half, or shuts the file system down as a power loss would.
//
// Counted are the C library's functions below (SQLite and std::filesystem come through them, too)
// if they name a path below the directory, or a descriptor that was opened by such a path. Sockets,
// libraries and logs are not counted.
//
// Environment: STAITHE_CALLS_DIRECTORY, the directory; STAITHE_CALLS_CONTROL, a file of the size of
// Control that the test keeps mapped as well. Through it the test says what is to happen, while the
// daemon runs, and reads what has happened, after its death. STAITHE_CALLS_TRACE, if set, is a file
// that gets a line for each counted call.
//
// For tests only, and not for a build with sanitizers, which want to be first themselves.
#include <dirent.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <string_view>

namespace {

enum class Action : std::uint64_t { none, kill_before, kill_after, fail, halve, shut_down };

// Shared with tests/e2e/disk_calls.py, which has the same list.
struct Control {
  std::atomic<std::uint64_t> counted;   // calls in all
  std::atomic<std::uint64_t> matching;  // of those that `only` names, since it was armed
  std::atomic<std::uint64_t> armed;
  std::uint64_t at;  // the first matching call that it happens to, from 1
  std::uint64_t times;
  Action action;
  std::uint64_t error;                 // an errno, of Action::fail
  std::uint64_t write_back_at;         // before this matching call everything is synced; 0: never
  std::atomic<std::uint64_t> hits;     // how often it has happened
  std::atomic<std::uint64_t> resyncs;  // syncs of a file whose sync had failed before
  char only[128];                      // ",pwrite,write,"; empty: every call
  char hit_call[32];                   // the first that it happened to
  char hit_path[256];
  char resync_path[256];
};
static_assert(std::atomic<std::uint64_t>::is_always_lock_free);

Control* control = nullptr;
std::string_view directory;  // of the environment, and so with a NUL at its end
int trace = -1;

constexpr std::size_t most_descriptors = 65536;
std::array<std::atomic<bool>, most_descriptors> ours;  // opened by a path below the directory

// _IOR('X', 125, __u32): EXT4_IOC_SHUTDOWN, XFS_IOC_GOINGDOWN. The value: without flushing the log.
constexpr unsigned long shut_down_request = _IOR('X', 125, std::uint32_t);
constexpr std::uint32_t without_log_flush = 2;

// The next definition of a function, which is the C library's.
template <class Function>
Function* next(const char* name) {
  return reinterpret_cast<Function*>(::dlsym(RTLD_NEXT, name));
}

int raw_open(const char* path, int flags, int mode = 0) {
  return static_cast<int>(::syscall(SYS_openat, AT_FDCWD, path, flags | O_CLOEXEC, mode));
}

__attribute__((constructor)) void begin() {
  const char* file = std::getenv("STAITHE_CALLS_CONTROL");
  const char* root = std::getenv("STAITHE_CALLS_DIRECTORY");
  if (!file || !root) return;
  directory = root;
  const int fd = raw_open(file, O_RDWR);
  void* shared = MAP_FAILED;
  if (fd >= 0) shared = ::mmap(nullptr, sizeof(Control), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (shared == MAP_FAILED) {
    std::fprintf(stderr, "disk_calls: cannot map %s: %s\n", file, std::strerror(errno));
    ::_exit(99);
  }
  ::syscall(SYS_close, fd);
  if (const char* lines = std::getenv("STAITHE_CALLS_TRACE"))
    trace = raw_open(lines, O_WRONLY | O_CREAT | O_APPEND, 0600);
  control = static_cast<Control*>(shared);
}

bool is_ours(int fd) {
  return fd >= 0 && static_cast<std::size_t>(fd) < most_descriptors && ours[fd].load();
}

bool is_ours(const char* path) {
  if (!path || directory.empty()) return false;
  const std::string_view text(path);
  return text.starts_with(directory) &&
         (text.size() == directory.size() || text[directory.size()] == '/');
}

bool is_ours(int at, const char* path) {
  return path && path[0] != '/' && at != AT_FDCWD ? is_ours(at) : is_ours(path);
}

void note_opened(int fd, bool counted) {
  if (fd >= 0 && static_cast<std::size_t>(fd) < most_descriptors) ours[fd] = counted;
}

// What a call is about, for those who read of it.
struct About {
  int fd = -1;
  const char* path = nullptr;
  void print(char* to, std::size_t size) const {
    if (path) {
      std::snprintf(to, size, "%s", path);
      return;
    }
    char link[64];
    std::snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    const ssize_t n = ::syscall(SYS_readlinkat, AT_FDCWD, link, to, size - 1);
    to[n > 0 ? n : 0] = '\0';
  }
};

[[noreturn]] void die() {
  ::syscall(SYS_kill, ::getpid(), SIGKILL);
  for (;;) ::pause();
}

void on_directory(auto work) {
  const int fd = raw_open(directory.data(), O_RDONLY | O_DIRECTORY);
  if (fd < 0) return;
  work(fd);
  ::syscall(SYS_close, fd);
}

// Counts the call and says what is to become of it. Does not come back if that is death.
Action count(const char* name, const About& about) {
  control->counted.fetch_add(1);
  if (trace >= 0) {
    char path[256];
    about.print(path, sizeof path);
    ::dprintf(trace, "%s %s\n", name, path);
  }
  if (control->armed.load() == 0) return Action::none;
  if (control->only[0] != '\0') {
    char wanted[40];
    std::snprintf(wanted, sizeof wanted, ",%s,", name);
    if (!std::strstr(control->only, wanted)) return Action::none;
  }
  const std::uint64_t number = control->matching.fetch_add(1) + 1;
  if (number == control->write_back_at) on_directory([](int fd) { ::syscall(SYS_syncfs, fd); });
  if (number < control->at || number - control->at >= control->times) return Action::none;
  if (control->hits.fetch_add(1) == 0) {
    std::snprintf(control->hit_call, sizeof control->hit_call, "%s", name);
    about.print(control->hit_path, sizeof control->hit_path);
  }
  if (control->action == Action::kill_before) die();
  if (control->action == Action::shut_down) {
    on_directory([](int fd) {
      std::uint32_t flags = without_log_flush;
      ::ioctl(fd, shut_down_request, &flags);
    });
    die();
  }
  return control->action;
}

// Makes the call `real`, or what takes its place; `failed` is its result then.
template <class Result, class Real>
Result make(const char* name, const About& about, Result failed, Real real) {
  const Action action = count(name, about);
  if (action == Action::fail) {
    errno = static_cast<int>(control->error);
    return failed;
  }
  const Result result = real();
  if (action == Action::kill_after) die();
  return result;
}

// The same for calls that may do less than they are asked for.
template <class Real>
ssize_t make_sized(const char* name, const About& about, std::size_t size, Real real) {
  const Action action = count(name, about);
  if (action == Action::fail) {
    errno = static_cast<int>(control->error);
    return -1;
  }
  if (action == Action::halve && size > 1) size /= 2;
  const ssize_t result = real(size);
  if (action == Action::kill_after) die();
  return result;
}

// ---- syncs -------------------------------------------------------------------------------------

// A file, as opposed to a later one that got its inode number.
struct Identity {
  std::uint64_t device = 0;
  std::uint64_t inode = 0;
  std::int64_t born_seconds = 0;
  std::uint32_t born_nanoseconds = 0;
  bool operator==(const Identity&) const = default;
};

std::mutex failed_mutex;
std::array<Identity, 4096> failed_syncs;
std::size_t failed_count = 0;

bool identify(int fd, Identity& identity) {
  struct statx status{};
  if (::syscall(SYS_statx, fd, "", AT_EMPTY_PATH, STATX_BASIC_STATS | STATX_BTIME, &status) != 0)
    return false;
  if (!S_ISREG(status.stx_mode)) return false;
  identity = {.device = (std::uint64_t{status.stx_dev_major} << 32) | status.stx_dev_minor,
              .inode = status.stx_ino,
              .born_seconds = status.stx_btime.tv_sec,
              .born_nanoseconds = status.stx_btime.tv_nsec};
  return true;
}

template <class Real>
int sync(int fd, Real real) {
  Identity file;
  const bool known = identify(fd, file);
  const auto failed_end = [] { return failed_syncs.begin() + failed_count; };
  if (known) {
    const std::lock_guard lock(failed_mutex);
    if (std::find(failed_syncs.begin(), failed_end(), file) != failed_end() &&
        control->resyncs.fetch_add(1) == 0)
      About{.fd = fd}.print(control->resync_path, sizeof control->resync_path);
  }
  const int result = make("sync", {.fd = fd}, -1, real);
  // An interrupted sync has not failed: it was not tried.
  if (result != 0 && errno != EINTR && known) {
    const int cause = errno;
    const std::lock_guard lock(failed_mutex);
    if (failed_count < failed_syncs.size()) failed_syncs[failed_count++] = file;
    errno = cause;
  }
  return result;
}

// ---- the calls ---------------------------------------------------------------------------------

template <class Real>
int by_path(const char* name, int at, const char* path, Real real) {
  return control && is_ours(at, path) ? make(name, {.path = path}, -1, real) : real();
}

template <class Real>
int by_path(const char* name, const char* path, Real real) {
  return by_path(name, AT_FDCWD, path, real);
}

template <class Real>
int by_descriptor(const char* name, int fd, Real real) {
  return control && is_ours(fd) ? make(name, {.fd = fd}, -1, real) : real();
}

template <class Real>
ssize_t sized(const char* name, int fd, std::size_t size, Real real) {
  return control && is_ours(fd) ? make_sized(name, {.fd = fd}, size, real) : real(size);
}

template <class Real>
int opened(int at, const char* path, Real real) {
  const int fd = by_path("open", at, path, real);
  note_opened(fd, is_ours(at, path));
  return fd;
}

}  // namespace

// Each function is defined under a name of its own and exported under that of the C library, whose
// headers declare them with attributes that differ from one to the next. An argument that a caller
// may leave out is taken as if it were always there: it is in a register, and goes on unread.
#define HOOK(result, name, ...)                                                 \
  extern "C" __attribute__((visibility("default"), used)) result hooked_##name( \
      __VA_ARGS__) __asm__(#name);                                              \
  result hooked_##name(__VA_ARGS__)
#define REAL(name) static auto* const real = next<decltype(hooked_##name)>(#name)

HOOK(int, open, const char* path, int flags, mode_t mode) {
  REAL(open);
  return opened(AT_FDCWD, path, [&] { return real(path, flags, mode); });
}
HOOK(int, open64, const char* path, int flags, mode_t mode) {
  REAL(open64);
  return opened(AT_FDCWD, path, [&] { return real(path, flags, mode); });
}
HOOK(int, openat, int at, const char* path, int flags, mode_t mode) {
  REAL(openat);
  return opened(at, path, [&] { return real(at, path, flags, mode); });
}
HOOK(int, openat64, int at, const char* path, int flags, mode_t mode) {
  REAL(openat64);
  return opened(at, path, [&] { return real(at, path, flags, mode); });
}
HOOK(int, creat, const char* path, mode_t mode) {
  REAL(creat);
  return opened(AT_FDCWD, path, [&] { return real(path, mode); });
}
HOOK(FILE*, fopen, const char* path, const char* mode) {
  REAL(fopen);
  if (!control || !is_ours(path)) return real(path, mode);
  return make("open", {.path = path}, static_cast<FILE*>(nullptr),
              [&] { return real(path, mode); });
}
HOOK(DIR*, opendir, const char* path) {
  REAL(opendir);
  if (!control || !is_ours(path)) return real(path);
  DIR* stream =
      make("open", {.path = path}, static_cast<DIR*>(nullptr), [&] { return real(path); });
  if (stream) note_opened(::dirfd(stream), true);
  return stream;
}
HOOK(int, close, int fd) {
  REAL(close);
  if (!control || !is_ours(fd)) return real(fd);
  const Action action = count("close", {.fd = fd});
  note_opened(fd, false);
  // A descriptor is gone even when closing it fails.
  const int result = real(fd);
  if (action == Action::kill_after) die();
  if (action != Action::fail) return result;
  errno = static_cast<int>(control->error);
  return -1;
}
HOOK(int, closedir, DIR* stream) {
  REAL(closedir);
  note_opened(::dirfd(stream), false);
  return real(stream);
}
HOOK(dirent*, readdir, DIR* stream) {
  REAL(readdir);
  const int fd = ::dirfd(stream);
  if (!control || !is_ours(fd)) return real(stream);
  return make("readdir", {.fd = fd}, static_cast<dirent*>(nullptr), [&] { return real(stream); });
}
HOOK(dirent64*, readdir64, DIR* stream) {
  REAL(readdir64);
  const int fd = ::dirfd(stream);
  if (!control || !is_ours(fd)) return real(stream);
  return make("readdir", {.fd = fd}, static_cast<dirent64*>(nullptr), [&] { return real(stream); });
}

HOOK(ssize_t, read, int fd, void* to, std::size_t size) {
  REAL(read);
  return sized("read", fd, size, [&](std::size_t n) { return real(fd, to, n); });
}
HOOK(ssize_t, pread, int fd, void* to, std::size_t size, off_t offset) {
  REAL(pread);
  return sized("read", fd, size, [&](std::size_t n) { return real(fd, to, n, offset); });
}
HOOK(ssize_t, pread64, int fd, void* to, std::size_t size, off64_t offset) {
  REAL(pread64);
  return sized("read", fd, size, [&](std::size_t n) { return real(fd, to, n, offset); });
}
HOOK(ssize_t, sendfile, int to, int fd, off_t* offset, std::size_t size) {
  REAL(sendfile);
  return sized("sendfile", fd, size, [&](std::size_t n) { return real(to, fd, offset, n); });
}
HOOK(ssize_t, sendfile64, int to, int fd, off64_t* offset, std::size_t size) {
  REAL(sendfile64);
  return sized("sendfile", fd, size, [&](std::size_t n) { return real(to, fd, offset, n); });
}
HOOK(ssize_t, write, int fd, const void* from, std::size_t size) {
  REAL(write);
  return sized("write", fd, size, [&](std::size_t n) { return real(fd, from, n); });
}
HOOK(ssize_t, pwrite, int fd, const void* from, std::size_t size, off_t offset) {
  REAL(pwrite);
  return sized("write", fd, size, [&](std::size_t n) { return real(fd, from, n, offset); });
}
HOOK(ssize_t, pwrite64, int fd, const void* from, std::size_t size, off64_t offset) {
  REAL(pwrite64);
  return sized("write", fd, size, [&](std::size_t n) { return real(fd, from, n, offset); });
}

HOOK(int, fsync, int fd) {
  REAL(fsync);
  const auto call = [&] { return real(fd); };
  return control && is_ours(fd) ? sync(fd, call) : call();
}
HOOK(int, fdatasync, int fd) {
  REAL(fdatasync);
  const auto call = [&] { return real(fd); };
  return control && is_ours(fd) ? sync(fd, call) : call();
}
HOOK(int, sync_file_range, int fd, off64_t offset, off64_t size, unsigned flags) {
  REAL(sync_file_range);
  return by_descriptor("sync_file_range", fd, [&] { return real(fd, offset, size, flags); });
}
HOOK(int, ftruncate, int fd, off_t size) {
  REAL(ftruncate);
  return by_descriptor("truncate", fd, [&] { return real(fd, size); });
}
HOOK(int, ftruncate64, int fd, off64_t size) {
  REAL(ftruncate64);
  return by_descriptor("truncate", fd, [&] { return real(fd, size); });
}
HOOK(int, fallocate, int fd, int mode, off_t offset, off_t size) {
  REAL(fallocate);
  return by_descriptor("fallocate", fd, [&] { return real(fd, mode, offset, size); });
}
HOOK(int, fallocate64, int fd, int mode, off64_t offset, off64_t size) {
  REAL(fallocate64);
  return by_descriptor("fallocate", fd, [&] { return real(fd, mode, offset, size); });
}
// These two give the error as their result.
HOOK(int, posix_fallocate, int fd, off_t offset, off_t size) {
  REAL(posix_fallocate);
  const int result = by_descriptor("fallocate", fd, [&] { return real(fd, offset, size); });
  return result == -1 ? errno : result;
}
HOOK(int, posix_fallocate64, int fd, off64_t offset, off64_t size) {
  REAL(posix_fallocate64);
  const int result = by_descriptor("fallocate", fd, [&] { return real(fd, offset, size); });
  return result == -1 ? errno : result;
}

HOOK(int, rename, const char* from, const char* to) {
  REAL(rename);
  return by_path("rename", to, [&] { return real(from, to); });
}
HOOK(int, renameat, int from_at, const char* from, int to_at, const char* to) {
  REAL(renameat);
  return by_path("rename", to_at, to, [&] { return real(from_at, from, to_at, to); });
}
HOOK(int, renameat2, int from_at, const char* from, int to_at, const char* to, unsigned flags) {
  REAL(renameat2);
  return by_path("rename", to_at, to, [&] { return real(from_at, from, to_at, to, flags); });
}
HOOK(int, link, const char* from, const char* to) {
  REAL(link);
  return by_path("link", to, [&] { return real(from, to); });
}
HOOK(int, linkat, int from_at, const char* from, int to_at, const char* to, int flags) {
  REAL(linkat);
  return by_path("link", to_at, to, [&] { return real(from_at, from, to_at, to, flags); });
}
HOOK(int, unlink, const char* path) {
  REAL(unlink);
  return by_path("unlink", path, [&] { return real(path); });
}
HOOK(int, unlinkat, int at, const char* path, int flags) {
  REAL(unlinkat);
  return by_path("unlink", at, path, [&] { return real(at, path, flags); });
}
HOOK(int, remove, const char* path) {
  REAL(remove);
  return by_path("unlink", path, [&] { return real(path); });
}
HOOK(int, rmdir, const char* path) {
  REAL(rmdir);
  return by_path("unlink", path, [&] { return real(path); });
}
HOOK(int, mkdir, const char* path, mode_t mode) {
  REAL(mkdir);
  return by_path("mkdir", path, [&] { return real(path, mode); });
}
HOOK(int, mkdirat, int at, const char* path, mode_t mode) {
  REAL(mkdirat);
  return by_path("mkdir", at, path, [&] { return real(at, path, mode); });
}
HOOK(int, chmod, const char* path, mode_t mode) {
  REAL(chmod);
  return by_path("chmod", path, [&] { return real(path, mode); });
}
HOOK(int, fchmod, int fd, mode_t mode) {
  REAL(fchmod);
  return by_descriptor("chmod", fd, [&] { return real(fd, mode); });
}

HOOK(int, stat, const char* path, struct stat* status) {
  REAL(stat);
  return by_path("stat", path, [&] { return real(path, status); });
}
HOOK(int, stat64, const char* path, struct stat64* status) {
  REAL(stat64);
  return by_path("stat", path, [&] { return real(path, status); });
}
HOOK(int, lstat, const char* path, struct stat* status) {
  REAL(lstat);
  return by_path("stat", path, [&] { return real(path, status); });
}
HOOK(int, lstat64, const char* path, struct stat64* status) {
  REAL(lstat64);
  return by_path("stat", path, [&] { return real(path, status); });
}
HOOK(int, fstat, int fd, struct stat* status) {
  REAL(fstat);
  return by_descriptor("stat", fd, [&] { return real(fd, status); });
}
HOOK(int, fstat64, int fd, struct stat64* status) {
  REAL(fstat64);
  return by_descriptor("stat", fd, [&] { return real(fd, status); });
}
HOOK(int, fstatat, int at, const char* path, struct stat* status, int flags) {
  REAL(fstatat);
  return by_path("stat", at, path, [&] { return real(at, path, status, flags); });
}
HOOK(int, fstatat64, int at, const char* path, struct stat64* status, int flags) {
  REAL(fstatat64);
  return by_path("stat", at, path, [&] { return real(at, path, status, flags); });
}
HOOK(int, statvfs, const char* path, struct statvfs* status) {
  REAL(statvfs);
  return by_path("statvfs", path, [&] { return real(path, status); });
}
HOOK(int, fstatvfs, int fd, struct statvfs* status) {
  REAL(fstatvfs);
  return by_descriptor("statvfs", fd, [&] { return real(fd, status); });
}
HOOK(int, access, const char* path, int mode) {
  REAL(access);
  return by_path("access", path, [&] { return real(path, mode); });
}

HOOK(int, flock, int fd, int operation) {
  REAL(flock);
  return by_descriptor("lock", fd, [&] { return real(fd, operation); });
}
HOOK(int, fcntl, int fd, int command, void* argument) {
  REAL(fcntl);
  const auto call = [&] { return real(fd, command, argument); };
  return command == F_SETLK || command == F_SETLKW ? by_descriptor("lock", fd, call) : call();
}
HOOK(int, fcntl64, int fd, int command, void* argument) {
  REAL(fcntl64);
  const auto call = [&] { return real(fd, command, argument); };
  return command == F_SETLK || command == F_SETLKW ? by_descriptor("lock", fd, call) : call();
}
