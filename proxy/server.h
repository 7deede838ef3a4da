// Accepts connections on one or more sockets and keeps them within their limits.
//
// One coroutine per connection; one sweep per second ends those whose deadline has passed. Lives on
// the loop.
#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <cstdint>
#include <list>
#include <memory>
#include <string>
#include <vector>

#include "cache/event.h"
#include "cache/task_group.h"
#include "proxy/connection.h"

namespace staithe::proxy {

// An address to listen on: "127.0.0.1:5050", "[::1]:5050" (port 0: any free one) or "unix:/path".
struct ListenAddress {
  static Result<ListenAddress> parse(std::string_view text);
  std::string to_string() const;

  std::string unix_path;  // not empty: a Unix socket
  std::string ip;         // without brackets
  std::uint16_t port = 0;
};

class Server {
 public:
  struct Limits {
    std::size_t connections = 10'000;
    ConnectionLimits connection;
  };

  // `handler` and `disk` outlive the server.
  Server(asio::any_io_executor loop, Limits limits, Handler& handler, asio::thread_pool& disk);
  // stop() comes first.
  ~Server();

  // Binds and listens; connections queue until start(). A Unix socket left by a dead process is
  // replaced, one that answers is not; a new one gets `unix_mode`. Throws Failure(config) with the
  // address, the cause and the remedy.
  void listen(const ListenAddress& address, unsigned unix_mode);
  // Takes over a listening socket (socket activation).
  void adopt(int fd);
  // The addresses served, with the ports that were given for 0.
  std::vector<std::string> addresses() const;

  void start();
  // Stops accepting; idle connections end at once, others after their current answer.
  void drain();
  // Waits until no connection is left.
  asio::awaitable<void> drained();
  // Ends what is left, waits until it is gone.
  asio::awaitable<void> stop();

  std::size_t connections() const { return connections_.size(); }
  std::uint64_t refused() const { return refused_; }

 private:
  using Acceptor = asio::basic_socket_acceptor<asio::generic::stream_protocol>;
  struct Listener {
    Acceptor acceptor;
    std::string address;
    std::string unix_path;  // removed when the server goes
    bool tcp;
  };

  asio::awaitable<void> accept(Listener& listener);
  asio::awaitable<void> serve(std::list<Connection>::iterator connection);
  asio::awaitable<void> sweep();

  asio::any_io_executor loop_;
  Limits limits_;
  Handler& handler_;
  asio::thread_pool& disk_;
  std::list<Listener> listeners_;
  std::list<Connection> connections_;
  std::uint64_t refused_ = 0;
  TaskGroup tasks_;
  Event changed_;
};

}  // namespace staithe::proxy
