#include "proxy/server.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <cassert>
#include <cerrno>
#include <charconv>
#include <cstring>

#include "cache/log.h"

namespace staithe::proxy {

namespace {

constexpr int accept_backlog = 1024;
// Out of descriptors or memory: wait for connections to end instead of spinning on accept().
constexpr auto accept_pause = std::chrono::milliseconds(100);

[[noreturn]] void throw_listen(const std::string& address, const std::string& cause) {
  std::string remedy = "choose another address in listen.registry or listen.control";
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

// The peer talks to an address of the loopback interface; anything else reached the port by a route
// that nobody intended (CVE-2020-8558).
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

}  // namespace

Result<ListenAddress> ListenAddress::parse(std::string_view text) {
  ListenAddress address;
  if (text.starts_with("unix:")) {
    address.unix_path = std::string(text.substr(5));
    if (!address.unix_path.starts_with('/') ||
        address.unix_path.size() >= sizeof(sockaddr_un::sun_path))
      return fail(Errc::config,
                  "a Unix socket is written unix:/absolute/path of at most 107 bytes");
    return address;
  }
  const std::size_t colon = text.rfind(':');
  std::string_view host = text.substr(0, colon);
  if (host.starts_with('[') && host.ends_with(']')) host = host.substr(1, host.size() - 2);
  boost::system::error_code error;
  address.ip = asio::ip::make_address(std::string(host), error).to_string();
  const std::string_view port =
      colon == std::string_view::npos ? std::string_view() : text.substr(colon + 1);
  const auto parsed = std::from_chars(port.data(), port.data() + port.size(), address.port);
  if (error || port.empty() || parsed.ec != std::errc() || parsed.ptr != port.data() + port.size())
    return fail(Errc::config, "an address is written 127.0.0.1:5050, [::1]:5050 or unix:/path");
  return address;
}

std::string ListenAddress::to_string() const {
  if (!unix_path.empty()) return "unix:" + unix_path;
  const bool v6 = ip.find(':') != std::string::npos;
  return (v6 ? "[" + ip + "]" : ip) + ":" + std::to_string(port);
}

Server::Server(asio::any_io_executor loop, Limits limits, Handler& handler, asio::thread_pool& disk)
    : loop_(loop),
      limits_(limits),
      handler_(handler),
      disk_(disk),
      tasks_(loop,
             [](std::string_view name, std::string_view sentence) {
               log::error("server task failed", {{"task", name}, {"error", sentence}});
             }),
      changed_(loop) {}

Server::~Server() {
  assert(connections_.empty());
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
    acceptor.bind({endpoint.data(), endpoint.size()}, error);
  }
  if (error) throw_listen(text, error.message());
  acceptor.listen(accept_backlog, error);
  if (error) throw_listen(text, error.message());
  const std::string bound = address.unix_path.empty() ? address_of(acceptor.native_handle()) : text;
  listeners_.push_back({std::move(acceptor), bound, address.unix_path, address.unix_path.empty()});
}

void Server::adopt(int fd) {
  sockaddr_storage storage{};
  socklen_t size = sizeof storage;
  if (::getsockname(fd, reinterpret_cast<sockaddr*>(&storage), &size) != 0)
    throw Failure(Errc::config, "a passed socket cannot be used: " + describe_errno(errno));
  const bool tcp = storage.ss_family != AF_UNIX;
  Acceptor acceptor(loop_, asio::generic::stream_protocol(storage.ss_family, tcp ? IPPROTO_TCP : 0),
                    fd);
  listeners_.push_back({std::move(acceptor), address_of(fd), {}, tcp});
}

std::vector<std::string> Server::addresses() const {
  std::vector<std::string> texts;
  for (const Listener& listener : listeners_) texts.push_back(listener.address);
  return texts;
}

void Server::start() {
  for (Listener& listener : listeners_) tasks_.spawn("accept", accept(listener));
  tasks_.spawn("sweep", sweep());
}

asio::awaitable<void> Server::accept(Listener& listener) {
  for (;;) {
    auto [error, socket] =
        co_await listener.acceptor.async_accept(asio::as_tuple(asio::use_awaitable));
    if (error == asio::error::operation_aborted || !listener.acceptor.is_open()) co_return;
    if (error) {
      asio::steady_timer timer(loop_, accept_pause);
      co_await timer.async_wait(asio::use_awaitable);
      continue;
    }
    if (connections_.size() >= limits_.connections) {
      ++refused_;
      continue;  // Closing it is the answer: there is no room to even read the request.
    }
    if (listener.tcp) {
      sockaddr_storage local{};
      socklen_t size = sizeof local;
      if (::getsockname(socket.native_handle(), reinterpret_cast<sockaddr*>(&local), &size) != 0 ||
          !is_loopback(local)) {
        ++refused_;
        continue;
      }
      const int on = 1;
      ::setsockopt(socket.native_handle(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    }
    const auto connection = connections_.emplace(connections_.end(), std::move(socket),
                                                 limits_.connection, handler_, disk_);
    asio::co_spawn(loop_, serve(connection), [](std::exception_ptr) {});
  }
}

asio::awaitable<void> Server::serve(std::list<Connection>::iterator connection) {
  try {
    co_await connection->run();
  } catch (const std::exception& e) {
    log::error("connection failed", {{"error", e.what()}});
  }
  connections_.erase(connection);
  changed_.notify_all();
}

asio::awaitable<void> Server::sweep() {
  asio::steady_timer timer(loop_);
  for (;;) {
    timer.expires_after(std::chrono::seconds(1));
    co_await timer.async_wait(asio::use_awaitable);
    const auto now = std::chrono::steady_clock::now();
    for (Connection& connection : connections_) {
      if (connection.overdue(now)) connection.shut_down();
    }
  }
}

void Server::drain() {
  for (Listener& listener : listeners_) {
    boost::system::error_code ignored;
    listener.acceptor.close(ignored);
  }
  for (Connection& connection : connections_) connection.drain();
}

asio::awaitable<void> Server::drained() {
  while (!connections_.empty()) co_await changed_.wait();
}

asio::awaitable<void> Server::stop() {
  drain();
  for (Connection& connection : connections_) connection.shut_down();
  co_await drained();
  tasks_.cancel();
  co_await tasks_.join();
}

}  // namespace staithe::proxy
