// Threads that answer from memory, so that hits of small objects scale with the cores (half of
// them: Loops::beside_clients()).
//
// The main loop accepts a connection and puts it here. A thread reads its requests and answers
// those that are plain (proxy/plain_request.h) and whose answer is at hand (proxy/answers.h): one
// recv() and one send() each, pipelined ones together. With the first request that is anything else
// the connection goes back to the main loop, with all that was read of it and not answered; that
// loop sends it here again when its requests are plain ones (Connection::may_go_to_front()).
//
// Not on Asio: with an own epoll instance nothing is read twice to find the socket empty, and a
// connection that waits holds no buffer and no coroutine.
//
// Shared between threads: Answers, Admission and RequestMeter (see there), a mailbox per thread
// (under its mutex), and of a Visitor the members said to be so. The main loop owns every Visitor
// and its descriptor, from take() until it has been told that the connection is back; so it may
// shutdown() the descriptor at any time, and closes it when nobody else uses it.
#pragma once

#include <array>
#include <atomic>
#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/intrusive/list.hpp>
#include <cstdint>
#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "proxy/admission.h"
#include "proxy/answers.h"
#include "proxy/auth/wiping_allocator.h"
#include "proxy/connection.h"
#include "proxy/crowd.h"
#include "proxy/pace.h"
#include "proxy/request_meter.h"

namespace staithe::proxy {

// A connection that is here. Made and destroyed on the main loop.
class Visitor : public Crowd::Guest {
 public:
  // Until when its first, or next, request has to come. `pass`: what its user may be answered.
  Visitor(int descriptor, Peer owner, SteadyTime next_request_by, Pass pass)
      : fd(descriptor), user(owner), pass_(std::move(pass)), deadline_(next_request_by) {}

  // Main loop's.
  const int fd;
  const Peer user;
  std::list<Visitor>::iterator place;
  void give_way() override { shut_down(); }
  void shut_down() const;
  // Tells the crowd what it did since this was called last; false if that is nothing.
  bool look();

 private:
  friend class Front;

  // What it was given and has not taken.
  struct Piece {
    AnswerPtr answer;
    std::string own_head;   // of an answer with an age; else empty
    std::size_t begin = 0;  // of answer->text
    std::size_t end = 0;
    std::size_t size() const { return own_head.size() + end - begin; }
  };
  // Answers that leave together, until they are counted with the time that it took.
  struct Batch {
    SteadyTime begun;
    std::array<std::uint32_t, kinds_in_memory> answers{};
  };
  struct Backlog {
    Backlog(std::chrono::milliseconds window, std::int64_t least_bytes)
        : pace(window, least_bytes) {}
    std::vector<Piece> pieces;
    Batch batch;           // these pieces
    std::size_t sent = 0;  // of the first
    std::int64_t written_bytes = 0;
    Pace pace;
  };

  // Written by its thread, read by the main loop.
  std::atomic<std::uint32_t> batches_ = 0;
  std::atomic<bool> busy_ = false;
  std::uint32_t batches_seen_ = 0;  // both the main loop's
  bool busy_seen_ = false;

  const Pass pass_;
  // Its thread's.
  using Hook = boost::intrusive::list_member_hook<>;
  Hook here_;
  auth::WipedText unread_;  // received and not answered: the beginning of a request, mostly nothing
  std::unique_ptr<Backlog> backlog_;
  SteadyTime deadline_;
  bool in_head_ = false;
  bool goes_ = false;  // back, when it has taken what it was given
  bool ends_ = false;  // likewise, for good
};

class Front {
 public:
  // Why a connection is back.
  enum class Back {
    request,  // one that is not for here; the connection goes on
    left,     // the client closed it, or it was shut down
    // It did not keep its deadline.
    idle,
    head,
    slow,
  };
  // On the main loop. `bytes`: received and not answered; until `deadline` the head has to be
  // whole.
  using OnBack =
      std::function<void(Visitor& visitor, Back why, auth::WipedText bytes, SteadyTime deadline)>;

  // All outlive it. `count` threads, at most RequestMeter::most_threads, which inherit the signal
  // mask. Of `meter` their slots are this front's.
  Front(asio::any_io_executor main_loop, const Answers& answers, const Admission& admission,
        const Clock& clock, RequestMeter& meter, std::size_t count);
  // Every visitor is back.
  ~Front();
  Front(const Front&) = delete;
  Front& operator=(const Front&) = delete;

  // Comes first, and once.
  void serve(ConnectionLimits limits, OnBack on_back);
  // False while nobody can be answered here.
  bool open() const;
  // Also those of whom nothing is known yet. Where a user has to be judged they would only be sent
  // back.
  bool open_to_newcomers() const { return open() && admission_.rules().everybody; }
  // Main loop's. It stays until `on_back` is told.
  void take(Visitor& visitor);
  // All come back: at once, or when they have taken their answer. Who has just come, or whose
  // request is on its way in, comes back as one with a request.
  void drain();
  // Returns when every thread has come round since: it has looked after what was waiting. For whom
  // it matters that none of them is stuck; on the main loop.
  asio::awaitable<void> come_round();

 private:
  class Loop;

  const asio::any_io_executor main_loop_;
  const Answers& answers_;
  const Admission& admission_;
  const Clock& clock_;
  RequestMeter& meter_;
  ConnectionLimits limits_;
  OnBack on_back_;
  bool draining_ = false;  // the main loop's
  std::vector<std::unique_ptr<Loop>> loops_;
  std::size_t next_ = 0;
};

}  // namespace staithe::proxy
