// bench_relay: a link of a given length and width, on loopback.
//
//     bench_relay PORT TARGET-PORT DELAY-MS MBIT
//
// Connections to PORT go on to TARGET-PORT, both of 127.0.0.1. Each direction is one line for all
// connections together: what arrives is put behind what is on its way, at MBIT per second, and
// delivered DELAY-MS after that. A new connection's first bytes wait for the round trip that a
// handshake takes. Memory holds what is on its way: a connection is read no further than
// `most_under_way_bytes`, several times what the line holds, so that the line never runs dry.
//
// It counts nothing and knows no HTTP. One thread; runs until it is stopped.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <memory>
#include <unordered_map>
#include <vector>

namespace {

using Clock = std::chrono::steady_clock;

constexpr std::size_t piece_bytes = 128 * 1024;
constexpr std::size_t most_under_way_bytes = 8 * 1024 * 1024;

struct Line {
  Clock::duration delay{};
  double bytes_per_second = 0;
  Clock::time_point free_at{};

  // When a piece that arrives now is at the other end.
  Clock::time_point carry(std::size_t bytes, Clock::time_point now) {
    const auto takes = std::chrono::duration_cast<Clock::duration>(
        std::chrono::duration<double>(static_cast<double>(bytes) / bytes_per_second));
    free_at = std::max(free_at, now) + takes;
    return free_at + delay;
  }
};

struct Piece {
  Clock::time_point due;
  std::vector<char> bytes;
  std::size_t sent = 0;
};

// One direction of a connection.
struct Flow {
  int from = -1;
  int to = -1;
  Line* line = nullptr;
  std::deque<Piece> pieces{};
  std::size_t under_way_bytes = 0;
  bool ended = false;  // `from` sends no more
  bool blocked = false;
};

struct Connection {
  Flow up;
  Flow down;
  Clock::time_point open_at;  // when the handshake is over
  bool dead = false;
};

sockaddr_in loopback(std::uint16_t port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return address;
}

void no_delay(int socket) {
  const int on = 1;
  ::setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

// Takes one piece from where it comes. Buffers come back to be used again: fresh pages for each
// piece would cost more than copying them.
bool read_some(Flow& flow, Clock::time_point now, Clock::time_point open_at,
               std::vector<std::vector<char>>& spare) {
  if (flow.ended || flow.under_way_bytes >= most_under_way_bytes) return true;
  std::vector<char> buffer;
  if (!spare.empty()) {
    buffer = std::move(spare.back());
    spare.pop_back();
  }
  buffer.resize(piece_bytes);
  const ssize_t n = ::recv(flow.from, buffer.data(), buffer.size(), MSG_DONTWAIT);
  if (n < 0) {
    spare.push_back(std::move(buffer));
    return errno == EAGAIN || errno == EINTR;
  }
  if (n == 0) {
    flow.ended = true;
    return true;
  }
  buffer.resize(static_cast<std::size_t>(n));
  flow.under_way_bytes += buffer.size();
  const auto due = flow.line->carry(buffer.size(), std::max(now, open_at));
  flow.pieces.push_back({.due = due, .bytes = std::move(buffer)});
  return true;
}

bool write_due(Flow& flow, Clock::time_point now, std::vector<std::vector<char>>& spare) {
  flow.blocked = false;
  while (!flow.pieces.empty() && flow.pieces.front().due <= now) {
    Piece& piece = flow.pieces.front();
    const ssize_t n = ::send(flow.to, piece.bytes.data() + piece.sent,
                             piece.bytes.size() - piece.sent, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n < 0) {
      flow.blocked = errno == EAGAIN;
      return flow.blocked || errno == EINTR;
    }
    piece.sent += static_cast<std::size_t>(n);
    flow.under_way_bytes -= static_cast<std::size_t>(n);
    if (piece.sent < piece.bytes.size()) continue;
    spare.push_back(std::move(piece.bytes));
    flow.pieces.pop_front();
    // Between two pieces others get their turn, and what has come is taken in.
    break;
  }
  if (flow.ended && flow.pieces.empty()) ::shutdown(flow.to, SHUT_WR);
  return true;
}

bool is_over(const Connection& connection) {
  return connection.dead || (connection.up.ended && connection.up.pieces.empty() &&
                             connection.down.ended && connection.down.pieces.empty());
}

class Relay {
 public:
  Relay(int listener, std::uint16_t target, Clock::duration delay, double bytes_per_second)
      : listener_(listener),
        target_(target),
        up_{.delay = delay, .bytes_per_second = bytes_per_second},
        down_{.delay = delay, .bytes_per_second = bytes_per_second} {}

  [[noreturn]] void run() {
    poll_ = ::epoll_create1(EPOLL_CLOEXEC);
    watch(listener_, EPOLLIN);
    std::array<epoll_event, 64> events;
    for (;;) {
      const timespec wait = until_due();
      ::epoll_pwait2(poll_, events.data(), events.size(), &wait, nullptr);
      accept_all();
      const auto now = Clock::now();
      for (auto& connection : connections_) {
        for (Flow* flow : {&connection->up, &connection->down}) {
          if (connection->dead) continue;
          connection->dead =
              !read_some(*flow, now, connection->open_at, spare_) || !write_due(*flow, now, spare_);
        }
        if (!is_over(*connection)) set_events(*connection);
      }
      std::erase_if(connections_, [](const auto& connection) {
        if (!is_over(*connection)) return false;
        // A reset stays one: what is still in a socket's queue goes with it.
        const linger at_once{.l_onoff = 1, .l_linger = 0};
        for (const int socket : {connection->up.from, connection->up.to}) {
          if (connection->dead)
            ::setsockopt(socket, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
          ::close(socket);
        }
        return true;
      });
    }
  }

 private:
  void watch(int socket, std::uint32_t events) {
    epoll_event event{.events = events, .data = {.fd = socket}};
    if (::epoll_ctl(poll_, EPOLL_CTL_MOD, socket, &event) != 0)
      ::epoll_ctl(poll_, EPOLL_CTL_ADD, socket, &event);
  }

  void set_events(Connection& connection) {
    const auto wanted = [](const Flow& in, const Flow& out) -> std::uint32_t {
      const bool reads = !in.ended && in.under_way_bytes < most_under_way_bytes;
      return (reads ? std::uint32_t{EPOLLIN} : 0) | (out.blocked ? std::uint32_t{EPOLLOUT} : 0);
    };
    watch(connection.up.from, wanted(connection.up, connection.down));
    watch(connection.up.to, wanted(connection.down, connection.up));
  }

  void accept_all() {
    for (;;) {
      const int client = ::accept4(listener_, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
      if (client < 0) return;
      const int server = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
      const sockaddr_in address = loopback(target_);
      if (::connect(server, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
        ::close(client);
        ::close(server);
        continue;
      }
      no_delay(client);
      no_delay(server);
      connections_.push_back(std::make_unique<Connection>(
          Connection{.up = {.from = client, .to = server, .line = &up_},
                     .down = {.from = server, .to = client, .line = &down_},
                     .open_at = Clock::now() + 2 * up_.delay}));
      set_events(*connections_.back());
    }
  }

  timespec until_due() const {
    Clock::duration least = std::chrono::seconds(1);
    const auto now = Clock::now();
    for (const auto& connection : connections_) {
      for (const Flow* flow : {&connection->up, &connection->down}) {
        if (flow->pieces.empty() || flow->blocked) continue;
        least = std::min(least, flow->pieces.front().due - now);
      }
    }
    const auto nanoseconds =
        std::chrono::duration_cast<std::chrono::nanoseconds>(std::max(least, Clock::duration{}));
    return {.tv_sec = static_cast<time_t>(nanoseconds.count() / 1'000'000'000),
            .tv_nsec = static_cast<long>(nanoseconds.count() % 1'000'000'000)};
  }

  int listener_;
  int poll_ = -1;
  std::uint16_t target_;
  Line up_;
  Line down_;
  std::vector<std::unique_ptr<Connection>> connections_;
  std::vector<std::vector<char>> spare_;
};

int listen_on(std::uint16_t port) {
  const int socket = ::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  const int on = 1;
  ::setsockopt(socket, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  const sockaddr_in address = loopback(port);
  if (::bind(socket, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0 ||
      ::listen(socket, 1024) != 0) {
    std::perror("listen");
    std::exit(1);
  }
  return socket;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 5) {
    std::fputs("usage: bench_relay PORT TARGET-PORT DELAY-MS MBIT\n", stderr);
    return 2;
  }
  std::signal(SIGPIPE, SIG_IGN);
  const auto delay = std::chrono::duration_cast<Clock::duration>(
      std::chrono::duration<double, std::milli>(std::atof(argv[3])));
  Relay relay(listen_on(static_cast<std::uint16_t>(std::atoi(argv[1]))),
              static_cast<std::uint16_t>(std::atoi(argv[2])), delay, std::atof(argv[4]) * 1e6 / 8);
  relay.run();
}
