#include "bench/pull.h"

#include <sys/epoll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <memory>

#include "bench/http_text.h"
#include "bench/process.h"
#include "cache/disk.h"
#include "cache/error.h"

namespace staithe::bench {

namespace {

using Clock = std::chrono::steady_clock;

constexpr std::size_t receive_bytes = 1024 * 1024;
constexpr std::size_t max_head_bytes = 8 * 1024;
constexpr auto patience = std::chrono::seconds(60);

[[noreturn]] void wrong(const std::string& what) { throw Failure(Errc::upstream_nonsense, what); }

// One connection, at most one part on its way.
class Taker {
 public:
  Taker(std::uint16_t port, int poll) : port_(port), poll_(poll) {}

  bool is_idle() const { return part_ == nullptr; }

  void ask(const Part& part, Arrival& arrival, Clock::time_point begun) {
    if (!socket_) connect();
    part_ = &part;
    arrival_ = &arrival;
    begun_ = begun;
    head_.clear();
    left_bytes_.reset();
    std::string text = "GET " + part.target +
                       " HTTP/1.1\r\nHost: 127.0.0.1:" + std::to_string(port_) +
                       "\r\nUser-Agent: staithe-bench\r\nAccept: */*\r\n";
    if (part.begin) {
      text += "Range: bytes=" + std::to_string(*part.begin) + "-";
      if (!part.open_ended) text += std::to_string(*part.begin + part.length_bytes - 1);
      text += "\r\n";
    }
    text += "\r\n";
    arrival.asked_seconds = since_begin();
    if (::send(socket_->fd(), text.data(), text.size(), MSG_NOSIGNAL) !=
        static_cast<ssize_t>(text.size()))
      wrong("cannot send a request: " + describe_errno(errno));
  }

  // Takes what has arrived, once. True if the part is whole.
  bool receive(std::vector<char>& buffer) {
    const bool in_body = left_bytes_.has_value();
    const std::size_t wanted =
        in_body ? std::min<std::uint64_t>(buffer.size(), *left_bytes_) : max_head_bytes;
    const ssize_t n =
        ::recv(socket_->fd(), buffer.data(), wanted, MSG_DONTWAIT | (in_body ? MSG_TRUNC : 0));
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return false;
    if (n <= 0)
      wrong("the connection ended within the answer to " + part_->target + " after " +
            std::to_string(arrival_->body_bytes) +
            " bytes: " + (n < 0 ? describe_errno(errno) : "closed"));
    auto bytes = static_cast<std::uint64_t>(n);
    if (!in_body) {
      head_.append(buffer.data(), bytes);
      const std::size_t end = head_.find("\r\n\r\n");
      if (end == std::string::npos) {
        if (head_.size() > max_head_bytes) wrong("an answer's head has no end");
        return false;
      }
      take_head(std::string_view(head_).substr(0, end + 2));
      bytes = head_.size() - (end + 4);
    }
    arrival_->body_bytes += bytes;
    *left_bytes_ -= std::min(bytes, *left_bytes_);
    if (arrival_->first_byte_seconds == 0 && arrival_->body_bytes > unwanted_bytes_)
      arrival_->first_byte_seconds = since_begin();
    if (*left_bytes_ > 0) return false;
    // More of this answer is on its way than was wanted: nobody waits for it.
    if (reset_after_) {
      const linger at_once{.l_onoff = 1, .l_linger = 0};
      ::setsockopt(socket_->fd(), SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
      socket_.reset();
    }
    part_ = nullptr;
    return true;
  }

 private:
  void connect() {
    socket_.emplace(connect_to(port_));
    epoll_event event{.events = EPOLLIN, .data = {.ptr = this}};
    ::epoll_ctl(poll_, EPOLL_CTL_ADD, socket_->fd(), &event);
  }

  double since_begin() const {
    return std::chrono::duration<double>(Clock::now() - begun_).count();
  }

  void take_head(std::string_view head) {
    const auto complain = [&](const std::string& what) {
      wrong(part_->target + " was answered with " + what + ":\n" + std::string(head));
    };
    const bool part = head.starts_with("HTTP/1.1 206 ");
    if (!part && !head.starts_with("HTTP/1.1 200 ")) complain("neither 200 nor 206");
    if (part && !part_->begin) complain("a part that nobody asked for");
    arrival_->status = part ? 206 : 200;
    const std::uint64_t begin = part_->begin.value_or(0);
    const std::uint64_t wanted = part_->begin ? part_->length_bytes : part_->size_bytes;
    const std::uint64_t expected = !part               ? part_->size_bytes
                                   : part_->open_ended ? part_->size_bytes - begin
                                                       : wanted;
    // Varnish sends what it still fetches in chunks if it does not know the length; then, as for a
    // body that is longer than what is wanted, what follows is not looked at.
    const auto length = length_in(head);
    if (!length || *length != expected) complain("another length than " + std::to_string(expected));
    unwanted_bytes_ = part ? 0 : begin;
    left_bytes_ = unwanted_bytes_ + wanted;
    reset_after_ = *left_bytes_ < expected;
  }

  std::uint16_t port_;
  int poll_;
  std::optional<cache::File> socket_;
  const Part* part_ = nullptr;
  Arrival* arrival_ = nullptr;
  Clock::time_point begun_;
  std::string head_;
  std::optional<std::uint64_t> left_bytes_;  // to be read, once the head is there
  std::uint64_t unwanted_bytes_ = 0;         // that come before those
  bool reset_after_ = false;
};

}  // namespace

Pulled pull(std::uint16_t port, const std::vector<Part>& parts, unsigned at_once) {
  const cache::File poll(::epoll_create1(EPOLL_CLOEXEC));
  std::vector<std::unique_ptr<Taker>> takers;
  const auto count = std::min<std::size_t>(at_once, parts.size());
  for (std::size_t i = 0; i < count; ++i)
    takers.push_back(std::make_unique<Taker>(port, poll.fd()));

  Pulled pulled;
  pulled.parts.resize(parts.size());
  std::vector<char> buffer(receive_bytes);
  std::size_t asked = 0;
  std::size_t done = 0;
  const auto begun = Clock::now();
  auto last_sign = begun;
  const auto ask_next = [&](Taker& taker) {
    if (asked == parts.size()) return;
    taker.ask(parts[asked], pulled.parts[asked], begun);
    ++asked;
  };
  for (const auto& taker : takers) ask_next(*taker);
  std::array<epoll_event, 64> events;
  while (done < parts.size()) {
    const int ready = ::epoll_wait(poll.fd(), events.data(), events.size(), 100);
    if (interrupted()) throw Failure(Errc::cancelled, "stopped by a signal");
    const auto now = Clock::now();
    if (ready > 0) last_sign = now;
    if (now - last_sign > patience) wrong("the server has said nothing for a minute");
    for (int i = 0; i < ready; ++i) {
      auto& taker = *static_cast<Taker*>(events[static_cast<std::size_t>(i)].data.ptr);
      if (taker.is_idle()) wrong("more came than was asked for");
      if (!taker.receive(buffer)) continue;
      ++done;
      ask_next(taker);
    }
  }
  pulled.seconds = std::chrono::duration<double>(Clock::now() - begun).count();
  return pulled;
}

}  // namespace staithe::bench
