// Accepts connections on one or more sockets and keeps them within their limits.
//
// One coroutine per connection, unless it is at the front (proxy/front.h); one sweep per second
// ends those whose deadline has passed. Whose a connection is the kernel says when it comes, and
// proxy/crowd.h says whether there is room for it. Who is refused is told so by a 503 where that
// can be sent at once: the newest work goes first, also when the process runs out of descriptors
// (fault F12). Lives on the loop.
#pragma once

#include <sys/resource.h>

#include <array>
#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <cstdint>
#include <list>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "cache/event.h"
#include "cache/task_group.h"
#include "proxy/connection.h"
#include "proxy/crowd.h"
#include "proxy/front.h"
#include "proxy/listen_address.h"
#include "proxy/loops.h"
#include "proxy/senders.h"
#include "proxy/tls_gate.h"

namespace staithe::proxy {

class Server {
 public:
  struct Limits {
    std::size_t connections = 10'000;
    std::size_t connections_per_user = 2'000;
    ConnectionLimits connection;
    // For what else the process does: a newcomer that leaves fewer descriptors than this is
    // refused, or takes the place of another.
    rlim_t kept_descriptors = 0;
    // Held, and given back when the process has run out of them, so that a newcomer can still be
    // accepted: to be told to go, or, at the control socket, to be served.
    std::size_t spare_descriptors = 2;
  };
  // Since the start, but for `open` and `users`.
  struct Figures {
    std::size_t open = 0;
    std::size_t users = 0;  // who have these
    std::uint64_t accepted = 0;
    // Newcomers that were turned away.
    std::uint64_t refused_user = 0;         // the user had connections_per_user
    std::uint64_t refused_full = 0;         // all had `connections`, and none gave way
    std::uint64_t refused_descriptors = 0;  // the process had too few, and none gave way
    std::uint64_t refused_address = 0;      // from or to an address that is not loopback
    // Idle ones that were ended to make room for another user's.
    std::uint64_t shed = 0;
    // Those that did not keep their deadline.
    std::uint64_t ended_idle = 0;  // of keep-alive, the normal end
    std::uint64_t ended_head = 0;  // the head of a request was not whole in time
    std::uint64_t ended_slow = 0;  // the client did not take its answer
  };

  // All outlive it; `front` is this server's alone. With `loops` large files are sent there; with
  // `front` connections are there for as long as it can answer them.
  Server(asio::any_io_executor loop, Limits limits, Handler& handler, asio::thread_pool& disk,
         Loops* loops = nullptr, Front* front = nullptr);
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

  // Who ends the TLS of addresses that have it; outlives the server. Comes before start(), without
  // which such connections are closed.
  void end_tls_by(TlsGate& gate) { tls_ = &gate; }

  void start();
  // Stops accepting; idle connections end at once, others after their current answer.
  void drain();
  // Waits until no connection is left.
  asio::awaitable<void> drained();
  // Ends what is left, waits until it is gone.
  asio::awaitable<void> stop();

  std::size_t connections() const { return connections_.size() + visitors_.size(); }
  Figures figures() const;

 private:
  using Acceptor = asio::basic_socket_acceptor<asio::generic::stream_protocol>;
  struct Listener {
    Acceptor acceptor;
    std::string address;
    std::string unix_path;  // removed when the server goes
    bool tcp;
    bool tls;
  };

  // One that was refused, until it has read why.
  struct Refused {
    Socket socket;
    SteadyTime until;
  };
  enum class Reason { user, full, descriptors, address };

  asio::awaitable<void> accept(Listener& listener);
  // Lets the newcomer in, or not; `short_of_descriptors`: it came by a spare one.
  void receive(Socket socket, const Listener& listener, bool short_of_descriptors);
  void refuse(Socket socket, Reason reason, Peer user, bool tls);
  asio::awaitable<void> see_off(std::list<Refused>::iterator refused, std::string text);
  void note_refusal(Reason reason, Peer user);
  void keep_spares();
  void count_descriptors();
  // Here, or at the front; whoever has it owns the descriptor.
  std::list<Connection>::iterator enter(Socket socket, Peer user);
  void visit_front(int fd, Peer user, std::chrono::milliseconds patience, Pass pass);
  void come_back(Visitor& visitor, Front::Back why, auth::WipedText bytes, SteadyTime deadline);
  asio::awaitable<void> serve(std::list<Connection>::iterator connection);
  asio::awaitable<void> sweep();

  asio::any_io_executor loop_;
  Limits limits_;
  Handler& handler_;
  asio::thread_pool& disk_;
  Front* const front_;
  TlsGate* tls_ = nullptr;
  std::optional<Senders> senders_;  // before, and so after, the connections
  std::list<Listener> listeners_;
  Crowd crowd_;
  std::list<Connection> connections_;
  std::list<Visitor> visitors_;
  bool draining_ = false;
  std::list<Refused> refused_;
  std::vector<int> spares_;
  // Since descriptors ran short: how many connections there is room for.
  std::optional<std::size_t> most_by_descriptors_;
  Figures figures_;
  std::array<SteadyTime, 4> next_report_{};  // by Reason
  TaskGroup tasks_;
  Event changed_;
};

}  // namespace staithe::proxy
