#include "bench/load.h"

#include <sched.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <memory>
#include <span>
#include <string_view>

#include "bench/http_text.h"
#include "bench/process.h"
#include "cache/disk.h"
#include "cache/error.h"

namespace staithe::bench {

namespace {

using Clock = std::chrono::steady_clock;

constexpr std::size_t receive_bytes = 1024 * 1024;
constexpr std::size_t max_head_bytes = 8 * 1024;
// A server that says nothing for so long does not work; measuring goes no further.
constexpr auto patience = std::chrono::seconds(60);

[[noreturn]] void wrong(const std::string& what) { throw Failure(Errc::upstream_nonsense, what); }

std::string text_of(const Request& request, std::uint16_t port) {
  return request.method + " " + request.target +
         " HTTP/1.1\r\nHost: 127.0.0.1:" + std::to_string(port) +
         "\r\nUser-Agent: staithe-bench\r\nAccept: " + request.accept + "\r\n\r\n";
}

// How long a body follows this head. Throws if it is not the answer that was asked for.
std::uint64_t body_after(std::string_view head, const Request& request) {
  const auto complain = [&](const std::string& what) {
    wrong(request.method + " " + request.target + " was answered with " + what + ":\n" +
          std::string(head));
  };
  if (!head.starts_with("HTTP/1.1 200 ")) complain("another status than 200");
  const auto size_bytes = length_in(head);
  if (size_bytes != request.size_bytes)
    complain("another length than " + std::to_string(request.size_bytes));
  return request.method == "HEAD" ? 0 : request.size_bytes;
}

// One connection, at most one request on its way.
class Client {
 public:
  explicit Client(std::uint16_t port) : socket_(connect_to(port)) {}

  int fd() const { return socket_.fd(); }
  Clock::time_point asked_at() const { return asked_at_; }

  void ask(const Request& request, std::string_view text, Clock::time_point now) {
    request_ = &request;
    head_.clear();
    left_bytes_.reset();
    asked_at_ = now;
    if (::send(fd(), text.data(), text.size(), MSG_NOSIGNAL) != static_cast<ssize_t>(text.size()))
      wrong("cannot send a request: " + describe_errno(errno));
  }

  // Takes what has arrived, once. True if the answer is whole; counts its body.
  bool receive(std::span<char> buffer, std::uint64_t& body_bytes) {
    const bool in_body = left_bytes_.has_value();
    // A full answer to MSG_TRUNC costs no copy; never more than this answer, for what follows it.
    const std::size_t wanted =
        in_body ? std::min<std::uint64_t>(buffer.size(), *left_bytes_) : max_head_bytes;
    const ssize_t n = ::recv(fd(), buffer.data(), wanted, MSG_DONTWAIT | (in_body ? MSG_TRUNC : 0));
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return false;
    if (n <= 0)
      wrong("the connection ended within the answer to " + request_->target + ": " +
            (n < 0 ? describe_errno(errno) : "closed"));
    auto bytes = static_cast<std::uint64_t>(n);
    if (!in_body) {
      const std::string_view arrived(buffer.data(), bytes);
      const std::size_t known = head_.size();
      head_.append(arrived);
      const std::size_t end = head_.find("\r\n\r\n", known < 3 ? 0 : known - 3);
      if (end == std::string::npos) {
        if (head_.size() > max_head_bytes) wrong("an answer's head has no end");
        return false;
      }
      left_bytes_ = body_after(std::string_view(head_).substr(0, end + 2), *request_);
      bytes = head_.size() - (end + 4);
      if (bytes > *left_bytes_) wrong("more came than the answer to " + request_->target);
    }
    body_bytes += bytes;
    *left_bytes_ -= bytes;
    return *left_bytes_ == 0;
  }

 private:
  cache::File socket_;
  const Request* request_ = nullptr;
  std::string head_;
  std::optional<std::uint64_t> left_bytes_;  // of the body, once the head is there
  Clock::time_point asked_at_;
};

// Which requests come next, and when it is enough.
class Turns {
 public:
  explicit Turns(const LoadPlan& plan) : plan_(plan) {
    for (const Request& request : plan.requests) texts_.push_back(text_of(request, plan.port));
  }
  void next(Client& client, Clock::time_point now) {
    const std::size_t turn = asked_++ % texts_.size();
    client.ask(plan_.requests[turn], texts_[turn], now);
  }
  bool more() const { return plan_.count == 0 || asked_ < plan_.count; }

 private:
  const LoadPlan& plan_;
  std::vector<std::string> texts_;
  std::uint64_t asked_ = 0;
};

// Keeps this thread on the machine's last processor for as long as it lives, where that is asked
// for. Left alone, the scheduler now and then puts clients and server on the same one, and the rate
// is half of what it was; the server may run anywhere.
class Pinned {
 public:
  explicit Pinned(bool wanted) {
    CPU_ZERO(&before_);
    if (!wanted) return;
    if (::sched_getaffinity(0, sizeof before_, &before_) != 0) CPU_ZERO(&before_);
    for (std::size_t cpu = CPU_SETSIZE; cpu-- > 0;) {
      if (!CPU_ISSET(cpu, &before_)) continue;
      cpu_set_t last;
      CPU_ZERO(&last);
      CPU_SET(cpu, &last);
      ::sched_setaffinity(0, sizeof last, &last);
      return;
    }
  }
  ~Pinned() {
    if (CPU_COUNT(&before_) > 0) ::sched_setaffinity(0, sizeof before_, &before_);
  }
  Pinned(const Pinned&) = delete;
  Pinned& operator=(const Pinned&) = delete;

 private:
  cpu_set_t before_;
};

}  // namespace

LoadResult run_load(const LoadPlan& plan) {
  const Pinned pinned(plan.pinned);
  const cache::File poll(::epoll_create1(EPOLL_CLOEXEC));
  std::vector<std::unique_ptr<Client>> clients;
  for (unsigned i = 0; i < plan.connections; ++i) {
    auto& client = clients.emplace_back(std::make_unique<Client>(plan.port));
    epoll_event event{.events = EPOLLIN, .data = {.ptr = client.get()}};
    ::epoll_ctl(poll.fd(), EPOLL_CTL_ADD, client->fd(), &event);
  }

  LoadResult result;
  result.latencies_microseconds.reserve(1 << 16);
  std::vector<char> buffer(receive_bytes);
  Turns turns(plan);
  const bool counted = plan.count > 0;
  bool open = counted;
  if (open) plan.opened();
  const auto begun = Clock::now();
  auto opened_at = begun;
  const auto opens = begun + plan.warm_up;
  const auto closes = opens + plan.window;
  auto last_answer = begun;
  std::vector<Client*> free;
  for (const auto& client : clients) free.push_back(client.get());
  const auto between = std::chrono::duration_cast<Clock::duration>(
      std::chrono::duration<double>(plan.rate > 0 ? 1 / plan.rate : 0));
  auto due = begun;
  const auto ask = [&](Clock::time_point now) {
    while (!free.empty() && turns.more() && due <= now) {
      turns.next(*free.back(), plan.rate > 0 ? due : now);
      free.pop_back();
      due += between;
    }
  };
  ask(begun);

  std::array<epoll_event, 256> events;
  for (;;) {
    auto now = Clock::now();
    timespec longest{.tv_sec = 0, .tv_nsec = 100'000'000};
    if (!free.empty() && turns.more())
      longest.tv_nsec =
          std::clamp<long>((due - now) / std::chrono::nanoseconds(1), 0, longest.tv_nsec);
    const int ready = ::epoll_pwait2(poll.fd(), events.data(), events.size(), &longest, nullptr);
    if (interrupted()) throw Failure(Errc::cancelled, "stopped by a signal");
    now = Clock::now();
    if (ready > 0) last_answer = now;
    if (now - last_answer > patience) wrong("the server has said nothing for a minute");
    if (!open && !counted && now >= opens) {
      plan.opened();
      open = true;
      opened_at = now;
      result.answers = 0;
      result.body_bytes = 0;
      result.latencies_microseconds.clear();
    }
    for (int i = 0; i < ready; ++i) {
      Client& client = *static_cast<Client*>(events[static_cast<std::size_t>(i)].data.ptr);
      if (!client.receive(buffer, result.body_bytes)) continue;
      now = Clock::now();
      ++result.answers;
      result.latencies_microseconds.push_back(
          std::chrono::duration<float, std::micro>(now - client.asked_at()).count());
      free.push_back(&client);
      ask(now);
    }
    ask(now);
    if (counted ? result.answers == plan.count : now >= closes) {
      result.seconds = std::chrono::duration<double>(now - opened_at).count();
      plan.closed();
      return result;
    }
  }
}

Fetched fetch(std::uint16_t port, const Request& request) {
  const cache::File socket = connect_to(port);
  const std::string text = text_of(request, port);
  if (::send(socket.fd(), text.data(), text.size(), MSG_NOSIGNAL) !=
      static_cast<ssize_t>(text.size()))
    wrong("cannot send a request: " + describe_errno(errno));
  std::vector<char> buffer(receive_bytes);
  std::string head;
  cache::Hasher hasher(cache::Algorithm::sha256);
  std::uint64_t arrived_bytes = 0;
  std::optional<std::uint64_t> body_bytes;
  while (!body_bytes || arrived_bytes < *body_bytes) {
    if (interrupted()) throw Failure(Errc::cancelled, "stopped by a signal");
    const ssize_t n = ::recv(socket.fd(), buffer.data(), buffer.size(), 0);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) wrong("the connection ended within the answer to " + request.target);
    std::span<const char> bytes(buffer.data(), static_cast<std::size_t>(n));
    if (!body_bytes) {
      head.append(bytes.data(), bytes.size());
      const std::size_t end = head.find("\r\n\r\n");
      if (end == std::string::npos) continue;
      const std::string rest = head.substr(end + 4);
      head.resize(end + 2);
      body_bytes = body_after(head, request);
      hasher.update(rest);
      arrived_bytes = rest.size();
    } else {
      hasher.update(bytes);
      arrived_bytes += bytes.size();
    }
  }
  if (arrived_bytes != *body_bytes) wrong("more came than the answer to " + request.target);
  return {.head = std::move(head), .body_bytes = arrived_bytes, .digest = hasher.digest()};
}

}  // namespace staithe::bench
