#include "proxy/tls_gate.h"

#include <fcntl.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cassert>
#include <cerrno>
#include <ctime>
#include <list>
#include <thread>
#include <utility>

#include "cache/openssl.h"
#include "proxy/auth/wiping_allocator.h"

namespace staithe::proxy {

namespace {

using SteadyTime = std::chrono::steady_clock::time_point;

constexpr int events_at_once = 128;
constexpr std::size_t request_bytes = 16 * 1024;
constexpr std::size_t answer_bytes = 64 * 1024;
constexpr std::size_t record_bytes = SSL3_RT_MAX_PLAIN_LENGTH;
// Of one connection, before the others have their turn.
constexpr std::size_t bytes_at_once = 1024 * 1024;
constexpr auto sweep_interval = std::chrono::seconds(1);
// After the last word of ours: for the client's.
constexpr auto linger_time = std::chrono::seconds(2);
// ECDHE and AEAD only; those of TLS 1.3 are all like that.
constexpr const char* ciphers = "ECDHE+AESGCM:ECDHE+CHACHA20";
constexpr std::string_view protocol = "http/1.1";

int choose_protocol(SSL*, const unsigned char** chosen, unsigned char* length,
                    const unsigned char* offered, unsigned size, void*) {
  for (unsigned at = 0; at < size;) {
    const unsigned char* const name = offered + at + 1;
    const unsigned n = offered[at];
    if (at + 1 + n > size) break;
    if (std::string_view(reinterpret_cast<const char*>(name), n) == protocol) {
      *chosen = name;
      *length = static_cast<unsigned char>(n);
      return SSL_TLSEXT_ERR_OK;
    }
    at += 1 + n;
  }
  return SSL_TLSEXT_ERR_ALERT_FATAL;
}

using Context = openssl::Owner<SSL_CTX, ::SSL_CTX_free>;

// Where OpenSSL writes: a socket, as its own BIO has it, but that the kernel is told when there is
// more to come. Records have 16 KiB, and one segment for several of them is less work for both
// ends.
struct Wire {
  int fd = -1;
  bool more = false;
};

int write_to_wire(BIO* bio, const char* bytes, int size) {
  const auto& wire = *static_cast<const Wire*>(::BIO_get_data(bio));
  ::BIO_clear_flags(bio, BIO_FLAGS_RWS | BIO_FLAGS_SHOULD_RETRY);
  const ssize_t n = ::send(wire.fd, bytes, static_cast<std::size_t>(size),
                           MSG_DONTWAIT | MSG_NOSIGNAL | (wire.more ? MSG_MORE : 0));
  if (n < 0 && (errno == EAGAIN || errno == EINTR))
    ::BIO_set_flags(bio, BIO_FLAGS_WRITE | BIO_FLAGS_SHOULD_RETRY);
  return static_cast<int>(n);
}

long control_wire(BIO*, int command, long, void*) { return command == BIO_CTRL_FLUSH ? 1 : 0; }

// `wire` outlives it.
openssl::Bio writer_to(Wire& wire) {
  static const openssl::Owner<BIO_METHOD, ::BIO_meth_free> method = [] {
    openssl::Owner<BIO_METHOD, ::BIO_meth_free> made(
        ::BIO_meth_new(::BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "wire"));
    if (made) {
      ::BIO_meth_set_write(made.get(), write_to_wire);
      ::BIO_meth_set_ctrl(made.get(), control_wire);
    }
    return made;
  }();
  openssl::Bio bio(method ? ::BIO_new(method.get()) : nullptr);
  if (bio) {
    ::BIO_set_data(bio.get(), &wire);
    ::BIO_set_init(bio.get(), 1);
  }
  return bio;
}

std::unexpected<Error> refuse(std::string why) {
  ::ERR_clear_error();
  return fail(Errc::config, "the TLS file " + std::move(why) +
                                "; staithe setup --tls --apply makes one that is good");
}

}  // namespace

// ---- TlsContext --------------------------------------------------------------------------------

Result<TlsContextPtr> TlsContext::from_pem(std::string_view pem) {
  constexpr std::size_t most_bytes = std::size_t{256} * 1024;
  if (pem.size() > most_bytes) return refuse("is too long");
  Context context(::SSL_CTX_new(::TLS_server_method()));
  if (!context) return refuse("cannot be used: out of memory");
  SSL_CTX* const raw = context.get();
  ::SSL_CTX_set_min_proto_version(raw, TLS1_2_VERSION);
  ::SSL_CTX_set_options(raw, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION | SSL_OP_NO_TICKET |
                                 SSL_OP_CIPHER_SERVER_PREFERENCE | SSL_OP_IGNORE_UNEXPECTED_EOF);
  ::SSL_CTX_set_num_tickets(raw, 0);
  ::SSL_CTX_set_session_cache_mode(raw, SSL_SESS_CACHE_OFF);
  ::SSL_CTX_set_mode(raw, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ENABLE_PARTIAL_WRITE |
                              SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
  ::SSL_CTX_set_verify(raw, SSL_VERIFY_NONE, nullptr);
  ::SSL_CTX_set_alpn_select_cb(raw, choose_protocol, nullptr);
  if (::SSL_CTX_set_cipher_list(raw, ciphers) != 1) return refuse("cannot be used: no cipher");

  const openssl::Bio keys = openssl::reader_of(pem);
  const openssl::Key key(
      ::PEM_read_bio_PrivateKey(keys.get(), nullptr, openssl::no_password, nullptr));
  if (!key) return refuse("has no private key without a password");
  const openssl::Bio certificates = openssl::reader_of(pem);
  const openssl::Certificate own(
      ::PEM_read_bio_X509(certificates.get(), nullptr, openssl::no_password, nullptr));
  if (!own) return refuse("has no certificate");
  if (::SSL_CTX_use_certificate(raw, own.get()) != 1) return refuse("has an unfit certificate");
  while (X509* next =
             ::PEM_read_bio_X509(certificates.get(), nullptr, openssl::no_password, nullptr)) {
    if (::SSL_CTX_add0_chain_cert(raw, next) == 1) continue;
    ::X509_free(next);
    return refuse("has an unfit certificate");
  }
  if (::SSL_CTX_use_PrivateKey(raw, key.get()) != 1 || ::SSL_CTX_check_private_key(raw) != 1)
    return refuse("has a key that is not its certificate's");
  std::tm end{};
  if (::ASN1_TIME_to_tm(::X509_get0_notAfter(own.get()), &end) != 1)
    return refuse("has a certificate without an end");
  ::ERR_clear_error();
  return TlsContextPtr(new TlsContext(
      context.release(), std::chrono::sys_seconds(std::chrono::seconds(::timegm(&end)))));
}

TlsContext::~TlsContext() { ::SSL_CTX_free(context_); }

bool TlsContext::shows_the_same_as(const TlsContext& other) const {
  return ::X509_cmp(::SSL_CTX_get0_certificate(context_),
                    ::SSL_CTX_get0_certificate(other.context_)) == 0;
}

// ---- a thread ----------------------------------------------------------------------------------

class TlsGate::Thread {
 public:
  explicit Thread(TlsGate& gate)
      : gate_(gate),
        epoll_(::epoll_create1(EPOLL_CLOEXEC)),
        bell_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
    epoll_event event{.events = EPOLLIN, .data = {.ptr = nullptr}};
    if (epoll_ < 0 || bell_ < 0 || ::epoll_ctl(epoll_, EPOLL_CTL_ADD, bell_, &event) != 0)
      throw Failure(Errc::storage_failed, "TLS has no descriptors: " + describe_errno(errno));
    thread_ = std::thread([this] { run(); });
    ::pthread_setname_np(thread_.native_handle(), "tls");
  }
  ~Thread() {
    post({.stop = true});
    thread_.join();
    ::close(bell_);
    ::close(epoll_);
  }
  Thread(const Thread&) = delete;
  Thread& operator=(const Thread&) = delete;

  struct Mail {
    int tcp = -1;
    int plain = -1;
    TlsContextPtr context = {};
    SteadyTime deadline = {};
    bool stop = false;
  };
  void post(Mail mail) {
    {
      const std::scoped_lock lock(mutex_);
      mail_.push_back(std::move(mail));
    }
    const std::uint64_t one = 1;
    [[maybe_unused]] const ssize_t n = ::write(bell_, &one, sizeof one);
  }

 private:
  struct Session {
    int tcp = -1;
    int plain = -1;
    TlsContextPtr context;
    Wire wire;
    SSL* ssl = nullptr;
    SteadyTime deadline;
    std::list<Session>::iterator place;
    // Received and not passed on yet; mostly nothing. A request may hold a credential.
    auth::WipedText requests;
    std::string answers;
    bool established = false;
    bool asked = false;     // the client will say no more
    bool answered = false;  // nor will the plain end
    bool gone = false;      // that end is closed, whatever is left of what it said
    bool queued = false;    // in again_
  };
  enum class Moved { nothing, something, broken };

  void run() {
    std::array<epoll_event, events_at_once> events;
    SteadyTime next_sweep{};
    while (!stop_) {
      const int patience =
          !again_.empty()     ? 0
          : sessions_.empty() ? -1
                              : static_cast<int>(std::chrono::milliseconds(sweep_interval).count());
      const int n = ::epoll_wait(epoll_, events.data(), events_at_once, patience);
      now_ = std::chrono::steady_clock::now();
      // Whoever had more to do than its turn, and then those to whom something has happened; none
      // of them goes before all of these have been looked at.
      std::vector<Session*> due = std::exchange(again_, {});
      for (Session* session : due) session->queued = false;
      bool rung = false;
      for (int i = 0; i < n; ++i) {
        const epoll_event& event = events[static_cast<std::size_t>(i)];
        if (!event.data.ptr) {
          rung = true;
          continue;
        }
        auto* const session = static_cast<Session*>(event.data.ptr);
        if (std::ranges::find(due, session) == due.end()) due.push_back(session);
      }
      for (Session* session : due) {
        if (!step(*session)) end(*session);
      }
      if (rung) read_mail();
      if (now_ < next_sweep) continue;
      next_sweep = now_ + sweep_interval;
      for (auto it = sessions_.begin(); it != sessions_.end();) {
        Session& session = *it++;
        if (now_ >= session.deadline) end(session);
      }
    }
    while (!sessions_.empty()) end(sessions_.front());
  }

  void read_mail() {
    std::uint64_t rings = 0;
    [[maybe_unused]] const ssize_t n = ::read(bell_, &rings, sizeof rings);
    std::vector<Mail> mail;
    {
      const std::scoped_lock lock(mutex_);
      mail = std::exchange(mail_, {});
    }
    for (Mail& letter : mail) {
      if (letter.stop) stop_ = true;
      if (letter.tcp >= 0) enter(letter);
    }
  }

  void enter(Mail& letter) {
    Session& session = sessions_.emplace_back();
    session.place = std::prev(sessions_.end());
    session.tcp = letter.tcp;
    session.plain = letter.plain;
    session.context = std::move(letter.context);
    session.deadline = letter.deadline;
    session.ssl = ::SSL_new(session.context->get());
    // Told once of every change; step() then goes on until nothing moves.
    epoll_event event{.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET,
                      .data = {.ptr = &session}};
    if (!session.ssl || !connect(session) ||
        ::epoll_ctl(epoll_, EPOLL_CTL_ADD, session.tcp, &event) != 0 ||
        ::epoll_ctl(epoll_, EPOLL_CTL_ADD, session.plain, &event) != 0) {
      end(session);
      return;
    }
    ::SSL_set_accept_state(session.ssl);
    if (!step(session)) end(session);
  }

  static bool connect(Session& session) {
    session.wire.fd = session.tcp;
    openssl::Bio from(::BIO_new_socket(session.tcp, BIO_NOCLOSE));
    openssl::Bio to = writer_to(session.wire);
    if (!from || !to) return false;
    ::SSL_set_bio(session.ssl, from.release(), to.release());
    return true;
  }

  void end(Session& session) {
    if (!session.established) ++gate_.failed_;
    std::erase(again_, &session);
    ::SSL_free(session.ssl);
    ::close(session.tcp);
    ::close(session.plain);
    --gate_.open_;
    sessions_.erase(session.place);
  }

  // False if it is over.
  bool step(Session& session) {
    if (!session.established) {
      ::ERR_clear_error();
      const int done = ::SSL_do_handshake(session.ssl);
      if (done != 1) return waits(session, done);
      session.established = true;
      session.deadline = SteadyTime::max();
      ++gate_.handshakes_;
    }
    for (std::size_t left = bytes_at_once;;) {
      const Moved up = move_requests(session);
      if (up == Moved::broken) return false;
      const Moved down = move_answers(session, left);
      if (down == Moved::broken) return false;
      if (session.answered && session.answers.empty() && session.asked) return false;
      if (up == Moved::nothing && down == Moved::nothing) return true;
      if (left == 0) {
        if (!std::exchange(session.queued, true)) again_.push_back(&session);
        return true;
      }
    }
  }

  // True if the session waits for its peer, not if it has broken.
  static bool waits(const Session& session, int result) {
    const int error = ::SSL_get_error(session.ssl, result);
    return error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE;
  }

  Moved move_requests(Session& session) {
    if (!session.requests.empty()) {
      const ssize_t n = ::send(session.plain, session.requests.data(), session.requests.size(),
                               MSG_DONTWAIT | MSG_NOSIGNAL);
      if (n < 0 && (errno == EAGAIN || errno == EINTR)) return Moved::nothing;
      // Nobody listens any more: what the client still says is read and dropped, so that our last
      // word reaches it.
      session.requests.erase(0, n < 0 ? session.requests.size() : static_cast<std::size_t>(n));
      return Moved::something;
    }
    if (session.asked) return Moved::nothing;
    ::ERR_clear_error();
    const int n = ::SSL_read(session.ssl, request_.data(), static_cast<int>(request_.size()));
    if (n > 0) {
      if (!session.answered) session.requests.assign(request_.data(), static_cast<std::size_t>(n));
      OPENSSL_cleanse(request_.data(), static_cast<std::size_t>(n));
      return Moved::something;
    }
    if (waits(session, n)) return Moved::nothing;
    if (::SSL_get_error(session.ssl, n) != SSL_ERROR_ZERO_RETURN) return Moved::broken;
    session.asked = true;
    ::shutdown(session.plain, SHUT_WR);
    return Moved::something;
  }

  Moved move_answers(Session& session, std::size_t& left) {
    if (!session.answers.empty()) {
      const std::size_t sent = write(session, session.answers);
      if (sent == broken_) return Moved::broken;
      session.answers.erase(0, sent);
      left -= std::min(left, sent);
      if (session.answers.empty()) session.answers.shrink_to_fit();
      if (!session.answers.empty() && !session.gone && is_gone(session.plain)) {
        session.gone = true;
        session.deadline = now_ + end_patience;
      }
      return sent > 0 ? Moved::something : Moved::nothing;
    }
    if (session.answered) return Moved::nothing;
    const ssize_t n = ::recv(session.plain, answer_.data(), answer_.size(), MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return Moved::nothing;
    if (n < 0) return Moved::broken;
    if (n == 0) {
      session.answered = true;
      session.deadline = now_ + linger_time;
      // If there is no room for it now, the client sees the end without the word.
      ::ERR_clear_error();
      ::SSL_shutdown(session.ssl);
      ::shutdown(session.tcp, SHUT_WR);
      return Moved::something;
    }
    const std::string_view bytes(answer_.data(), static_cast<std::size_t>(n));
    const std::size_t sent = write(session, bytes);
    if (sent == broken_) return Moved::broken;
    session.answers.assign(bytes.substr(sent));
    left -= std::min(left, sent);
    return Moved::something;
  }

  static constexpr std::size_t broken_ = static_cast<std::size_t>(-1);
  // How much of it went, or broken_.
  static std::size_t write(Session& session, std::string_view bytes) {
    std::size_t sent = 0;
    while (sent < bytes.size()) {
      ::ERR_clear_error();
      session.wire.more = bytes.size() - sent > record_bytes;
      const int n =
          ::SSL_write(session.ssl, bytes.data() + sent, static_cast<int>(bytes.size() - sent));
      session.wire.more = false;
      if (n <= 0) return waits(session, n) ? sent : broken_;
      sent += static_cast<std::size_t>(n);
    }
    return sent;
  }

  // Its other end is closed; there may be something left to read of what it said.
  static bool is_gone(int plain) {
    pollfd question{.fd = plain, .events = POLLRDHUP, .revents = 0};
    return ::poll(&question, 1, 0) > 0 && (question.revents & (POLLRDHUP | POLLHUP)) != 0;
  }

  TlsGate& gate_;
  const int epoll_;
  const int bell_;
  std::mutex mutex_;
  std::vector<Mail> mail_;  // under mutex_
  // The thread's.
  std::list<Session> sessions_;
  std::vector<Session*> again_;
  bool stop_ = false;
  SteadyTime now_;
  std::array<char, request_bytes> request_;
  std::array<char, answer_bytes> answer_;
  std::thread thread_;
};

// ---- TlsGate -----------------------------------------------------------------------------------

TlsGate::TlsGate(std::size_t threads) {
  assert(threads > 0);
  for (std::size_t i = 0; i < threads; ++i) threads_.push_back(std::make_unique<Thread>(*this));
}

TlsGate::~TlsGate() = default;

int TlsGate::admit(int tcp, std::chrono::milliseconds handshake) {
  std::array<int, 2> pair{-1, -1};
  if (!context_ || ::fcntl(tcp, F_SETFL, ::fcntl(tcp, F_GETFL) | O_NONBLOCK) != 0 ||
      ::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair.data()) != 0) {
    ::close(tcp);
    return -1;
  }
  ++open_;
  next_ = (next_ + 1) % threads_.size();
  threads_[next_]->post({.tcp = tcp,
                         .plain = pair[0],
                         .context = context_,
                         .deadline = std::chrono::steady_clock::now() + handshake});
  return pair[1];
}

TlsGate::Figures TlsGate::figures() const {
  return {.open = open_, .handshakes = handshakes_, .failed = failed_};
}

}  // namespace staithe::proxy
