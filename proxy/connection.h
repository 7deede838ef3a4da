// One client connection: HTTP/1.1 requests in, responses out.
//
// The loop reads a request head, strictly (proxy/request_head.h), lets the handler answer through
// `Exchange`, and goes on with the next while both sides keep the connection. Whatever cannot be
// completed ends by an orderly close (FIN), never by a reset, because containerd gives up a whole
// pull on a reset (registry-clients.md, section 1). Lives on the loop.
//
// Every phase has a deadline, which one sweep per second enforces by shutting the socket down; a
// request sets a number and starts no timer. While an answer is being found there is none, since
// that has upstream's; while it is being sent, the client has to keep a least pace (proxy/pace.h).
// A connection that waits for its next request holds 1 KiB to read it into and no more.
#pragma once

#include <array>
#include <atomic>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/buffer.hpp>
#include <boost/asio/thread_pool.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http/empty_body.hpp>
#include <boost/beast/http/parser.hpp>
#include <chrono>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "cache/error.h"
#include "proxy/admission.h"
#include "proxy/answers.h"
#include "proxy/auth/secret.h"
#include "proxy/auth/wiping_allocator.h"
#include "proxy/crowd.h"
#include "proxy/pace.h"
#include "proxy/peer.h"
#include "proxy/request_meter.h"
#include "proxy/send.h"
#include "proxy/trace.h"

namespace staithe::proxy {

namespace asio = boost::asio;

struct ConnectionLimits {
  std::chrono::milliseconds header_timeout{10'000};
  // Between requests; and the window in which a client has to take some of what there is for it.
  std::chrono::milliseconds idle_timeout{150'000};
  std::size_t head_bytes = 32 * 1024;  // request line and fields together
  std::size_t body_bytes = 0;          // 0: a request with a body is refused
};

// Of an answer that stands ready, a client has to take so much per second, on average over
// `idle_timeout`. Slower than any line that pulls images, faster than a client that has forgotten
// its connection.
inline constexpr std::int64_t least_bytes_per_second = 1024;

// The head of a request, valid while it is handled.
struct Request {
  std::string_view method;
  std::string_view target;
  std::string_view host;
  const boost::beast::http::fields* fields = nullptr;
  std::string_view body;

  bool head() const { return method == "HEAD"; }
  std::string_view field(std::string_view name) const;
};

class Connection;

// One request and the way to answer it. A handler answers once: reply(), or begin() and then
// exactly the announced bytes. If it throws after begin(), or sends less, the connection ends
// there.
class Exchange {
 public:
  const Request& request() const { return request_; }

  // Fields added to the answer, whatever it is. Values must not contain CR or LF.
  void add(std::string_view name, std::string_view value);
  void add_age(std::chrono::seconds age);

  // A whole answer. `body` is not sent for HEAD, its length is.
  asio::awaitable<void> reply(int status, std::string_view content_type, std::string_view body);
  // The same answer as another one was; `now` is for its age.
  asio::awaitable<void> reply_again(AnswerPtr answer, Instant now);
  // What reply() would send before the body and the empty line, but for what belongs to this one
  // answer (Age, Connection).
  std::string head_to_keep(int status, std::string_view content_type,
                           std::uint64_t content_length) const;
  // The OCI error body.
  asio::awaitable<void> reply_error(int status, std::string_view code, std::string_view message);

  // The head alone; the body follows by send() and send_file(). Without a length the body goes out
  // chunked. For HEAD nothing follows. With `body_at_hand` the head leaves in one packet with the
  // body's first bytes; without, at once, since those may be late.
  asio::awaitable<void> begin(int status, std::string_view content_type,
                              std::optional<std::uint64_t> content_length,
                              bool body_at_hand = false);
  asio::awaitable<void> send(std::span<const char> bytes);
  // Bytes `begin`..`end` of a file, without passing through this process. Ends soon, with less
  // sent, once `stop` (null: never) is true. Of a chunked body nothing may be left out.
  asio::awaitable<void> send_file(int fd, std::uint64_t begin, std::uint64_t end,
                                  const std::atomic<bool>* stop = nullptr);
  // After the last byte of a chunked body.
  asio::awaitable<void> finish();

  // Who made the connection. The kernel is asked once per connection, at the first call.
  Peer peer() const;
  // The same, with the connection. Valid while this is.
  Caller caller() const;
  // What is known of his rights, for those who answer later requests of the connection.
  Pass& pass();

  // The value of Authorization, once, where the handler wants_credential(); else empty.
  auth::Secret take_credential() { return std::move(credential_); }

  // No further request on this connection: the peer does not speak our protocol.
  void close_after_answer();

  bool answered() const { return status_ != 0; }
  int status() const { return status_; }
  std::uint64_t body_bytes_sent() const { return sent_; }
  // What the request log says beside status and bytes.
  std::string_view cache_status() const { return cache_status_; }
  // As what it is counted; the handler's.
  RequestAccount& account() { return account_; }
  // The trace that it belongs to; the handler's, too.
  std::optional<Trace>& trace() { return trace_; }
  const std::optional<Trace>& trace() const { return trace_; }
  // With which the lines about its way are marked; empty: there are to be none.
  std::string told_trace() const { return trace_ && trace_->told ? trace_->id : std::string(); }
  const RequestAccount& account() const { return account_; }

 private:
  friend class Connection;
  Exchange(Connection& connection, Request request) : connection_(connection), request_(request) {}
  std::string head(int status, std::string_view content_type,
                   std::optional<std::uint64_t> content_length);
  // Of the head: the field that says what becomes of the connection, if it needs saying.
  std::string_view connection_field();
  using Buffers = std::array<asio::const_buffer, 3>;
  // All of the bytes; `flags` as of send(2).
  asio::awaitable<void> write(Buffers buffers, int flags = 0);

  Connection& connection_;
  Request request_;
  std::string fields_;
  std::string age_field_;
  std::string cache_status_;
  RequestAccount account_;
  std::optional<Trace> trace_;
  auth::Secret credential_;
  bool again_ = false;  // from memory
  int status_ = 0;
  std::uint64_t sent_ = 0;
  std::optional<std::uint64_t> announced_;
  bool chunked_ = false;
  std::string head_;
};

class Handler {
 public:
  virtual ~Handler() = default;
  // Answers. A Failure that escapes before an answer is answered by the connection.
  virtual asio::awaitable<void> handle(Exchange& exchange) = 0;
  // Whether the credential that a request for `target` brings is any business of the handler's.
  // Where it is not, nothing of it is kept.
  virtual bool wants_credential(std::string_view /*target*/) const { return false; }
  // After the answer: the request log.
  virtual void handled(const Exchange& exchange, std::chrono::microseconds took,
                       const Error* failure) = 0;
  // Bytes that are no request which may be one; they have been answered.
  virtual void refused() {}
  // While a server serves.
  virtual void every_second() {}
};

class Connection : public Crowd::Guest {
 public:
  // `handler`, `disk` and `senders` outlive the connection. Without `senders` files are sent on the
  // loop, too.
  Connection(Socket socket, const ConnectionLimits& limits, Handler& handler,
             asio::thread_pool& disk, Senders* senders = nullptr);

  // What came of the first request before, and until when its head has to be whole.
  void begin_with(std::string_view bytes, SteadyTime deadline);

  // Serves requests until the connection ends, or may_go_to_front(). Does not throw for what a peer
  // does.
  asio::awaitable<void> run();
  // Its last answers were all from memory, and it waits for its next request with nothing read of
  // it: whoever answers only from memory may go on with it.
  bool may_go_to_front() const { return may_go_; }
  // run() returns when that is so.
  void offer_to_front(bool offered) { offered_ = offered; }
  // The descriptor, which is nobody's then. After run().
  int release() { return socket_.release(); }
  Peer peer() const { return peer_.value_or(Peer()); }
  // For whoever goes on with it.
  const Pass& pass() const { return pass_; }

  // Who is at the other end, if that is known already; else the kernel is asked when somebody asks.
  void set_peer(Peer peer) { peer_ = peer; }

  // What a connection waits for.
  enum class Phase { idle, head, answer, send, end };
  Phase phase() const { return sending_ && sending_->held_up() ? Phase::send : phase_; }
  // True once it has waited for too long.
  bool overdue(SteadyTime now);
  // Ends it from outside: shuts the socket down; run() then returns.
  void shut_down();
  void give_way() override { shut_down(); }
  // No further request after the one being handled. One that waits for the next ends at once; one
  // that has not asked yet, or whose request is on its way in, has a moment to ask.
  void drain();

 private:
  friend class Exchange;
  using Parser = boost::beast::http::request_parser<boost::beast::http::empty_body>;

  enum class Read { request, closed, refused };
  asio::awaitable<Read> read_head(Parser& parser);
  asio::awaitable<bool> read_body(Parser& parser, std::string& body);
  asio::awaitable<void> refuse(int status, std::string_view code, std::string_view message);
  asio::awaitable<void> handle(Exchange& exchange);
  asio::awaitable<void> linger();
  void set_deadline(std::chrono::milliseconds from_now);
  class Sending;
  // Lets the pace know for how long the client has held up the sending that is under way.
  void offer_held_up(SteadyTime now);
  // Bytes that the client has taken from us and from the kernel, of all answers.
  std::int64_t taken_bytes();
  // The client has sent something that has not been read.
  bool readable();
  // For the next request: no more memory than a waiting connection needs.
  void shrink_buffer();

  Socket socket_;
  const ConnectionLimits& limits_;
  Handler& handler_;
  asio::thread_pool& disk_;
  Senders* const senders_;
  // A credential may have been in it.
  boost::beast::basic_flat_buffer<auth::WipingAllocator<char>> buffer_;
  SteadyTime deadline_;
  Pace pace_;
  std::int64_t written_bytes_ = 0;         // into the socket
  const SendProgress* sending_ = nullptr;  // of a file, while one is on its way
  std::chrono::nanoseconds held_up_{};     // of it, what pace_ knows
  Phase phase_ = Phase::idle;
  std::optional<SteadyTime> head_deadline_;  // of the first request, if that is set already
  int again_ = 0;                            // answers from memory, one after the other
  bool offered_ = false;
  bool may_go_ = false;
  bool running_ = false;  // run() has been called
  bool asked_ = false;    // a request has been handled
  bool draining_ = false;
  bool keep_alive_ = true;  // after the current answer
  bool http_1_0_ = false;
  std::optional<Peer> peer_;  // once somebody asked
  Pass pass_;
};

}  // namespace staithe::proxy
