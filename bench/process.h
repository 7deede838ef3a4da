// The servers under measurement: started, looked at through /proc, and stopped by their own pids.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

namespace staithe::bench {

// From now on SIGINT and SIGTERM end the measurement in order; interrupted() says that one came.
void take_signals();
bool interrupted();

// A program that runs until this goes, or until this process dies. Its output goes to `log`.
class Process {
 public:
  Process(std::vector<std::string> command, std::filesystem::path log);
  // SIGTERM, and SIGKILL if that is not enough within some seconds.
  ~Process();
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;

  // Ends it with `signal` and waits; does nothing if it has ended.
  void stop(int signal);
  // Throws Failure with the end of its log if it has ended by itself.
  void must_run();
  // Waits until it accepts connections on this port of 127.0.0.1.
  void wait_for_port(std::uint16_t port);

  // It and its children, without those that come and go.
  std::vector<pid_t> pids() const;
  // CPU time of all of them, user and system together; the kernel tells it in steps of 10 ms.
  double cpu_seconds() const;
  // Resident memory, the sum over all of them.
  double rss_mib() const;

 private:
  std::string log_tail() const;

  std::vector<std::string> command_;
  std::filesystem::path log_;
  pid_t pid_ = -1;
};

// A directory of its own below `parent`, removed with all that is in it when this goes.
class Scratch {
 public:
  explicit Scratch(const std::filesystem::path& parent);
  ~Scratch();
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

// The standard output of a command, for versions; empty if it cannot be run.
std::string output_of(const std::string& command);

// The program of this name on PATH or in an sbin directory; empty if there is none.
std::filesystem::path find_program(const std::string& name);

// A free port of 127.0.0.1. Another program may take it before ours does; then ours does not start.
std::uint16_t free_port();

// CPU seconds that the whole machine has spent since its start, by the kernel's ticks; and this
// process alone.
double machine_cpu_seconds();
double own_cpu_seconds();

// Counts the system calls of these processes with strace(1), from its construction to stop().
// Throws Failure if it cannot attach.
class Strace {
 public:
  Strace(const std::vector<pid_t>& pids, const std::filesystem::path& scratch);
  // How often each call was made.
  std::map<std::string, std::uint64_t> stop();

 private:
  std::filesystem::path counts_;
  Process strace_;
};

}  // namespace staithe::bench
