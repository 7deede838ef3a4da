#include "proxy/server.h"

#include <dirent.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/crypto.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <cassert>
#include <cerrno>
#include <cstring>
#include <utility>

#include "cache/log.h"
#include "proxy/errors.h"

namespace staithe::proxy {

namespace {

constexpr int accept_backlog = 1024;
// Out of descriptors or memory: wait for connections to end instead of spinning on accept().
constexpr auto accept_pause = std::chrono::milliseconds(100);
// Of those that are refused, so many may take a moment each to ask and to read why; more are told
// so and closed at once.
constexpr std::size_t most_refused_at_once = 64;
constexpr auto time_to_read_refusal = std::chrono::seconds(1);
// A crowd that is refused is one line in the log, for each reason.
constexpr auto report_pause = std::chrono::minutes(1);
constexpr std::string_view retry_after_seconds = "5";

[[noreturn]] void throw_listen(const std::string& address, const std::string& cause) {
  std::string remedy =
      "choose another address in listen.registry, listen.control or "
      "listen.metrics";
  if (cause == describe_errno(EADDRINUSE))
    remedy = "another program listens there: stop it or " + remedy;
  throw Failure(Errc::config, "cannot listen on " + address + ": " + cause + "; " + remedy);
}

// True if a server answers on this Unix socket.
bool answers(const std::string& path) {
  asio::io_context context;
  asio::local::stream_protocol::socket probe(context);
  boost::system::error_code error;
  probe.connect(asio::local::stream_protocol::endpoint(path), error);
  return !error;
}

bool is_loopback(const sockaddr_storage& address) {
  if (address.ss_family == AF_UNIX) return true;
  if (address.ss_family == AF_INET) {
    const auto& v4 = reinterpret_cast<const sockaddr_in&>(address);
    return (ntohl(v4.sin_addr.s_addr) >> 24) == 127;
  }
  const auto& v6 = reinterpret_cast<const sockaddr_in6&>(address);
  if (IN6_IS_ADDR_V4MAPPED(&v6.sin6_addr)) return v6.sin6_addr.s6_addr[12] == 127;
  return IN6_IS_ADDR_LOOPBACK(&v6.sin6_addr);
}

// Both ends are on loopback. Anything else reached the port by a route that nobody intended: where
// a host routes 127.0.0.0/8 (net.ipv4.conf.*.route_localnet), its neighbours and containers come to
// our own address, from theirs (CVE-2020-8558).
bool came_over_loopback(int fd) {
  sockaddr_storage address{};
  socklen_t size = sizeof address;
  if (::getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size) != 0 || !is_loopback(address))
    return false;
  address = {};
  size = sizeof address;
  // Who has gone already has no address any more, and cannot be answered either.
  return ::getpeername(fd, reinterpret_cast<sockaddr*>(&address), &size) != 0 ||
         is_loopback(address);
}

// What comes to a listening socket is of this machine, where nothing is lost and nothing queues for
// a line: a congestion control that paces what it sends (BBR, the default of some machines) takes
// half of the rate and more. Accepted sockets inherit it; "reno" is in every kernel, for everybody.
void send_unpaced(int listener) {
  constexpr std::string_view name = "reno";
  ::setsockopt(listener, IPPROTO_TCP, TCP_CONGESTION, name.data(), name.size());
}

std::string address_of(int fd) {
  sockaddr_storage storage{};
  socklen_t size = sizeof storage;
  if (::getsockname(fd, reinterpret_cast<sockaddr*>(&storage), &size) != 0) return "?";
  if (storage.ss_family == AF_UNIX) {
    const auto& local = reinterpret_cast<const sockaddr_un&>(storage);
    return std::string("unix:") + local.sun_path;
  }
  asio::ip::tcp::endpoint endpoint;
  std::memcpy(endpoint.data(), &storage, size);
  endpoint.resize(size);
  const bool v6 = storage.ss_family == AF_INET6;
  return (v6 ? "[" : "") + endpoint.address().to_string() + (v6 ? "]:" : ":") +
         std::to_string(endpoint.port());
}

// The process has fewer descriptors left than `kept`: the kernel gives the lowest number that is
// free, so all below `fd` are taken.
bool leaves_too_few(int fd, rlim_t kept) {
  rlimit limit{};
  if (kept == 0 || ::getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY)
    return false;
  return static_cast<rlim_t>(fd) + kept >= limit.rlim_cur;
}

std::string describe(Peer user) {
  return user ? "the user with uid " + std::to_string(*user)
              : std::string("users that the kernel does not tell");
}

std::string refusal(std::string_view sentence) {
  const std::string body = error_body("UNAVAILABLE", sentence);
  return "HTTP/1.1 503 Service Unavailable\r\nRetry-After: " + std::string(retry_after_seconds) +
         "\r\nCache-Status: staithe; fwd=bypass; detail=refused\r\n"
         "Content-Type: application/json\r\nContent-Length: " +
         std::to_string(body.size()) + "\r\nConnection: close\r\n\r\n" + body;
}

}  // namespace

Server::Server(asio::any_io_executor loop, Limits limits, Handler& handler, asio::thread_pool& disk,
               Loops* loops, Front* front)
    : loop_(loop),
      limits_(limits),
      handler_(handler),
      disk_(disk),
      front_(front),
      crowd_(
          {.connections = limits.connections, .connections_per_user = limits.connections_per_user}),
      tasks_(loop,
             [](std::string_view name, std::string_view sentence) {
               log::error("server task failed", {{"task", name}, {"error", sentence}});
             }),
      changed_(loop) {
  if (loops) senders_.emplace(*loops);
}

Server::~Server() {
  assert(connections_.empty() && visitors_.empty() && refused_.empty());
  for (const int spare : spares_) ::close(spare);
  for (const Listener& listener : listeners_) {
    if (!listener.unix_path.empty()) ::unlink(listener.unix_path.c_str());
  }
}

void Server::listen(const ListenAddress& address, unsigned unix_mode) {
  const std::string text = address.to_string();
  Acceptor acceptor(loop_);
  boost::system::error_code error;
  if (!address.unix_path.empty()) {
    struct stat status{};
    if (::lstat(address.unix_path.c_str(), &status) == 0) {
      if (!S_ISSOCK(status.st_mode)) throw_listen(text, "a file that is no socket stands there");
      if (answers(address.unix_path)) throw_listen(text, "another process answers there");
      ::unlink(address.unix_path.c_str());
    }
    const asio::local::stream_protocol::endpoint endpoint(address.unix_path);
    acceptor.open(asio::generic::stream_protocol(AF_UNIX, 0), error);
    if (error) throw_listen(text, error.message());
    // The mode is set before anybody can connect, so there is no instant with a wider one.
    const mode_t old = ::umask(static_cast<mode_t>(~unix_mode & 0777U));
    acceptor.bind({endpoint.data(), endpoint.size()}, error);
    ::umask(old);
  } else {
    const asio::ip::tcp::endpoint endpoint(asio::ip::make_address(address.ip), address.port);
    acceptor.open(asio::generic::stream_protocol(endpoint.protocol().family(), IPPROTO_TCP), error);
    if (error) throw_listen(text, error.message());
    acceptor.set_option(asio::socket_base::reuse_address(true));
    if (endpoint.protocol() == asio::ip::tcp::v6()) acceptor.set_option(asio::ip::v6_only(true));
    send_unpaced(acceptor.native_handle());
    acceptor.bind({endpoint.data(), endpoint.size()}, error);
  }
  if (error) throw_listen(text, error.message());
  acceptor.listen(accept_backlog, error);
  if (error) throw_listen(text, error.message());
  std::string bound = address.unix_path.empty() ? address_of(acceptor.native_handle()) : text;
  if (address.tls) bound.insert(0, "tls:");
  listeners_.push_back(
      {std::move(acceptor), bound, address.unix_path, address.unix_path.empty(), address.tls});
}

void Server::adopt(int fd) {
  sockaddr_storage storage{};
  socklen_t size = sizeof storage;
  if (::getsockname(fd, reinterpret_cast<sockaddr*>(&storage), &size) != 0)
    throw Failure(Errc::config, "a passed socket cannot be used: " + describe_errno(errno));
  const bool tcp = storage.ss_family != AF_UNIX;
  if (tcp) send_unpaced(fd);
  Acceptor acceptor(loop_, asio::generic::stream_protocol(storage.ss_family, tcp ? IPPROTO_TCP : 0),
                    fd);
  listeners_.push_back({std::move(acceptor), address_of(fd), {}, tcp, false});
}

std::vector<std::string> Server::addresses() const {
  std::vector<std::string> texts;
  for (const Listener& listener : listeners_) texts.push_back(listener.address);
  return texts;
}

void Server::start() {
  keep_spares();
  if (front_)
    front_->serve(limits_.connection, [this](Visitor& visitor, Front::Back why,
                                             auth::WipedText bytes, SteadyTime deadline) {
      come_back(visitor, why, std::move(bytes), deadline);
    });
  for (Listener& listener : listeners_) tasks_.spawn("accept", accept(listener));
  tasks_.spawn("sweep", sweep());
}

asio::awaitable<void> Server::accept(Listener& listener) {
  bool by_spare = false;
  for (;;) {
    auto [error, socket] =
        co_await listener.acceptor.async_accept(asio::as_tuple(asio::use_awaitable));
    // One that came at the last moment is served, too: nobody else will.
    if (!error) receive(std::move(socket), listener, std::exchange(by_spare, false));
    if (error == asio::error::operation_aborted || !listener.acceptor.is_open()) co_return;
    if (!error) continue;
    if (!spares_.empty() && !by_spare) {
      // Two, where there are: the question whose connection it is takes one for a moment.
      for (int i = 0; i < 2 && !spares_.empty(); ++i) {
        ::close(spares_.back());
        spares_.pop_back();
      }
      by_spare = true;
    } else {
      by_spare = false;
      asio::steady_timer timer(loop_, accept_pause);
      co_await timer.async_wait(asio::use_awaitable);
    }
  }
}

void Server::receive(Socket socket, const Listener& listener, bool short_of_descriptors) {
  const int fd = socket.native_handle();
  if (listener.tcp) {
    if (!came_over_loopback(fd)) {
      ++figures_.refused_address;
      note_refusal(Reason::address, std::nullopt);
      return;
    }
    const int on = 1;
    ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  }
  // A server that keeps none for others is the one that they are kept for.
  if (limits_.kept_descriptors > 0 &&
      (short_of_descriptors || leaves_too_few(fd, limits_.kept_descriptors)))
    most_by_descriptors_ = std::min(crowd_.size(), most_by_descriptors_.value_or(crowd_.size()));
  const bool too_few = most_by_descriptors_ && crowd_.size() >= *most_by_descriptors_;
  const Peer user = peer_of(fd);
  Crowd::Decision decision = crowd_.decide(user, too_few);
  // What happened at the front since the last sweep is seen now.
  while (decision.verdict == Crowd::Verdict::in_place_of) {
    auto* const visitor = dynamic_cast<Visitor*>(decision.gives_way);
    if (!visitor || !visitor->look()) break;
    decision = crowd_.decide(user, too_few);
  }
  switch (decision.verdict) {
    case Crowd::Verdict::user_has_all:
      ++figures_.refused_user;
      refuse(std::move(socket), Reason::user, user, listener.tls);
      return;
    case Crowd::Verdict::full:
      ++(too_few ? figures_.refused_descriptors : figures_.refused_full);
      refuse(std::move(socket), too_few ? Reason::descriptors : Reason::full, user, listener.tls);
      return;
    case Crowd::Verdict::in_place_of:
      ++figures_.shed;
      decision.gives_way->give_way();
      decision.gives_way->leave();
      break;
    case Crowd::Verdict::welcome:
      break;
  }
  if (listener.tls) {
    const int plain = tls_ ? tls_->admit(socket.release(), limits_.connection.header_timeout) : -1;
    if (plain < 0) return;
    boost::system::error_code ignored;
    socket = Socket(loop_);
    socket.assign(asio::generic::stream_protocol(AF_UNIX, 0), plain, ignored);
  }
  ++figures_.accepted;
  if (front_ && front_->open_to_newcomers()) {
    visit_front(socket.release(), user, limits_.connection.header_timeout, {});
  } else {
    const auto connection = enter(std::move(socket), user);
    if (draining_) connection->drain();
    asio::co_spawn(loop_, serve(connection), [](std::exception_ptr) {});
  }
}

std::list<Connection>::iterator Server::enter(Socket socket, Peer user) {
  const auto connection =
      connections_.emplace(connections_.end(), std::move(socket), limits_.connection, handler_,
                           disk_, senders_ ? &*senders_ : nullptr);
  connection->set_peer(user);
  crowd_.enter(*connection, user);
  return connection;
}

void Server::visit_front(int fd, Peer user, std::chrono::milliseconds patience, Pass pass) {
  Visitor& visitor = visitors_.emplace_back(fd, user, std::chrono::steady_clock::now() + patience,
                                            std::move(pass));
  visitor.place = std::prev(visitors_.end());
  crowd_.enter(visitor, user);
  visitor.rest();
  front_->take(visitor);
}

void Server::come_back(Visitor& visitor, Front::Back why, auth::WipedText bytes,
                       SteadyTime deadline) {
  if (why == Front::Back::idle) ++figures_.ended_idle;
  if (why == Front::Back::head) ++figures_.ended_head;
  if (why == Front::Back::slow) ++figures_.ended_slow;
  const int fd = visitor.fd;
  const Peer user = visitor.user;
  const bool goes_on = why == Front::Back::request && visitor.counted();
  visitors_.erase(visitor.place);
  Socket socket(loop_);
  boost::system::error_code error;
  // The family is for those who ask for addresses, which nobody does.
  if (goes_on) socket.assign(asio::generic::stream_protocol(AF_UNIX, 0), fd, error);
  if (goes_on && !error) {
    const auto connection = enter(std::move(socket), user);
    if (!bytes.empty()) connection->begin_with(bytes, deadline);
    if (draining_) connection->drain();
    asio::co_spawn(loop_, serve(connection), [](std::exception_ptr) {});
  } else {
    ::close(fd);
    keep_spares();
  }
  changed_.notify_all();
}

void Server::refuse(Socket socket, Reason reason, Peer user, bool tls) {
  note_refusal(reason, user);
  if (tls) return;  // Without its handshake there is nothing that it would understand.
  std::string sentence;
  if (reason == Reason::user) {
    sentence = describe(user) + " has all " + std::to_string(limits_.connections_per_user) +
               " connections that one user may have (limits.connections_per_user); close some, or "
               "come again";
  } else {
    sentence = reason == Reason::full
                   ? "all " + std::to_string(limits_.connections) +
                         " connections (limits.connections) are taken; come again"
                   : std::string("this daemon is short of file descriptors; come again");
  }
  std::string text = refusal(sentence);
  if (refused_.size() >= most_refused_at_once) {
    ::send(socket.native_handle(), text.data(), text.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
    return;
  }
  const auto refused = refused_.insert(
      refused_.end(), {.socket = std::move(socket),
                       .until = std::chrono::steady_clock::now() + time_to_read_refusal});
  asio::co_spawn(loop_, see_off(refused, std::move(text)), [](std::exception_ptr) {});
}

// The answer follows the beginning of a request: Go's HTTP client takes one that is there before it
// for a fault of the connection. Closing at once would reset what the client still sends, and with
// it the answer.
asio::awaitable<void> Server::see_off(std::list<Refused>::iterator refused, std::string text) {
  std::array<char, 1024> request;
  for (bool answered = false;; answered = true) {
    const auto [error, n] = co_await refused->socket.async_read_some(
        asio::buffer(request), asio::as_tuple(asio::use_awaitable));
    OPENSSL_cleanse(request.data(), n);
    if (error) break;
    const int fd = refused->socket.native_handle();
    if (answered) continue;
    if (::send(fd, text.data(), text.size(), MSG_DONTWAIT | MSG_NOSIGNAL) < 0) break;
    ::shutdown(fd, SHUT_WR);
  }
  refused_.erase(refused);
  changed_.notify_all();
}

void Server::note_refusal(Reason reason, Peer user) {
  SteadyTime& next = next_report_.at(static_cast<std::size_t>(reason));
  const auto now = std::chrono::steady_clock::now();
  if (now < next) return;
  next = now + report_pause;
  switch (reason) {
    case Reason::user:
      log::warn("connections of a user are refused",
                {{"user", user ? std::to_string(*user) : "unknown"},
                 {"connections", limits_.connections_per_user},
                 {"remedy", "see what it runs, or raise limits.connections_per_user"}});
      return;
    case Reason::full:
      log::warn("connections are refused",
                {{"connections", crowd_.size()},
                 {"users", crowd_.users()},
                 {"remedy", "see who holds them, or raise limits.connections"}});
      return;
    case Reason::descriptors:
      log::warn("connections are refused, as descriptors run out",
                {{"connections", crowd_.size()},
                 {"remedy", "raise the limit of open files (LimitNOFILE= of the unit)"}});
      return;
    case Reason::address:
      log::warn("a connection from another machine or container was refused",
                {{"remedy",
                  "this host routes loopback addresses: see staithe doctor, or have its firewall "
                  "drop what comes for 127.0.0.0/8 by another interface than lo"}});
      return;
  }
}

void Server::keep_spares() {
  while (spares_.size() < limits_.spare_descriptors) {
    const int spare = ::open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (spare < 0) return;
    if (leaves_too_few(spare, 1)) {  // The last one is somebody else's.
      ::close(spare);
      return;
    }
    spares_.push_back(spare);
  }
}

// A number says how many are in use only while there are no holes below it, and those who give way
// leave some. So while they are short, they are counted.
void Server::count_descriptors() {
  if (!most_by_descriptors_) return;
  rlimit limit{};
  DIR* const all = ::opendir("/proc/self/fd");
  if (!all) return;
  std::size_t used = 0;
  while (::readdir(all)) ++used;
  ::closedir(all);
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) {
    most_by_descriptors_.reset();
    return;
  }
  used -= std::min<std::size_t>(used, 3);  // ".", ".." and this one
  const std::size_t room = crowd_.size() + limit.rlim_cur;
  const std::size_t taken = used + limits_.kept_descriptors;
  most_by_descriptors_ = room > taken ? room - taken : 0;
  if (*most_by_descriptors_ >= limits_.connections) most_by_descriptors_.reset();
}

Server::Figures Server::figures() const {
  Figures figures = figures_;
  figures.open = crowd_.size();
  figures.users = crowd_.users();
  return figures;
}

asio::awaitable<void> Server::serve(std::list<Connection>::iterator connection) {
  try {
    do {
      connection->offer_to_front(front_ && front_->open());
      co_await connection->run();
      // Meanwhile it may have been closed.
    } while (connection->may_go_to_front() && !front_->open());
    if (connection->may_go_to_front()) {
      connection->leave();
      const int fd = connection->release();
      visit_front(fd, connection->peer(), limits_.connection.idle_timeout, connection->pass());
    }
  } catch (const std::exception& e) {
    log::error("connection failed", {{"error", e.what()}});
  }
  connections_.erase(connection);
  keep_spares();
  changed_.notify_all();
}

asio::awaitable<void> Server::sweep() {
  asio::steady_timer timer(loop_);
  for (;;) {
    timer.expires_after(std::chrono::seconds(1));
    co_await timer.async_wait(asio::use_awaitable);
    const auto now = std::chrono::steady_clock::now();
    for (Connection& connection : connections_) {
      if (!connection.overdue(now)) continue;
      using Phase = Connection::Phase;
      if (connection.phase() == Phase::idle) ++figures_.ended_idle;
      if (connection.phase() == Phase::head) ++figures_.ended_head;
      if (connection.phase() == Phase::send) ++figures_.ended_slow;
      connection.shut_down();
    }
    for (Visitor& visitor : visitors_) visitor.look();
    handler_.every_second();
    for (Refused& refused : refused_) {
      if (now >= refused.until) ::shutdown(refused.socket.native_handle(), SHUT_RDWR);
    }
    keep_spares();
    count_descriptors();
  }
}

void Server::drain() {
  for (Listener& listener : listeners_) {
    boost::system::error_code ignored;
    listener.acceptor.close(ignored);
  }
  draining_ = true;
  for (Connection& connection : connections_) connection.drain();
  if (front_) front_->drain();
}

asio::awaitable<void> Server::drained() {
  while (connections() > 0) co_await changed_.wait();
}

asio::awaitable<void> Server::stop() {
  drain();
  for (Connection& connection : connections_) connection.shut_down();
  for (const Visitor& visitor : visitors_) visitor.shut_down();
  for (Refused& refused : refused_) ::shutdown(refused.socket.native_handle(), SHUT_RDWR);
  co_await drained();
  while (!refused_.empty()) co_await changed_.wait();
  tasks_.cancel();
  co_await tasks_.join();
}

}  // namespace staithe::proxy
