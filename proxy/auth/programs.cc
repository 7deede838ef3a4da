#include "proxy/auth/programs.h"

#include <fcntl.h>
#include <openssl/crypto.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <string_view>
#include <utility>

#include "cache/error.h"
#include "cache/escape.h"
#include "cache/offload.h"

extern char** environ;  // NOLINT: POSIX declares it so

namespace staithe::proxy::auth {
namespace {

using SteadyClock = std::chrono::steady_clock;

constexpr std::size_t max_errors_bytes = 2048;
constexpr std::size_t piece_bytes = 4096;

// What the service manager and the identity hosts told us, and nobody else.
constexpr std::array<std::string_view, 9> kept_back = {
    "NOTIFY_SOCKET=", "LISTEN_FDS=",      "LISTEN_PID=", "LISTEN_FDNAMES=",       "WATCHDOG_USEC=",
    "WATCHDOG_PID=",  "IDENTITY_HEADER=", "MSI_SECRET=", "CREDENTIALS_DIRECTORY="};

class Descriptor {
 public:
  Descriptor() = default;
  explicit Descriptor(int fd) : fd_(fd) {}
  Descriptor(Descriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Descriptor& operator=(Descriptor&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~Descriptor() { reset(); }
  void reset() {
    if (fd_ >= 0) ::close(std::exchange(fd_, -1));
  }
  int get() const { return fd_; }

 private:
  int fd_ = -1;
};

struct Pipe {
  Descriptor read, write;
};

Pipe make_pipe() {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0)
    throw Failure(Errc::storage_failed, "no pipe to a program: " + describe_errno(errno));
  return {Descriptor(ends[0]), Descriptor(ends[1])};
}

std::vector<char*> environment() {
  std::vector<char*> kept;
  for (char** variable = environ; *variable; ++variable) {
    const std::string_view text(*variable);
    if (std::ranges::none_of(kept_back, [&](auto name) { return text.starts_with(name); }))
      kept.push_back(*variable);
  }
  kept.push_back(nullptr);
  return kept;
}

// A child that is killed and reaped unless it has been waited for.
class Child {
 public:
  Child(const ProgramRun& run, const Pipe& input, const Pipe& output, const Pipe& errors) {
    std::vector<char*> arguments;
    std::string program = run.program;
    std::vector<std::string> texts = run.arguments;
    arguments.push_back(program.data());
    for (std::string& text : texts) arguments.push_back(text.data());
    arguments.push_back(nullptr);
    std::vector<char*> variables = environment();

    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    ::posix_spawn_file_actions_init(&actions);
    ::posix_spawnattr_init(&attributes);
    ::posix_spawn_file_actions_adddup2(&actions, input.read.get(), STDIN_FILENO);
    ::posix_spawn_file_actions_adddup2(&actions, output.write.get(), STDOUT_FILENO);
    ::posix_spawn_file_actions_adddup2(&actions, errors.write.get(), STDERR_FILENO);
    // Whatever else is open here, connections with tokens on them, is no business of a helper's.
    ::posix_spawn_file_actions_addclosefrom_np(&actions, STDERR_FILENO + 1);
    sigset_t all, none;
    ::sigfillset(&all);
    ::sigemptyset(&none);
    ::posix_spawnattr_setsigdefault(&attributes, &all);
    ::posix_spawnattr_setsigmask(&attributes, &none);
    // A group of its own, so that its own children end with it.
    ::posix_spawnattr_setpgroup(&attributes, 0);
    ::posix_spawnattr_setflags(
        &attributes, POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETPGROUP);
    const int failed = ::posix_spawnp(&pid_, program.c_str(), &actions, &attributes,
                                      arguments.data(), variables.data());
    ::posix_spawn_file_actions_destroy(&actions);
    ::posix_spawnattr_destroy(&attributes);
    if (failed != 0) {
      pid_ = -1;
      throw Failure(Errc::identity_missing, "the program " + printable(run.program, 100) +
                                                " cannot be started: " + describe_errno(failed) +
                                                "; install it where the PATH of staithed finds it");
    }
  }
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;
  ~Child() {
    if (pid_ < 0) return;
    ::kill(-pid_, SIGKILL);
    wait();
  }
  // Readable once it has ended.
  Descriptor watch() const {
    Descriptor ended(static_cast<int>(::syscall(SYS_pidfd_open, pid_, 0)));
    if (ended.get() < 0)
      throw Failure(Errc::storage_failed, "no watch on a program: " + describe_errno(errno));
    return ended;
  }
  int wait() {
    int status = 0;
    while (::waitpid(pid_, &status, 0) < 0 && errno == EINTR) {
    }
    pid_ = -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  }

 private:
  pid_t pid_ = -1;
};

// Text that grows in place up to its limit, and is wiped.
class Collected {
 public:
  explicit Collected(std::size_t limit) : limit_(limit) { text_.reserve(limit); }
  ~Collected() { wipe(text_); }
  Collected(const Collected&) = delete;
  Collected& operator=(const Collected&) = delete;
  // False if something had to be left out.
  bool add(std::string_view piece) {
    const std::size_t room = limit_ - text_.size();
    text_ += piece.substr(0, room);
    return piece.size() <= room;
  }
  std::string_view text() const { return text_; }

 private:
  std::size_t limit_;
  std::string text_;
};

ProgramResult run_now(const ProgramRun& run, int stop) {
  const std::string name = "the program " + printable(run.program, 100);
  if (run.program.empty() || run.program.contains('/'))
    throw Failure(Errc::identity_missing, name + " is not one: only a name in PATH is run");
  // One that does not read its input is no reason to die. This thread is ours.
  sigset_t broken_pipe;
  ::sigemptyset(&broken_pipe);
  ::sigaddset(&broken_pipe, SIGPIPE);
  ::pthread_sigmask(SIG_BLOCK, &broken_pipe, nullptr);
  Pipe input = make_pipe();
  Pipe output = make_pipe();
  Pipe errors = make_pipe();
  Child child(run, input, output, errors);
  input.read.reset();
  output.write.reset();
  errors.write.reset();
  ::fcntl(input.write.get(), F_SETFL, O_NONBLOCK);

  Collected said(run.max_output_bytes);
  Collected complaints(max_errors_bytes);
  std::string_view to_write = run.input;
  if (to_write.empty()) input.write.reset();
  const auto deadline = SteadyClock::now() + run.limit;
  std::array<char, piece_bytes> piece{};
  const auto left = [&] {
    return std::chrono::ceil<std::chrono::milliseconds>(deadline - SteadyClock::now());
  };
  const auto too_long = [&] {
    return Failure(Errc::unreachable, name + " took longer than " +
                                          std::to_string(run.limit.count() / 1000) +
                                          " s and was ended");
  };
  const Descriptor ended = child.watch();
  for (bool runs = true; runs || output.read.get() >= 0 || errors.read.get() >= 0;) {
    if (left().count() <= 0) throw too_long();
    std::array<pollfd, 5> waiting = {
        {{.fd = output.read.get(), .events = POLLIN, .revents = 0},
         {.fd = errors.read.get(), .events = POLLIN, .revents = 0},
         {.fd = input.write.get(), .events = POLLOUT, .revents = 0},
         {.fd = stop, .events = POLLIN, .revents = 0},
         {.fd = runs ? ended.get() : -1, .events = POLLIN, .revents = 0}}};
    if (::poll(waiting.data(), waiting.size(), static_cast<int>(left().count())) <= 0) continue;
    if (waiting[3].revents != 0) throw Failure(Errc::cancelled, name + ": the daemon is stopping");
    if (waiting[4].revents != 0) runs = false;
    if (waiting[2].revents != 0) {
      const ssize_t n = ::write(input.write.get(), to_write.data(), to_write.size());
      if (n > 0) to_write.remove_prefix(static_cast<std::size_t>(n));
      // A program that does not want to know (EPIPE) may still know the answer.
      if (to_write.empty() || (n < 0 && errno != EAGAIN && errno != EINTR)) input.write.reset();
    }
    for (int i = 0; i < 2; ++i) {
      if (waiting[i].revents == 0) continue;
      Descriptor& from = i == 0 ? output.read : errors.read;
      const ssize_t n = ::read(from.get(), piece.data(), piece.size());
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0) {
        from.reset();
      } else if (i == 1) {
        complaints.add({piece.data(), static_cast<std::size_t>(n)});
      } else if (!said.add({piece.data(), static_cast<std::size_t>(n)})) {
        throw Failure(Errc::upstream_nonsense,
                      name + " says more than " + std::to_string(run.max_output_bytes) + " bytes");
      }
      OPENSSL_cleanse(piece.data(), piece.size());
    }
  }
  ProgramResult result;
  result.exit_status = child.wait();
  result.output = Secret(said.text());
  result.errors = std::string(complaints.text());
  return result;
}

}  // namespace

PosixPrograms::PosixPrograms() : stop_(::eventfd(0, EFD_CLOEXEC)), pool_(2) {}

void PosixPrograms::stop() { ::eventfd_write(stop_, 1); }

PosixPrograms::~PosixPrograms() {
  stop();
  pool_.join();
  ::close(stop_);
}

asio::awaitable<ProgramResult> PosixPrograms::run(ProgramRun run) {
  co_return co_await offload(pool_, [&] { return run_now(run, stop_); });
}

}  // namespace staithe::proxy::auth
