#include "bench/process.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <fstream>
#include <iterator>
#include <memory>
#include <optional>
#include <sstream>
#include <thread>

#include "cache/disk.h"
#include "cache/error.h"

namespace staithe::bench {

namespace {

using namespace std::chrono_literals;

constexpr auto start_patience = 20s;
constexpr auto stop_patience = 10s;
constexpr auto poll_interval = 10ms;

volatile std::sig_atomic_t signal_came = 0;

// Fields of /proc/PID/stat behind the name, which may itself hold spaces and brackets.
std::optional<std::vector<std::string>> stat_of(pid_t pid) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/stat");
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  const std::size_t name_end = text.rfind(')');
  if (name_end == std::string::npos) return std::nullopt;
  std::istringstream rest(text.substr(name_end + 1));
  return std::vector<std::string>{std::istream_iterator<std::string>(rest), {}};
}

// Positions in that vector, which begins at field 3 of proc(5).
constexpr std::size_t parent_field = 1;
constexpr std::size_t user_time_field = 11;
constexpr std::size_t system_time_field = 12;
constexpr std::size_t resident_pages_field = 21;

sockaddr_in loopback(std::uint16_t port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return address;
}

}  // namespace

void take_signals() {
  struct sigaction action{};
  action.sa_handler = [](int) { signal_came = 1; };  // Without SA_RESTART: waits end at once.
  ::sigaction(SIGINT, &action, nullptr);
  ::sigaction(SIGTERM, &action, nullptr);
}

bool interrupted() { return signal_came != 0; }

Process::Process(std::vector<std::string> command, std::filesystem::path log)
    : command_(std::move(command)), log_(std::move(log)) {
  std::vector<char*> words;
  for (std::string& word : command_) words.push_back(word.data());
  words.push_back(nullptr);
  const pid_t parent = ::getpid();
  pid_ = ::fork();
  if (pid_ < 0) throw Failure(Errc::storage_failed, "cannot fork: " + describe_errno(errno));
  if (pid_ > 0) return;
  // The child: what a killed benchmark leaves behind is told to end as well.
  ::prctl(PR_SET_PDEATHSIG, SIGTERM);
  if (::getppid() != parent) ::_exit(1);
  const int out = ::open(log_.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  const int in = ::open("/dev/null", O_RDONLY | O_CLOEXEC);
  ::dup2(in, 0);
  ::dup2(out, 1);
  ::dup2(out, 2);
  ::execv(words[0], words.data());
  ::_exit(127);
}

Process::~Process() { stop(SIGTERM); }

void Process::stop(int signal) {
  if (pid_ < 0) return;
  ::kill(pid_, signal);
  const auto deadline = std::chrono::steady_clock::now() + stop_patience;
  while (::waitpid(pid_, nullptr, WNOHANG) == 0) {
    if (std::chrono::steady_clock::now() > deadline) {
      ::kill(pid_, SIGKILL);
      while (::waitpid(pid_, nullptr, 0) < 0 && errno == EINTR) {
      }
      break;
    }
    std::this_thread::sleep_for(poll_interval);
  }
  pid_ = -1;
}

void Process::must_run() {
  if (interrupted()) throw Failure(Errc::cancelled, "stopped by a signal");
  int status = 0;
  if (pid_ > 0 && ::waitpid(pid_, &status, WNOHANG) == 0) return;
  pid_ = -1;
  throw Failure(Errc::storage_failed, command_.front() + " ended by itself:\n" + log_tail());
}

void Process::wait_for_port(std::uint16_t port) {
  const auto deadline = std::chrono::steady_clock::now() + start_patience;
  const sockaddr_in address = loopback(port);
  for (;;) {
    must_run();
    const cache::File socket(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    if (::connect(socket.fd(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0)
      return;
    if (std::chrono::steady_clock::now() > deadline)
      throw Failure(Errc::unreachable, command_.front() + " does not listen on port " +
                                           std::to_string(port) + ":\n" + log_tail());
    std::this_thread::sleep_for(poll_interval);
  }
}

std::vector<pid_t> Process::pids() const {
  std::vector<pid_t> all = {pid_};
  for (const auto& entry : std::filesystem::directory_iterator("/proc")) {
    const std::string name = entry.path().filename();
    pid_t pid = 0;
    if (std::from_chars(name.data(), name.data() + name.size(), pid).ec != std::errc()) continue;
    const auto fields = stat_of(pid);
    if (fields && fields->at(parent_field) == std::to_string(pid_)) all.push_back(pid);
  }
  return all;
}

double Process::cpu_seconds() const {
  std::uint64_t ticks = 0;
  for (const pid_t pid : pids()) {
    if (const auto fields = stat_of(pid))
      ticks +=
          std::stoull(fields->at(user_time_field)) + std::stoull(fields->at(system_time_field));
  }
  return static_cast<double>(ticks) / static_cast<double>(::sysconf(_SC_CLK_TCK));
}

double Process::rss_mib() const {
  std::uint64_t pages = 0;
  for (const pid_t pid : pids()) {
    if (const auto fields = stat_of(pid)) pages += std::stoull(fields->at(resident_pages_field));
  }
  return static_cast<double>(pages) * static_cast<double>(::sysconf(_SC_PAGESIZE)) / (1024 * 1024);
}

std::string Process::log_tail() const {
  constexpr std::size_t tail_bytes = 2'000;
  std::ifstream file(log_);
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  return text.size() > tail_bytes ? text.substr(text.size() - tail_bytes) : text;
}

Scratch::Scratch(const std::filesystem::path& parent) {
  std::string name = parent / "staithe-bench-XXXXXX";
  if (!::mkdtemp(name.data()))
    throw Failure(Errc::storage_failed, "cannot create " + name + ": " + describe_errno(errno));
  path_ = name;
}

Scratch::~Scratch() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

std::string output_of(const std::string& command) {
  const std::unique_ptr<FILE, int (*)(FILE*)> pipe(::popen(command.c_str(), "re"), ::pclose);
  if (!pipe) return {};
  std::string text;
  std::array<char, 4096> piece;
  while (const std::size_t n = std::fread(piece.data(), 1, piece.size(), pipe.get()))
    text.append(piece.data(), n);
  while (text.ends_with('\n')) text.pop_back();
  return text;
}

std::filesystem::path find_program(const std::string& name) {
  const char* path = std::getenv("PATH");
  std::istringstream folders(std::string(path ? path : "") + ":/usr/sbin:/usr/local/sbin");
  for (std::string folder; std::getline(folders, folder, ':');) {
    const auto program = std::filesystem::path(folder) / name;
    if (!folder.empty() && ::access(program.c_str(), X_OK) == 0) return program;
  }
  return {};
}

std::uint16_t free_port() {
  const cache::File socket(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address = loopback(0);
  socklen_t size = sizeof address;
  if (::bind(socket.fd(), reinterpret_cast<const sockaddr*>(&address), size) != 0 ||
      ::getsockname(socket.fd(), reinterpret_cast<sockaddr*>(&address), &size) != 0)
    throw Failure(Errc::storage_failed, "no free port: " + describe_errno(errno));
  return ntohs(address.sin_port);
}

double machine_cpu_seconds() {
  std::ifstream file("/proc/stat");
  std::string name;
  std::array<std::uint64_t, 8> ticks{};  // user nice system idle iowait irq softirq steal
  file >> name;
  for (std::uint64_t& kind : ticks) file >> kind;
  const std::uint64_t busy = ticks[0] + ticks[1] + ticks[2] + ticks[5] + ticks[6] + ticks[7];
  return static_cast<double>(busy) / static_cast<double>(::sysconf(_SC_CLK_TCK));
}

double own_cpu_seconds() {
  timespec time{};
  ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) * 1e-9;
}

// ---- Strace ------------------------------------------------------------------------------------

namespace {

std::vector<std::string> strace_command(const std::vector<pid_t>& pids,
                                        const std::filesystem::path& counts) {
  std::vector<std::string> command = {find_program("strace"), "-c", "-f",  "-U",
                                      "calls,name",           "-o", counts};
  for (const pid_t pid : pids) {
    command.emplace_back("-p");
    command.push_back(std::to_string(pid));
  }
  return command;
}

bool is_traced(pid_t task) {
  std::ifstream file("/proc/" + std::to_string(task) + "/status");
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with("TracerPid:"))
      return line.substr(10).find_first_not_of("\t 0") != std::string::npos;
  }
  return true;  // It has ended.
}

}  // namespace

Strace::Strace(const std::vector<pid_t>& pids, const std::filesystem::path& scratch)
    : counts_(scratch / "strace.counts"),
      strace_(strace_command(pids, counts_), scratch / "strace.log") {
  for (const pid_t pid : pids) {
    const auto tasks = "/proc/" + std::to_string(pid) + "/task";
    for (const auto& task : std::filesystem::directory_iterator(tasks)) {
      while (!is_traced(std::stoi(task.path().filename()))) {
        strace_.must_run();
        std::this_thread::sleep_for(poll_interval);
      }
    }
  }
}

std::map<std::string, std::uint64_t> Strace::stop() {
  strace_.stop(SIGINT);
  std::map<std::string, std::uint64_t> counts;
  std::ifstream file(counts_);
  for (std::string line; std::getline(file, line);) {
    std::istringstream words(line);
    std::uint64_t calls = 0;
    std::string name;
    if (words >> calls >> name && name != "total") counts[name] += calls;
  }
  return counts;
}

}  // namespace staithe::bench
