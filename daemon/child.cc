#include "daemon/child.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "cache/escape.h"
#include "proxy/auth/secret.h"

namespace staithe::daemon {
namespace {

using std::chrono::steady_clock;

class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  ~Descriptor() { reset(); }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const { return fd_; }
  void reset() {
    if (fd_ >= 0) close(std::exchange(fd_, -1));
  }

 private:
  int fd_;
};

std::unexpected<Error> failed(const ChildCall& call, std::string why) {
  return fail(Errc::storage_failed, printable(call.program.native(), 200) + " " + std::move(why));
}

std::string too_long(const ChildCall& call) {
  return "took longer than " + std::to_string(call.timeout.count() / 1000) +
         " seconds and was ended";
}

// A file without a name that holds `input`, at its beginning; -1 with errno. Unlike a pipe it needs
// nobody to keep it filled while the answer is read.
int memory_file(std::string_view input) {
  const int fd = memfd_create("staithe-input", MFD_CLOEXEC);
  if (fd < 0) return -1;
  while (!input.empty()) {
    const ssize_t count = write(fd, input.data(), input.size());
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) {
      close(fd);
      return -1;
    }
    input.remove_prefix(static_cast<std::size_t>(count));
  }
  lseek(fd, 0, SEEK_SET);
  return fd;
}

std::vector<char*> environment_without(std::string_view name) {
  std::vector<char*> result;
  for (char** entry = environ; *entry; ++entry) {
    const std::string_view text = *entry;
    if (!name.empty() && text.starts_with(name) && text.substr(name.size()).starts_with('=')) {
      continue;
    }
    result.push_back(*entry);
  }
  result.push_back(nullptr);
  return result;
}

// 0 or an errno.
int spawn(const ChildCall& call, int input, int output, pid_t& pid) {
  posix_spawn_file_actions_t files;
  posix_spawn_file_actions_init(&files);
  posix_spawn_file_actions_adddup2(&files, input, STDIN_FILENO);
  posix_spawn_file_actions_adddup2(&files, output, STDOUT_FILENO);
  if (!call.show_stderr) {
    posix_spawn_file_actions_addopen(&files, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
  }
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  // We ignore SIGPIPE; programs expect it at its default.
  sigset_t defaults;
  sigemptyset(&defaults);
  sigaddset(&defaults, SIGPIPE);
  posix_spawnattr_setsigdefault(&attributes, &defaults);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGDEF);

  std::string name = call.program.filename();
  std::vector<std::string> arguments = call.arguments;
  std::vector<char*> argv{name.data()};
  for (std::string& argument : arguments) argv.push_back(argument.data());
  argv.push_back(nullptr);
  std::vector<char*> variables = environment_without(call.without_variable);
  const int error =
      posix_spawn(&pid, call.program.c_str(), &files, &attributes, argv.data(), variables.data());
  posix_spawnattr_destroy(&attributes);
  posix_spawn_file_actions_destroy(&files);
  return error;
}

// Waits until `fd` has something to say: a positive number, or 0 at the deadline.
int wait_for(int fd, steady_clock::time_point deadline) {
  for (;;) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - steady_clock::now());
    if (left.count() <= 0) return 0;
    pollfd waiting{.fd = fd, .events = POLLIN, .revents = 0};
    const int ready = poll(&waiting, 1, static_cast<int>(left.count()));
    if (ready >= 0 || errno != EINTR) return ready;
  }
}

// Reads to the end; an empty text is success.
std::string read_all(int fd, const ChildCall& call, steady_clock::time_point deadline,
                     std::string& output) {
  // One piece of memory, so that growing leaves no copy of a secret behind.
  output.reserve(call.most_bytes + 1);
  char buffer[8192];
  std::string trouble;
  while (trouble.empty()) {
    if (wait_for(fd, deadline) <= 0) {
      trouble = too_long(call);
      break;
    }
    const ssize_t count = read(fd, buffer, sizeof buffer);
    if (count == 0) break;
    if (count < 0) {
      if (errno != EINTR) trouble = "cannot be read from: " + describe_errno(errno);
      continue;
    }
    if (output.size() + static_cast<std::size_t>(count) > call.most_bytes) {
      trouble = "wrote more than it has to say and was ended";
      break;
    }
    output.append(buffer, static_cast<std::size_t>(count));
  }
  explicit_bzero(buffer, sizeof buffer);
  return trouble;
}

}  // namespace

std::filesystem::path find_program(std::string_view name, std::string_view path) {
  while (!path.empty()) {
    const std::size_t colon = std::min(path.find(':'), path.size());
    const std::string_view directory = path.substr(0, colon);
    path.remove_prefix(std::min(colon + 1, path.size()));
    if (!directory.starts_with('/')) continue;
    const std::filesystem::path candidate = std::filesystem::path(directory) / name;
    struct stat status{};
    if (stat(candidate.c_str(), &status) == 0 && S_ISREG(status.st_mode) &&
        access(candidate.c_str(), X_OK) == 0) {
      return candidate;
    }
  }
  return {};
}

Result<ChildResult> run_child(const ChildCall& call) {
  Descriptor input(memory_file(call.input));
  int ends[2];
  if (input.get() < 0 || pipe2(ends, O_CLOEXEC) != 0) {
    return failed(call, "cannot be started: " + describe_errno(errno));
  }
  Descriptor from(ends[0]);
  Descriptor to(ends[1]);
  pid_t pid = 0;
  if (const int error = spawn(call, input.get(), to.get(), pid); error != 0) {
    return failed(call, "cannot be started: " + describe_errno(error));
  }
  to.reset();
  const auto deadline = steady_clock::now() + call.timeout;
  ChildResult result;
  std::string trouble = read_all(from.get(), call, deadline, result.output);
  // It may have closed its output and go on.
  const Descriptor process(static_cast<int>(syscall(SYS_pidfd_open, pid, 0)));
  if (trouble.empty() && process.get() >= 0 && wait_for(process.get(), deadline) == 0) {
    trouble = too_long(call);
  }
  if (!trouble.empty()) kill(pid, SIGKILL);
  int status = 0;
  while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
  }
  if (!trouble.empty()) {
    proxy::auth::wipe(result.output);
    return failed(call, trouble);
  }
  result.status = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
  return result;
}

}  // namespace staithe::daemon
