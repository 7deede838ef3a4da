#include "daemon/doctor_listener.h"

#include <fcntl.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <algorithm>
#include <array>
#include <boost/asio/ip/tcp.hpp>
#include <cctype>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <fstream>
#include <span>
#include <sstream>
#include <string_view>
#include <vector>

#include "cache/disk.h"
#include "cache/error.h"
#include "cache/escape.h"
#include "cache/openssl.h"
#include "proxy/listen_address.h"

namespace staithe::daemon {
namespace {

using std::chrono::steady_clock;

constexpr std::size_t most_answer_bytes = 16 * 1024;

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

Address address_of(const proxy::ListenAddress& listener) {
  Address address;
  if (!listener.unix_path.empty()) {
    auto* to = reinterpret_cast<sockaddr_un*>(&address.storage);
    to->sun_family = AF_UNIX;
    listener.unix_path.copy(to->sun_path, sizeof to->sun_path - 1);
    address.length = sizeof *to;
    return address;
  }
  namespace ip = boost::asio::ip;
  const ip::tcp::endpoint endpoint(ip::make_address(listener.ip), listener.port);
  std::memcpy(&address.storage, endpoint.data(), endpoint.size());
  address.length = static_cast<socklen_t>(endpoint.size());
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

// A connection that is made, with TLS in it or without. Every wait ends at the deadline; what fails
// is 0 or less, and why is in errno.
class Line {
 public:
  Line(int fd, steady_clock::time_point deadline) : fd_(fd), deadline_(deadline) {}

  bool shake_hands() {
    context_.reset(::SSL_CTX_new(::TLS_client_method()));
    if (!context_) return lost();
    ::SSL_CTX_set_verify(context_.get(), SSL_VERIFY_NONE, nullptr);
    ssl_.reset(::SSL_new(context_.get()));
    if (!ssl_ || ::SSL_set_fd(ssl_.get(), fd_) != 1 ||
        ::SSL_set_tlsext_host_name(ssl_.get(), "localhost") != 1)
      return lost();
    return by_tls([this] { return ::SSL_connect(ssl_.get()); }) == 1;
  }
  ssize_t send(std::string_view text) {
    if (!ssl_) return ::send(fd_, text.data(), text.size(), MSG_NOSIGNAL);
    return by_tls(
        [&] { return ::SSL_write(ssl_.get(), text.data(), static_cast<int>(text.size())); });
  }
  // 0: the end.
  ssize_t receive(std::span<char> piece) {
    if (ssl_)
      return by_tls(
          [&] { return ::SSL_read(ssl_.get(), piece.data(), static_cast<int>(piece.size())); });
    for (;;) {
      const ssize_t n = ::recv(fd_, piece.data(), piece.size(), 0);
      if (n >= 0 || (errno != EAGAIN && errno != EINTR)) return n;
      if (!wait_for(fd_, POLLIN, deadline_)) return late();
    }
  }

 private:
  static bool lost() {
    ::ERR_clear_error();
    errno = EPROTO;
    return false;
  }
  static int late() {
    errno = ETIMEDOUT;
    return -1;
  }
  template <class Step>
  int by_tls(Step step) {
    for (;;) {
      ::ERR_clear_error();
      const int n = step();
      if (n > 0) return n;
      const int why = ::SSL_get_error(ssl_.get(), n);
      if (why != SSL_ERROR_WANT_READ && why != SSL_ERROR_WANT_WRITE) {
        lost();
        return why == SSL_ERROR_ZERO_RETURN ? 0 : -1;
      }
      if (!wait_for(fd_, why == SSL_ERROR_WANT_READ ? POLLIN : POLLOUT, deadline_)) return late();
    }
  }

  const int fd_;
  const steady_clock::time_point deadline_;
  openssl::Owner<SSL_CTX, ::SSL_CTX_free> context_;
  openssl::Owner<SSL, ::SSL_free> ssl_;
};

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
  const auto listener = proxy::ListenAddress::parse(address);
  if (!listener) return {.error = EINVAL};
  const Address to = address_of(*listener);
  const cache::File socket(
      ::socket(to.storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (socket.fd() < 0) return {.error = errno};
  if (const int error = connect_by(socket.fd(), to, deadline)) return {.error = error};
  Line line(socket.fd(), deadline);
  if (listener->tls && !line.shake_hands()) return {.error = errno};
  constexpr std::string_view question =
      "GET /v2/ HTTP/1.1\r\nHost: localhost\r\nUser-Agent: staithe/" STAITHE_VERSION
      "\r\nConnection: close\r\n\r\n";
  if (line.send(question) <= 0) return {.error = errno};
  std::string answer;
  std::array<char, 4096> piece;
  while (answer.size() < most_answer_bytes && answer.find("\r\n\r\n") == std::string::npos) {
    const ssize_t n = line.receive(piece);
    if (n < 0) return {.error = errno};
    if (n == 0) break;
    answer.append(piece.data(), static_cast<std::size_t>(n));
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
  if (answer.error == EPROTO)
    return fail(who + " answers there, and TLS with it fails",
                "stop it, or choose another address in listen.tls: ss -ltnp 'sport = :" + port +
                    "' says who it is");
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

}  // namespace staithe::daemon
