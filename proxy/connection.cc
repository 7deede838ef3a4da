#include "proxy/connection.h"

#include <linux/sockios.h>
#include <openssl/crypto.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/buffer.hpp>
#include <boost/asio/read.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/core/buffers_to_string.hpp>
#include <cassert>
#include <charconv>
#include <cstring>

#include "proxy/auth/secret.h"
#include "proxy/errors.h"
#include "proxy/inbound_credentials.h"
#include "proxy/outcome.h"
#include "proxy/request_head.h"
#include "proxy/send.h"

namespace staithe::proxy {

namespace http = boost::beast::http;

namespace {

// Most heads fit in the first; who sends more gets more, until the request has been answered.
constexpr std::size_t first_read_bytes = 1024;
constexpr std::size_t read_step_bytes = 8 * 1024;
// After the last answer the connection is read on for a moment, so that closing it sends FIN and
// not RST: bytes left unread in the socket would turn the close into a reset.
constexpr auto linger_time = std::chrono::seconds(2);
constexpr std::size_t linger_bytes = 4 * 1024 * 1024;
// One answer from memory may be followed by a large blob, as in every pull.
constexpr int answers_again_for_front = 2;
// While the server drains: for the request of a client that has just come.
constexpr auto last_request_patience = std::chrono::seconds(1);
constexpr std::string_view tls_reply =
    "HTTP/1.0 400 Bad Request\r\nConnection: close\r\nContent-Type: text/plain\r\n\r\n"
    "This port speaks plain HTTP, not TLS: use http:// for this mirror.\n";

bool is_printable(std::string_view value) {
  return value.find_first_of("\r\n\0", 0, 3) == std::string_view::npos;
}

// Makes fields of a head that has been read, which it reads once more: two who do not agree are a
// doubt. False then.
bool takes_alike(http::request_parser<http::empty_body>& parser, std::string_view bytes,
                 const RequestHead& head) {
  boost::beast::error_code error;
  const std::size_t used = parser.put(asio::buffer(bytes), error);
  if (error || used != head.size || !parser.is_header_done()) return false;
  const auto& message = parser.get();
  return message.method_string() == head.method && message.target() == head.target &&
         message.version() == (head.http_1_0 ? 10U : 11U) &&
         message.count(http::field::host) == 1 && message[http::field::host] == head.host &&
         message.count(http::field::transfer_encoding) == 0 &&
         parser.content_length().value_or(0) == head.content_length;
}

// The line before a chunk.
class ChunkSize {
 public:
  explicit ChunkSize(std::uint64_t bytes) {
    end_ = std::to_chars(text_.data(), text_.data() + 16, bytes, 16).ptr;
    *end_++ = '\r';
    *end_++ = '\n';
  }
  ChunkSize(const ChunkSize&) = delete;
  ChunkSize& operator=(const ChunkSize&) = delete;
  std::string_view text() const { return {text_.data(), end_}; }

 private:
  std::array<char, 18> text_;
  char* end_;
};

}  // namespace

std::string_view Request::field(std::string_view name) const {
  const auto it = fields->find({name.data(), name.size()});
  return it == fields->end() ? std::string_view()
                             : std::string_view(it->value().data(), it->value().size());
}

// ---- Exchange ----------------------------------------------------------------------------------

void Exchange::add(std::string_view name, std::string_view value) {
  assert(is_printable(value));
  fields_.append(name).append(": ").append(value).append("\r\n");
  if (name == "Cache-Status") cache_status_ = value;
}

void Exchange::add_age(std::chrono::seconds age) {
  age_field_ = "Age: " + std::to_string(age.count()) + "\r\n";
}

std::string Exchange::head_to_keep(int status, std::string_view content_type,
                                   std::uint64_t content_length) const {
  std::string text;
  text.reserve(512);
  text.append("HTTP/1.1 ").append(std::to_string(status)).append(" ").append(reason_phrase(status));
  text.append("\r\n").append(fields_);
  if (!content_type.empty()) text.append("Content-Type: ").append(content_type).append("\r\n");
  text.append("Content-Length: ").append(std::to_string(content_length)).append("\r\n");
  return text;
}

std::string_view Exchange::connection_field() {
  if (connection_.draining_) connection_.keep_alive_ = false;
  return connection_.keep_alive_ ? std::string_view() : "Connection: close\r\n";
}

std::string Exchange::head(int status, std::string_view content_type,
                           std::optional<std::uint64_t> content_length) {
  assert(status_ == 0);
  status_ = status;
  announced_ = content_length;
  std::string text;
  if (content_length) {
    text = head_to_keep(status, content_type, *content_length);
  } else {
    text.append("HTTP/1.1 ").append(std::to_string(status)).append(" ");
    text.append(reason_phrase(status)).append("\r\n").append(fields_);
    if (!content_type.empty()) text.append("Content-Type: ").append(content_type).append("\r\n");
    if (!connection_.http_1_0_) {
      text.append("Transfer-Encoding: chunked\r\n");
      chunked_ = true;
    } else {
      connection_.keep_alive_ = false;
    }
  }
  text.append(age_field_).append(connection_field()).append("\r\n");
  return text;
}

// The client is given its time piece by piece, so that it is seen to be taking them.
asio::awaitable<void> Exchange::write(Buffers buffers, int flags) {
  Connection& connection = connection_;
  connection.phase_ = Connection::Phase::send;
  for (std::size_t left = asio::buffer_size(buffers); left > 0;) {
    connection.pace_.offer(std::chrono::steady_clock::now());
    std::size_t sent = co_await connection.socket_.async_send(buffers, flags, asio::use_awaitable);
    connection.pace_.rest(std::chrono::steady_clock::now());
    connection.written_bytes_ += static_cast<std::int64_t>(sent);
    left -= sent;
    for (asio::const_buffer& buffer : buffers) {
      const std::size_t of_this = std::min(sent, buffer.size());
      buffer += of_this;
      sent -= of_this;
    }
  }
  connection.phase_ = Connection::Phase::answer;
}

asio::awaitable<void> Exchange::reply(int status, std::string_view content_type,
                                      std::string_view body) {
  const std::string text = head(status, content_type, body.size());
  if (request_.head()) body = {};
  co_await write({asio::buffer(text), asio::buffer(body)});
  sent_ = body.size();
  announced_ = sent_;
}

asio::awaitable<void> Exchange::reply_again(AnswerPtr answer, Instant now) {
  assert(status_ == 0);
  status_ = 200;
  again_ = true;
  cache_status_ = proxy::cache_status(Outcome::hit);
  const std::string_view body = request_.head() ? std::string_view() : answer->body();
  announced_ = body.size();
  std::string own = answer->age_field(now);
  own.append(connection_field());
  if (own.empty()) {
    co_await write({asio::buffer(answer->text.data(), answer->head_size + 2 + body.size())});
  } else {
    own.append("\r\n");
    co_await write({asio::buffer(answer->head()), asio::buffer(own), asio::buffer(body)});
  }
  sent_ = body.size();
}

asio::awaitable<void> Exchange::reply_error(int status, std::string_view code,
                                            std::string_view message) {
  co_await reply(status, "application/json", error_body(code, message));
}

asio::awaitable<void> Exchange::begin(int status, std::string_view content_type,
                                      std::optional<std::uint64_t> content_length,
                                      bool body_at_hand) {
  head_ = head(status, content_type, content_length);
  const bool bodiless = request_.head();
  co_await write({asio::buffer(head_)}, body_at_hand && !bodiless ? MSG_MORE : 0);
  if (bodiless) announced_ = 0;
}

asio::awaitable<void> Exchange::send(std::span<const char> bytes) {
  if (bytes.empty()) co_return;
  assert(!announced_ || sent_ + bytes.size() <= *announced_);
  if (chunked_) {
    const ChunkSize size(bytes.size());
    co_await write({asio::buffer(size.text()), asio::buffer(bytes.data(), bytes.size()),
                    asio::buffer("\r\n", 2)});
  } else {
    co_await write({asio::buffer(bytes.data(), bytes.size())});
  }
  sent_ += bytes.size();
}

// What has been sent counts however the sending ends.
class Connection::Sending {
 public:
  explicit Sending(Exchange& exchange) : exchange_(exchange) {
    connection().sending_ = &progress;
    connection().held_up_ = {};
  }
  ~Sending() {
    const auto now = std::chrono::steady_clock::now();
    connection().offer_held_up(now);
    connection().pace_.rest(now);
    connection().sending_ = nullptr;
    connection().written_bytes_ += static_cast<std::int64_t>(progress.sent_bytes());
    exchange_.sent_ += progress.sent_bytes();
  }
  Sending(const Sending&) = delete;
  Sending& operator=(const Sending&) = delete;

  SendProgress progress;

 private:
  Connection& connection() { return exchange_.connection_; }
  Exchange& exchange_;
};

asio::awaitable<void> Exchange::send_file(int fd, std::uint64_t begin, std::uint64_t end,
                                          const std::atomic<bool>* stop) {
  if (begin == end) co_return;
  assert(!announced_ || sent_ + (end - begin) <= *announced_);
  assert(!chunked_ || !stop);
  if (chunked_) {
    const ChunkSize size(end - begin);
    co_await write({asio::buffer(size.text())});
  }
  {
    Socket& socket = connection_.socket_;
    if (!socket.native_non_blocking()) socket.native_non_blocking(true);
    Connection::Sending sending(*this);
    co_await proxy::send_file(socket, {fd, begin, end}, stop, connection_.senders_,
                              connection_.disk_, sending.progress);
  }
  if (chunked_) co_await write({asio::buffer("\r\n", 2)});
}

asio::awaitable<void> Exchange::finish() {
  if (!chunked_) co_return;
  co_await write({asio::buffer("0\r\n\r\n", 5)});
  announced_ = sent_;
}

Peer Exchange::peer() const {
  if (!connection_.peer_) connection_.peer_ = peer_of(connection_.socket_.native_handle());
  return *connection_.peer_;
}

Caller Exchange::caller() const { return {peer(), connection_.socket_.native_handle()}; }

Pass& Exchange::pass() { return connection_.pass_; }

void Exchange::close_after_answer() { connection_.keep_alive_ = false; }

// ---- Connection --------------------------------------------------------------------------------

Connection::Connection(Socket socket, const ConnectionLimits& limits, Handler& handler,
                       asio::thread_pool& disk, Senders* senders)
    : socket_(std::move(socket)),
      limits_(limits),
      handler_(handler),
      disk_(disk),
      senders_(senders),
      buffer_(limits.head_bytes + read_step_bytes),
      pace_(limits.idle_timeout,
            least_bytes_per_second *
                std::chrono::duration_cast<std::chrono::seconds>(limits.idle_timeout).count()) {
  set_deadline(limits.header_timeout);
}

void Connection::set_deadline(std::chrono::milliseconds from_now) {
  deadline_ = std::chrono::steady_clock::now() + from_now;
}

void Connection::shut_down() {
  boost::system::error_code ignored;
  socket_.shutdown(Socket::shutdown_both, ignored);
}

bool Connection::readable() {
  char none = 0;
  return ::recv(socket_.native_handle(), &none, sizeof none, MSG_PEEK | MSG_DONTWAIT) > 0;
}

void Connection::drain() {
  draining_ = true;
  if (phase_ != Phase::idle) return;
  // Clients try again by themselves when a connection that has served them ends under their next
  // request, but not when their first one does.
  if (asked_ && !readable()) {
    shut_down();
    return;
  }
  deadline_ = std::min(deadline_, std::chrono::steady_clock::now() + last_request_patience);
  if (!running_) head_deadline_ = deadline_;
}

bool Connection::overdue(SteadyTime now) {
  if (now >= deadline_) return true;
  if (sending_) offer_held_up(now);
  const bool slow = pace_.due(now) && pace_.too_slow(now, taken_bytes());
  if (sending_) pace_.rest(now);
  return slow;
}

// As if it had held it up without a break for as long as it has since this was called last: all
// that counts is how long that was.
void Connection::offer_held_up(SteadyTime now) {
  const auto so_far = sending_->held_up_for(now);
  if (so_far <= held_up_) return;
  pace_.offer(now - (so_far - held_up_));
  held_up_ = so_far;
}

std::int64_t Connection::taken_bytes() {
  // What stands in the socket has left us and has not reached the client.
  int in_socket = 0;
  if (::ioctl(socket_.native_handle(), SIOCOUTQ, &in_socket) != 0) in_socket = 0;
  const std::uint64_t of_file = sending_ ? sending_->sent_bytes() : 0;
  return written_bytes_ + static_cast<std::int64_t>(of_file) - in_socket;
}

void Connection::shrink_buffer() {
  if (buffer_.size() == 0 && buffer_.capacity() > first_read_bytes) buffer_.shrink_to_fit();
}

void Connection::begin_with(std::string_view bytes, SteadyTime deadline) {
  const auto room = buffer_.prepare(bytes.size());
  std::memcpy(room.data(), bytes.data(), bytes.size());
  buffer_.commit(bytes.size());
  head_deadline_ = deadline;
  phase_ = Phase::head;
}

asio::awaitable<void> Connection::run() {
  running_ = true;
  bool first = std::exchange(may_go_, false) == false;
  // A request that has begun is answered, also when we are about to end.
  while (keep_alive_ && (!draining_ || head_deadline_)) {
    may_go_ = offered_ && again_ >= answers_again_for_front && buffer_.size() == 0;
    if (may_go_) co_return;
    Parser parser;
    parser.header_limit(static_cast<std::uint32_t>(limits_.head_bytes));
    parser.body_limit(boost::none);
    phase_ = buffer_.size() == 0 ? Phase::idle : Phase::head;
    set_deadline(first || phase_ == Phase::head ? limits_.header_timeout : limits_.idle_timeout);
    if (head_deadline_) deadline_ = *std::exchange(head_deadline_, std::nullopt);
    first = false;
    shrink_buffer();
    rest();
    const Read read = co_await read_head(parser);
    work();
    const auto& message = parser.get();
    const std::string_view target(message.target().data(), message.target().size());
    // Of a head that was refused, or is not whole, too.
    Result<auth::Secret> credential =
        take_credentials(parser.get(), read == Read::request && handler_.wants_credential(target));
    if (read == Read::closed) co_return;
    if (read == Read::refused) break;
    if (!credential) {
      const ErrorReply reply = reply_for(credential.error().code);
      co_await refuse(reply.status, reply.code, credential.error().detail);
      break;
    }
    std::string body;
    if (limits_.body_bytes > 0 && !co_await read_body(parser, body)) break;

    Exchange exchange(
        *this, Request{.method = {message.method_string().data(), message.method_string().size()},
                       .target = target,
                       .host = {},
                       .fields = &message,
                       .body = body});
    exchange.request_.host = exchange.request_.field("Host");
    exchange.credential_ = std::move(*credential);
    co_await handle(exchange);
    asked_ = true;
    again_ = exchange.again_ && exchange.told_trace().empty() ? again_ + 1 : 0;
    // It may have held a secret: only the control socket takes bodies at all.
    if (!body.empty()) auth::wipe(body);
  }
  co_await linger();
}

asio::awaitable<void> Connection::handle(Exchange& exchange) {
  const auto begun = std::chrono::steady_clock::now();
  // Finding the answer has deadlines of its own, upstream's; sending it has the client's pace.
  phase_ = Phase::answer;
  deadline_ = SteadyTime::max();
  std::optional<Error> error;
  bool gone = false;
  try {
    co_await handler_.handle(exchange);
  } catch (const Failure& failure) {
    error = failure.error();
  } catch (const boost::system::system_error&) {
    gone = true;  // The client left, which is its right.
  } catch (const std::exception& e) {
    error = Error{Errc::storage_failed, e.what()};
  }
  if (error && !exchange.answered()) {
    const ErrorReply reply = reply_for(error->code);
    try {
      co_await exchange.reply_error(reply.status, reply.code, error->detail);
    } catch (const boost::system::system_error&) {
      gone = true;
    }
  }
  const bool complete =
      !gone && exchange.answered() && exchange.announced_ && exchange.sent_ == *exchange.announced_;
  if (!complete) keep_alive_ = false;
  const auto took = std::chrono::steady_clock::now() - begun;
  handler_.handled(exchange, std::chrono::duration_cast<std::chrono::microseconds>(took),
                   error ? &*error : nullptr);
}

asio::awaitable<Connection::Read> Connection::read_head(Parser& parser) {
  HeadReader reader({.head_bytes = limits_.head_bytes, .body_bytes = limits_.body_bytes});
  bool begun = buffer_.size() > 0;
  const auto at_hand = [this] {
    return std::string_view(static_cast<const char*>(buffer_.data().data()), buffer_.size());
  };
  for (;;) {
    if (at_hand().starts_with('\x16')) {
      // A TLS ClientHello. Without an HTTP answer containerd gives up on this mirror.
      co_await asio::async_write(socket_, asio::buffer(tls_reply),
                                 asio::as_tuple(asio::use_awaitable));
      co_return Read::refused;
    }
    const HeadVerdict verdict = reader.read(at_hand());
    if (verdict == HeadVerdict::whole) break;
    if (verdict == HeadVerdict::refused) {
      co_await refuse(reader.refusal().status, "UNSUPPORTED", reader.refusal().message);
      co_return Read::refused;
    }
    const std::size_t room = buffer_.size() == 0 ? first_read_bytes : read_step_bytes;
    const auto [error, n] = co_await socket_.async_read_some(buffer_.prepare(room),
                                                             asio::as_tuple(asio::use_awaitable));
    if (error) co_return Read::closed;
    buffer_.commit(n);
    if (!begun) {
      begun = true;
      phase_ = Phase::head;
      set_deadline(limits_.header_timeout);
    }
  }
  const RequestHead head = reader.head(at_hand());
  if (!takes_alike(parser, at_hand().substr(0, head.size), head)) {
    co_await refuse(400, "UNSUPPORTED", "this is not an HTTP/1.1 request");
    co_return Read::refused;
  }
  http_1_0_ = head.http_1_0;
  keep_alive_ = head.keep_alive;
  // The parser has its own copy of the head, and of that no credential stays (run()).
  const std::size_t size = head.size;
  OPENSSL_cleanse(buffer_.data().data(), size);
  buffer_.consume(size);
  co_return Read::request;
}

asio::awaitable<bool> Connection::read_body(Parser& parser, std::string& body) {
  const std::uint64_t size = parser.content_length().value_or(0);
  assert(size <= limits_.body_bytes);
  // What came with the head is taken out of its buffer and wiped there; the rest never stands in
  // it.
  body.resize(size);
  const std::size_t at_hand = std::min<std::size_t>(size, buffer_.size());
  const auto first = buffer_.data();
  std::memcpy(body.data(), first.data(), at_hand);
  OPENSSL_cleanse(first.data(), at_hand);
  buffer_.consume(at_hand);
  const auto [error, n] =
      co_await asio::async_read(socket_, asio::buffer(body.data() + at_hand, body.size() - at_hand),
                                asio::as_tuple(asio::use_awaitable));
  if (error) auth::wipe(body);
  co_return !error;
}

asio::awaitable<void> Connection::refuse(int status, std::string_view code,
                                         std::string_view message) {
  handler_.refused();
  const std::string body = error_body(code, message);
  std::string text = "HTTP/1.1 " + std::to_string(status) + " ";
  text.append(reason_phrase(status));
  if (status == 405) text += "\r\nAllow: GET, HEAD";
  text += "\r\nContent-Type: application/json\r\nContent-Length: " + std::to_string(body.size()) +
          "\r\nConnection: close\r\n\r\n" + body;
  set_deadline(limits_.header_timeout);
  co_await asio::async_write(socket_, asio::buffer(text), asio::as_tuple(asio::use_awaitable));
}

asio::awaitable<void> Connection::linger() {
  boost::system::error_code ignored;
  socket_.shutdown(Socket::shutdown_send, ignored);
  if (ignored) co_return;
  phase_ = Phase::end;
  set_deadline(linger_time);
  std::array<char, 16 * 1024> rest;
  for (std::size_t total = 0; total < linger_bytes;) {
    const auto [error, n] =
        co_await socket_.async_read_some(asio::buffer(rest), asio::as_tuple(asio::use_awaitable));
    OPENSSL_cleanse(rest.data(), n);
    if (error) co_return;
    total += n;
  }
}

}  // namespace staithe::proxy
