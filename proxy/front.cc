#include "proxy/front.h"

#include <linux/sockios.h>
#include <openssl/crypto.h>
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include <array>
#include <boost/asio/associated_executor.hpp>
#include <boost/asio/async_result.hpp>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <cassert>
#include <cerrno>
#include <cstring>
#include <functional>
#include <utility>

#include "cache/log.h"
#include "proxy/plain_request.h"

namespace staithe::proxy {

namespace {

constexpr int events_at_once = 128;
// Of one connection, answered by one send(); what came beyond them waits its turn.
constexpr std::size_t answers_at_once = 16;
constexpr std::size_t bytes_at_once = 128 * 1024;
constexpr std::size_t read_bytes = 24 * 1024;
constexpr auto sweep_interval = std::chrono::seconds(1);

int checked(int result, const char* what) {
  if (result < 0)
    throw Failure(Errc::storage_failed, std::string(what) + ": " + describe_errno(errno));
  return result;
}

}  // namespace

// ---- Visitor -----------------------------------------------------------------------------------

void Visitor::shut_down() const { ::shutdown(fd, SHUT_RDWR); }

bool Visitor::look() {
  const std::uint32_t batches = batches_.load(std::memory_order_relaxed);
  const bool busy = busy_.load(std::memory_order_relaxed);
  if (std::exchange(batches_seen_, batches) == batches && busy == busy_seen_) return false;
  busy_seen_ = busy;
  if (counted()) busy ? work() : rest();
  return true;
}

// ---- a thread ----------------------------------------------------------------------------------

class Front::Loop {
 public:
  // `slot` is its own in the meter.
  Loop(Front& front, std::size_t slot)
      : front_(front),
        slot_(slot),
        count_(front.meter_.thread(slot)),
        epoll_(checked(::epoll_create1(EPOLL_CLOEXEC), "epoll_create1")),
        bell_(checked(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), "eventfd")) {
    epoll_event event{.events = EPOLLIN, .data = {.ptr = nullptr}};
    checked(::epoll_ctl(epoll_, EPOLL_CTL_ADD, bell_, &event), "epoll_ctl");
    thread_ = std::thread([this] { run(); });
    ::pthread_setname_np(thread_.native_handle(), "front");
  }
  ~Loop() {
    post([](Mail& mail) { mail.stop = true; });
    thread_.join();
    ::close(bell_);
    ::close(epoll_);
  }
  Loop(const Loop&) = delete;
  Loop& operator=(const Loop&) = delete;

  void take(Visitor& visitor) {
    post([&](Mail& mail) { mail.visitors.push_back(&visitor); });
  }
  void drain() {
    post([](Mail& mail) { mail.drain = true; });
  }
  // Goes on waiting when it is cancelled: the thread would wake who is not there any more.
  asio::awaitable<void> come_round() {
    co_await asio::async_initiate<const asio::use_awaitable_t<>, void()>(
        [this](auto handler) {
          auto work = asio::make_work_guard(asio::get_associated_executor(handler));
          post([&](Mail& mail) {
            mail.waiting.emplace_back(
                [work = std::move(work), handler = std::move(handler)]() mutable {
                  asio::post(work.get_executor(), std::move(handler));
                });
          });
        },
        asio::use_awaitable);
  }

 private:
  struct Mail {
    std::vector<Visitor*> visitors;
    std::vector<std::move_only_function<void()>> waiting;  // for this thread to come round
    bool drain = false;
    bool stop = false;
  };
  using Here = boost::intrusive::list<
      Visitor, boost::intrusive::member_hook<Visitor, Visitor::Hook, &Visitor::here_>>;

  template <class Write>
  void post(Write write) {
    {
      const std::scoped_lock lock(mutex_);
      write(mail_);
    }
    const std::uint64_t one = 1;
    [[maybe_unused]] const ssize_t n = ::write(bell_, &one, sizeof one);
  }

  void run() {
    std::array<epoll_event, events_at_once> events;
    SteadyTime next_sweep{};
    while (!stop_ || !here_.empty()) {
      // Without connections there are no deadlines.
      const int patience =
          here_.empty() ? -1 : static_cast<int>(std::chrono::milliseconds(sweep_interval).count());
      const int n = ::epoll_wait(epoll_, events.data(), events_at_once, patience);
      steady_now_ = std::chrono::steady_clock::now();
      now_ = front_.clock_.now();
      look_at_admission();
      bool rung = false;
      for (int i = 0; i < n; ++i) {
        const epoll_event& event = events[static_cast<std::size_t>(i)];
        if (event.data.ptr) {
          happened(*static_cast<Visitor*>(event.data.ptr));
        } else {
          rung = true;
        }
      }
      // After the events, none of which may be of a visitor that has gone.
      if (rung) read_mail();
      if (steady_now_ < next_sweep) continue;
      next_sweep = steady_now_ + sweep_interval;
      sweep();
    }
  }

  void look_at_admission() {
    const std::uint64_t version = front_.admission_.version();
    if (version == rules_version_) return;
    rules_version_ = version;
    rules_ = front_.admission_.rules();
    good_host_.clear();
  }

  void read_mail() {
    std::uint64_t rings = 0;
    [[maybe_unused]] const ssize_t n = ::read(bell_, &rings, sizeof rings);
    Mail mail;
    {
      const std::scoped_lock lock(mutex_);
      mail = std::exchange(mail_, {});
    }
    for (Visitor* visitor : mail.visitors) enter(*visitor);
    if (mail.drain) end_what_rests();
    for (auto& go_on : mail.waiting) go_on();
    if (mail.stop) stop_ = true;
  }

  void end_what_rests() {
    for (auto it = here_.begin(); it != here_.end();) {
      Visitor& visitor = *it++;
      if (visitor.backlog_ && !visitor.backlog_->pieces.empty()) {
        (visitor.unread_.empty() ? visitor.ends_ : visitor.goes_) = true;
      } else if (visitor.unread_.empty() && !asks_now(visitor)) {
        leave(visitor, Back::left);
      } else {
        leave(visitor, Back::request);
      }
    }
  }

  // It has a request on its way in, as far as one can know: a client that has connected will ask.
  static bool asks_now(const Visitor& visitor) {
    char none = 0;
    return visitor.batches_.load(std::memory_order_relaxed) == 0 ||
           ::recv(visitor.fd, &none, sizeof none, MSG_PEEK | MSG_DONTWAIT) > 0;
  }

  void enter(Visitor& visitor) {
    here_.push_back(visitor);
    epoll_event event{.events = EPOLLIN, .data = {.ptr = &visitor}};
    // Out of memory for one more: it is served elsewhere.
    if (::epoll_ctl(epoll_, EPOLL_CTL_ADD, visitor.fd, &event) != 0) leave(visitor, Back::request);
  }

  void wait_for(Visitor& visitor, std::uint32_t events) {
    epoll_event event{.events = events, .data = {.ptr = &visitor}};
    ::epoll_ctl(epoll_, EPOLL_CTL_MOD, visitor.fd, &event);
  }

  // The last that is done with it here.
  void leave(Visitor& visitor, Back why) {
    if (visitor.backlog_ && !visitor.backlog_->pieces.empty()) note_time(visitor.backlog_->batch);
    ::epoll_ctl(epoll_, EPOLL_CTL_DEL, visitor.fd, nullptr);
    here_.erase(here_.iterator_to(visitor));
    asio::post(front_.main_loop_,
               [&front = front_, &visitor, why, bytes = std::move(visitor.unread_),
                deadline = visitor.deadline_]() mutable {
                 front.on_back_(visitor, why, std::move(bytes), deadline);
               });
  }

  void happened(Visitor& visitor) {
    if (visitor.backlog_ && !visitor.backlog_->pieces.empty()) {
      flush(visitor);
    } else {
      receive(visitor);
    }
  }

  void receive(Visitor& visitor) {
    const std::size_t before = visitor.unread_.size();
    std::memcpy(buffer_.data(), visitor.unread_.data(), before);
    const ssize_t n =
        ::recv(visitor.fd, buffer_.data() + before, buffer_.size() - before, MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (n <= 0) {
      leave(visitor, Back::left);
      return;
    }
    answer(visitor, {buffer_.data(), before + static_cast<std::size_t>(n)});
  }

  // What of `bytes` can be answered; the rest waits, or goes with the connection.
  void answer(Visitor& visitor, std::string_view bytes) {
    visitor.batches_.store(visitor.batches_.load(std::memory_order_relaxed) + 1,
                           std::memory_order_relaxed);
    for (;;) {
      bool more = true;
      std::size_t body_bytes = 0;
      Visitor::Batch batch{.begun = steady_now_};
      pieces_.clear();
      for (std::size_t size = 0;
           !bytes.empty() && pieces_.size() < answers_at_once && size < bytes_at_once;) {
        PlainRequest request;
        const Plain verdict = parse_plain(bytes, request);
        more = verdict == Plain::yes;
        if (!more) {
          visitor.goes_ = verdict == Plain::no;
          break;
        }
        more = append(visitor, request);
        if (!more) {
          visitor.goes_ = true;
          break;
        }
        size += pieces_.back().size();
        const Answer& found = *pieces_.back().answer;
        if (!request.head) body_bytes += found.body().size();
        if (found.registry) found.registry->add_hits(slot_, found.kind, 1);
        ++batch.answers[static_cast<std::size_t>(found.kind)];
        bytes.remove_prefix(request.size);
      }
      if (!pieces_.empty()) {
        count_.requests.add(pieces_.size());
        count_.body_bytes.add(body_bytes);
        // The next head has its own time.
        visitor.in_head_ = false;
        if (!send(visitor, batch)) {
          keep(visitor, bytes);
          return;
        }
      }
      if (bytes.empty() || !more) break;
    }
    settle(visitor, bytes);
  }

  // What was received and is not answered yet stays in one place: it may hold a credential, which
  // no plain request does.
  static void keep(Visitor& visitor, std::string_view rest) {
    visitor.unread_.assign(rest);
    if (!rest.empty()) OPENSSL_cleanse(const_cast<char*>(rest.data()), rest.size());
  }

  // Nothing is left to be sent, and of `rest` nothing to be answered now.
  void settle(Visitor& visitor, std::string_view rest) {
    keep(visitor, rest);
    if (rest.empty() && visitor.unread_.capacity() > 64) visitor.unread_.shrink_to_fit();
    if (rest.empty()) {
      visitor.deadline_ = steady_now_ + front_.limits_.idle_timeout;
    } else if (!visitor.in_head_) {
      visitor.deadline_ = steady_now_ + front_.limits_.header_timeout;
    }
    visitor.in_head_ = !rest.empty();
    visitor.busy_.store(visitor.in_head_, std::memory_order_relaxed);
    if (visitor.ends_) {
      leave(visitor, Back::left);
    } else if (visitor.goes_) {
      leave(visitor, Back::request);
    }
  }

  // False if it cannot be answered here.
  bool append(const Visitor& visitor, const PlainRequest& request) {
    // At this level every request is a line in the log, which the main loop writes.
    if (log::enabled(log::Level::debug)) return false;
    if (rules_.hosts && request.host != good_host_) {
      if (!rules_.hosts->accepts(request.host)) return false;
      good_host_ = request.host;
    }
    AnswerPtr answer = front_.answers_.find(request.target, now_);
    if (!answer) return false;
    if (!rules_.everybody && !visitor.pass_.covers(answer->registry, rules_version_, now_))
      return false;
    Visitor::Piece piece;
    piece.begin = 0;
    piece.end = request.head ? answer->head_size + 2 : answer->text.size();
    if (answer->confirmed) {
      piece.own_head.append(answer->head()).append(answer->age_field(now_)).append("\r\n");
      piece.begin = answer->head_size + 2;
    }
    piece.answer = std::move(answer);
    pieces_.push_back(std::move(piece));
    return true;
  }

  // As much of `pieces` as is taken now, after the first `sent` bytes; false if the connection
  // broke.
  static bool write(int fd, std::vector<Visitor::Piece>& pieces, std::size_t& sent,
                    std::int64_t& written_bytes) {
    while (!pieces.empty()) {
      std::array<iovec, 2 * answers_at_once> vectors;
      std::size_t count = 0;
      std::size_t wanted = 0;
      std::size_t skip = sent;
      const auto add = [&](std::string_view text) {
        const std::size_t skipped = std::min(skip, text.size());
        skip -= skipped;
        text.remove_prefix(skipped);
        if (text.empty()) return;
        vectors[count++] = {const_cast<char*>(text.data()), text.size()};
        wanted += text.size();
      };
      for (const Visitor::Piece& piece : pieces) {
        add(piece.own_head);
        add(std::string_view(piece.answer->text).substr(piece.begin, piece.end - piece.begin));
      }
      ssize_t n = 0;
      if (count == 1) {
        n = ::send(fd, vectors[0].iov_base, vectors[0].iov_len, MSG_DONTWAIT | MSG_NOSIGNAL);
      } else {
        msghdr message{};
        message.msg_iov = vectors.data();
        message.msg_iovlen = count;
        n = ::sendmsg(fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
      }
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return errno == EAGAIN;
      written_bytes += n;
      if (static_cast<std::size_t>(n) == wanted) {
        pieces.clear();
        sent = 0;
        return true;
      }
      sent += static_cast<std::size_t>(n);
      std::size_t done = 0;
      while (sent >= pieces[done].size()) sent -= pieces[done++].size();
      pieces.erase(pieces.begin(), pieces.begin() + static_cast<std::ptrdiff_t>(done));
    }
    return true;
  }

  // One clock read for all of them: what is measured is from the moment they were found in the
  // socket until the last byte was in it again.
  void note_time(Visitor::Batch& batch) {
    const auto took = std::chrono::steady_clock::now() - batch.begun;
    for (std::size_t kind = 0; kind < batch.answers.size(); ++kind)
      if (batch.answers[kind] > 0) count_.hits[kind].add(took, batch.answers[kind]);
    batch.answers = {};
  }

  // pieces_. False if it has not taken all of it: it waits for that, or has gone.
  bool send(Visitor& visitor, Visitor::Batch& batch) {
    std::size_t sent = 0;
    std::int64_t written_bytes = 0;
    if (!write(visitor.fd, pieces_, sent, written_bytes)) {
      note_time(batch);
      leave(visitor, Back::left);
      return false;
    }
    if (visitor.backlog_) visitor.backlog_->written_bytes += written_bytes;
    if (pieces_.empty()) {
      note_time(batch);
      return true;
    }
    if (!visitor.backlog_) {
      const auto window = front_.limits_.idle_timeout;
      const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(window).count();
      visitor.backlog_ =
          std::make_unique<Visitor::Backlog>(window, least_bytes_per_second * seconds);
      visitor.backlog_->written_bytes = written_bytes;
    }
    visitor.backlog_->pieces = std::exchange(pieces_, {});
    visitor.backlog_->batch = batch;
    visitor.backlog_->sent = sent;
    visitor.backlog_->pace.offer(steady_now_);
    visitor.busy_.store(true, std::memory_order_relaxed);
    visitor.deadline_ = SteadyTime::max();
    wait_for(visitor, EPOLLOUT);
    return false;
  }

  void flush(Visitor& visitor) {
    Visitor::Backlog& backlog = *visitor.backlog_;
    if (!write(visitor.fd, backlog.pieces, backlog.sent, backlog.written_bytes)) {
      leave(visitor, Back::left);
      return;
    }
    if (!backlog.pieces.empty()) return;
    note_time(backlog.batch);
    backlog.pace.rest(steady_now_);
    backlog.pieces.shrink_to_fit();
    wait_for(visitor, EPOLLIN);
    auth::WipedText unread = std::exchange(visitor.unread_, {});
    if (visitor.goes_ || visitor.ends_ || unread.empty()) {
      settle(visitor, unread);
    } else {
      answer(visitor, unread);
    }
  }

  void sweep() {
    for (auto it = here_.begin(); it != here_.end();) {
      Visitor& visitor = *it++;
      if (visitor.backlog_ && !visitor.backlog_->pieces.empty()) {
        Visitor::Backlog& backlog = *visitor.backlog_;
        if (!backlog.pace.due(steady_now_)) continue;
        int in_socket = 0;
        if (::ioctl(visitor.fd, SIOCOUTQ, &in_socket) != 0) in_socket = 0;
        if (backlog.pace.too_slow(steady_now_, backlog.written_bytes - in_socket)) {
          visitor.shut_down();
          leave(visitor, Back::slow);
        }
      } else if (steady_now_ >= visitor.deadline_) {
        visitor.shut_down();
        leave(visitor, visitor.in_head_ ? Back::head : Back::idle);
      }
    }
  }

  Front& front_;
  const std::size_t slot_;
  RequestMeter::Thread& count_;
  const int epoll_;
  const int bell_;  // rung when there is mail
  std::mutex mutex_;
  Mail mail_;  // under mutex_
  // The thread's.
  Here here_;
  bool stop_ = false;
  SteadyTime steady_now_;
  Instant now_;
  Admission::Rules rules_;
  std::uint64_t rules_version_ = 0;
  std::string good_host_;  // accepted last
  std::vector<Visitor::Piece> pieces_;
  std::array<char, most_plain_bytes + read_bytes> buffer_;
  std::thread thread_;
};

// ---- Front -------------------------------------------------------------------------------------

Front::Front(asio::any_io_executor main_loop, const Answers& answers, const Admission& admission,
             const Clock& clock, RequestMeter& meter, std::size_t count)
    : main_loop_(std::move(main_loop)),
      answers_(answers),
      admission_(admission),
      clock_(clock),
      meter_(meter) {
  assert(count > 0 && count <= RequestMeter::most_threads);
  loops_.resize(count);
}

Front::~Front() = default;

void Front::serve(ConnectionLimits limits, OnBack on_back) {
  assert(!on_back_);
  limits_ = limits;
  on_back_ = std::move(on_back);
  for (std::size_t slot = 0; slot < loops_.size(); ++slot)
    loops_[slot] = std::make_unique<Loop>(*this, slot);
}

bool Front::open() const { return !draining_ && !log::enabled(log::Level::debug); }

void Front::take(Visitor& visitor) {
  next_ = (next_ + 1) % loops_.size();
  loops_[next_]->take(visitor);
}

void Front::drain() {
  draining_ = true;
  for (auto& loop : loops_)
    if (loop) loop->drain();
}

asio::awaitable<void> Front::come_round() {
  for (auto& loop : loops_)
    if (loop) co_await loop->come_round();
}

}  // namespace staithe::proxy
