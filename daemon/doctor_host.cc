#include "daemon/doctor_host.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <grp.h>
#include <netinet/in.h>
#include <poll.h>
#include <pwd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <charconv>
#include <cstdint>
#include <fstream>
#include <sstream>

#include "cache/error.h"
#include "cache/escape.h"
#include "daemon/child.h"

namespace staithe::daemon {
namespace {

using std::chrono::steady_clock;

constexpr std::size_t most_answer_bytes = 16 * 1024;
constexpr std::chrono::seconds systemctl_patience{5};
constexpr std::string_view unit_name = "staithed.service";

// Closes itself.
class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  ~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const { return fd_; }

 private:
  int fd_;
};

bool wait_for(int fd, short events, steady_clock::time_point deadline) {
  const auto left =
      std::chrono::ceil<std::chrono::milliseconds>(deadline - steady_clock::now()).count();
  pollfd waiting{.fd = fd, .events = events, .revents = 0};
  return left > 0 && ::poll(&waiting, 1, static_cast<int>(left)) > 0;
}

// A socket's address of any of the three families.
struct Address {
  sockaddr_storage storage{};
  socklen_t length = 0;
};

// Of "127.0.0.1:5050", "[::1]:5050" or "unix:/path".
std::optional<Address> address_of(std::string_view text) {
  constexpr std::string_view unix_scheme = "unix:";
  Address address;
  if (text.starts_with(unix_scheme)) {
    text.remove_prefix(unix_scheme.size());
    auto* to = reinterpret_cast<sockaddr_un*>(&address.storage);
    if (text.size() >= sizeof to->sun_path) return std::nullopt;
    to->sun_family = AF_UNIX;
    text.copy(to->sun_path, text.size());
    address.length = sizeof *to;
    return address;
  }
  const std::size_t colon = text.rfind(':');
  if (colon == text.npos) return std::nullopt;
  std::uint16_t port = 0;
  std::from_chars(text.data() + colon + 1, text.data() + text.size(), port);
  std::string ip(text.substr(0, colon));
  if (ip.starts_with('[') && ip.ends_with(']')) {
    ip = ip.substr(1, ip.size() - 2);
    auto* to = reinterpret_cast<sockaddr_in6*>(&address.storage);
    if (::inet_pton(AF_INET6, ip.c_str(), &to->sin6_addr) != 1) return std::nullopt;
    to->sin6_family = AF_INET6;
    to->sin6_port = htons(port);
    address.length = sizeof *to;
    return address;
  }
  auto* to = reinterpret_cast<sockaddr_in*>(&address.storage);
  if (::inet_pton(AF_INET, ip.c_str(), &to->sin_addr) != 1) return std::nullopt;
  to->sin_family = AF_INET;
  to->sin_port = htons(port);
  address.length = sizeof *to;
  return address;
}

// 0, or the errno that says why not.
int connect_by(int fd, const Address& address, steady_clock::time_point deadline) {
  if (::connect(fd, reinterpret_cast<const sockaddr*>(&address.storage), address.length) == 0)
    return 0;
  if (errno != EINPROGRESS) return errno;
  if (!wait_for(fd, POLLOUT, deadline)) return ETIMEDOUT;
  int error = 0;
  socklen_t size = sizeof error;
  ::getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size);
  return error;
}

std::string name_of_user(unsigned uid) {
  const passwd* found = ::getpwuid(uid);
  return found ? printable(found->pw_name, 60) : "uid " + std::to_string(uid);
}

std::string name_of_group(unsigned gid) {
  const group* found = ::getgrgid(gid);
  return found ? printable(found->gr_name, 60) : "gid " + std::to_string(gid);
}

std::string get(const std::map<std::string, std::string>& unit, const char* name) {
  const auto found = unit.find(name);
  return found == unit.end() ? std::string() : printable(found->second, 100);
}

// What exit statuses of staithed mean; interface.md section 1.
std::string_view meaning(std::string_view status) {
  if (status == "1") return "it failed while running";
  if (status == "2") return "its configuration is bad";
  if (status == "3") return "its cache directory is in use by another instance";
  return {};
}

// Inodes of the sockets that listen on this port.
std::vector<std::string> listening_inodes(const std::filesystem::path& table, unsigned port) {
  std::vector<std::string> inodes;
  std::ifstream in(table);
  std::string line;
  std::getline(in, line);  // the heading
  while (std::getline(in, line)) {
    std::istringstream fields(line);
    std::string number, local, remote, state, skipped, inode;
    fields >> number >> local >> remote >> state;
    for (int i = 0; i < 5; ++i) fields >> skipped;
    fields >> inode;
    const std::size_t colon = local.rfind(':');
    if (state != "0A" || colon == std::string::npos) continue;  // 0A: listening
    unsigned found = 0;
    std::from_chars(local.data() + colon + 1, local.data() + local.size(), found, 16);
    if (found == port) inodes.push_back("socket:[" + inode + "]");
  }
  return inodes;
}

}  // namespace

ListenerFinding ask_listener(const std::string& address, std::chrono::milliseconds timeout) {
  const auto deadline = steady_clock::now() + timeout;
  const auto to = address_of(address);
  if (!to) return {.error = EINVAL};
  const Descriptor socket(
      ::socket(to->storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (socket.get() < 0) return {.error = errno};
  if (const int error = connect_by(socket.get(), *to, deadline)) return {.error = error};
  constexpr std::string_view question =
      "GET /v2/ HTTP/1.1\r\nHost: localhost\r\nUser-Agent: staithe/" STAITHE_VERSION
      "\r\nConnection: close\r\n\r\n";
  if (::send(socket.get(), question.data(), question.size(), MSG_NOSIGNAL) < 0)
    return {.error = errno};
  std::string answer;
  char piece[4096];
  while (answer.size() < most_answer_bytes && answer.find("\r\n\r\n") == std::string::npos) {
    const ssize_t n = ::recv(socket.get(), piece, sizeof piece, 0);
    if (n == 0) break;
    if (n > 0) {
      answer.append(piece, static_cast<std::size_t>(n));
    } else if (errno != EAGAIN && errno != EINTR) {
      return {.error = errno};
    } else if (!wait_for(socket.get(), POLLIN, deadline)) {
      return {.error = ETIMEDOUT};
    }
  }
  ListenerFinding result;
  if (answer.starts_with("HTTP/1.") && answer.size() > 12)
    std::from_chars(answer.data() + 9, answer.data() + 12, result.status);
  std::ranges::transform(answer, answer.begin(),
                         [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  result.is_staithed = answer.contains("\r\ncache-status: staithe");
  return result;
}

DoctorStep listener_step(const std::string& address, const ListenerFinding& answer, bool runs,
                         const std::string& taker) {
  DoctorStep step{.step = "listener",
                  .subject = printable(address, 150),
                  .tried = "GET /v2/" + (answer.status ? ": " + std::to_string(answer.status) : ""),
                  .finding = {}};
  const auto fail = [&](std::string finding, std::string mend) {
    step.state = StepState::failed;
    step.finding = std::move(finding);
    step.mend = std::move(mend);
    return step;
  };
  const std::string port = address.substr(address.rfind(':') + 1);
  const std::string who = taker.empty() ? "another program" : taker;
  if (answer.is_staithed && answer.status == 200) {
    step.finding = runs ? "staithed serves there" : "a staithed serves there, with another socket";
    if (runs) return step;
    step.state = StepState::warning;
    step.mend = "name its control socket: staithe --socket PATH doctor";
    return step;
  }
  if (answer.is_staithed && answer.status == 403)
    return fail("staithed refuses this user there",
                "add this user to access.users, or one of its groups to access.groups, in "
                "staithe.toml, then: staithe reload");
  if (answer.error == 0)
    return fail(who + " answers there, and not staithed",
                "stop it, or choose another address in listen.registry: ss -ltnp 'sport = :" +
                    port + "' says who it is");
  if (!runs && (answer.error == ECONNREFUSED || answer.error == ENOENT)) {
    step.state = StepState::skipped;
    step.finding = "nobody listens there, and the address is free for staithed";
    return step;
  }
  if (answer.error == ECONNREFUSED || answer.error == ENOENT)
    return fail("nobody listens there, though staithed says that it does",
                "it may listen in another network namespace, as in a container: run this there, or "
                "see what listens with ss -ltn");
  if (answer.error == EACCES)
    return fail("this user may not connect there", "see the permissions of that socket: ls -l");
  if (answer.error == ETIMEDOUT)
    return fail((taker.empty() ? std::string("who listens there") : taker) +
                    " takes the connection and does not answer",
                "a firewall of this machine, or an overloaded daemon: journalctl -u staithed");
  return fail(describe_errno(answer.error), "see what listens with ss -ltn");
}

std::string who_listens(const std::filesystem::path& root, unsigned port) {
  std::vector<std::string> inodes = listening_inodes(root / "proc/net/tcp", port);
  const auto more = listening_inodes(root / "proc/net/tcp6", port);
  inodes.insert(inodes.end(), more.begin(), more.end());
  if (inodes.empty()) return {};
  std::error_code error;
  for (std::filesystem::directory_iterator it(root / "proc", error), end; !error && it != end;
       it.increment(error)) {
    const std::string pid = it->path().filename().string();
    if (pid.empty() || pid.find_first_not_of("0123456789") != std::string::npos) continue;
    std::error_code hidden;
    for (std::filesystem::directory_iterator fd(it->path() / "fd", hidden), last;
         !hidden && fd != last; fd.increment(hidden)) {
      std::error_code gone;
      const auto target = std::filesystem::read_symlink(fd->path(), gone);
      if (gone || std::ranges::find(inodes, target.native()) == inodes.end()) continue;
      std::ifstream comm(it->path() / "comm");
      std::string name;
      std::getline(comm, name);
      return (name.empty() ? "a program" : printable(name, 60)) + " (pid " + pid + ")";
    }
  }
  return {};
}

std::map<std::string, std::string> parse_unit(std::string_view text) {
  std::map<std::string, std::string> unit;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    const std::string_view line = text.substr(0, end);
    if (const std::size_t equals = line.find('='); equals != line.npos)
      unit.emplace(line.substr(0, equals), line.substr(equals + 1));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return unit;
}

DoctorStep unit_step(const std::map<std::string, std::string>& unit) {
  DoctorStep step{.step = "unit", .subject = std::string(unit_name), .finding = {}};
  const std::string load = get(unit, "LoadState");
  const std::string active = get(unit, "ActiveState");
  step.tried = "systemctl show " + std::string(unit_name);
  step.state = StepState::failed;
  if (load != "loaded") {
    step.finding = "it is not installed (" + (load.empty() ? "not known" : load) + ")";
    step.mend = "install the package, or start staithed by hand";
  } else if (active == "failed") {
    const std::string status = get(unit, "ExecMainStatus");
    const std::string_view why = meaning(status);
    step.finding = "it has failed: " + get(unit, "Result") + ", exit status " + status;
    if (!why.empty()) step.finding += ", " + std::string(why);
    step.mend = "journalctl -u staithed -n 50 says why; then: systemctl restart staithed";
  } else if (active == "active") {
    step.state = StepState::warning;
    step.finding = "it is active, and its socket does not answer here";
    step.mend = "see listen.control of its configuration, and journalctl -u staithed";
  } else {
    step.finding = "it is " + (active.empty() ? "not running" : active);
    step.mend = "systemctl enable --now staithed";
  }
  return step;
}

std::optional<DoctorStep> examine_unit(const Environment& environment) {
  std::error_code ignored;
  if (!std::filesystem::exists("/run/systemd/system", ignored)) return std::nullopt;
  const auto program = find_program("systemctl", environment.get("PATH"));
  if (program.empty()) return std::nullopt;
  const auto result = run_child(
      {.program = program,
       .arguments = {"show", "--property=LoadState,ActiveState,SubState,Result,ExecMainStatus",
                     std::string(unit_name)},
       .input = {},
       .timeout = systemctl_patience});
  if (!result || result->status != 0) return std::nullopt;
  return unit_step(parse_unit(result->output));
}

DoctorStep socket_step(const std::filesystem::path& socket, const std::string& reason,
                       unsigned uid) {
  DoctorStep step{.step = "daemon",
                  .subject = printable(socket.native(), 200),
                  .state = StepState::failed,
                  .tried = "GET /v1/status",
                  .finding = reason,
                  .error_class = "unreachable"};
  struct stat status{};
  if (::stat(socket.c_str(), &status) != 0) {
    step.mend = errno == EACCES
                    ? "this user may not look into " +
                          printable(socket.parent_path().native(), 200) + ": sudo staithe doctor"
                    : "start it: systemctl start staithed; or name its socket: staithe --socket "
                      "PATH doctor";
    return step;
  }
  const bool by_group = (status.st_mode & S_IWGRP) != 0 && status.st_gid != 0;
  if (::access(socket.c_str(), W_OK) == 0) {
    step.mend = "it is stuck, or has gone without removing its socket: systemctl restart staithed";
  } else if (by_group) {
    const std::string group = name_of_group(status.st_gid);
    step.mend = "only the group " + group + " may use it: usermod -aG " + group + " " +
                name_of_user(uid) + ", and log in again; or sudo staithe doctor";
  } else {
    step.mend = "only " + name_of_user(status.st_uid) +
                " and root may use it: sudo staithe doctor; access.users and access.groups in "
                "staithe.toml let others in";
  }
  return step;
}

std::vector<DoctorStep> configuration_steps(const std::string& file,
                                            const std::expected<Config, Faults>& found) {
  std::vector<DoctorStep> steps;
  if (found) {
    steps.push_back({.step = "configuration",
                     .subject = printable(file, 200),
                     .finding = "the file has no faults"});
    return steps;
  }
  for (const Fault& fault : found.error())
    steps.push_back({.step = "configuration",
                     .subject = printable(file, 200),
                     .state = StepState::failed,
                     .finding = fault.to_string(),
                     .mend = "staithed does not start with it: correct it, then systemctl restart "
                             "staithed",
                     .error_class = to_string(Errc::config)});
  return steps;
}

}  // namespace staithe::daemon
