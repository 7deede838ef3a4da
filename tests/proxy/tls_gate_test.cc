#include "proxy/tls_gate.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <csignal>
#include <functional>
#include <thread>

#include "cache/digest.h"
#include "tests/proxy/auth/make_certificate.h"

namespace staithe::proxy {
namespace {

using namespace std::chrono_literals;

TlsContextPtr context_of(const auth::Pair& pair) {
  auto context = TlsContext::from_pem(pair.key + pair.certificate);
  EXPECT_TRUE(context) << context.error().detail;
  return *context;
}

// What the threads of a gate do is waited for; a minute is for ever.
bool comes_true(const std::function<bool()>& condition) {
  const auto end = std::chrono::steady_clock::now() + 1min;
  while (!condition()) {
    if (std::chrono::steady_clock::now() > end) return false;
    std::this_thread::yield();
  }
  return true;
}

// A client at one end of a connection, blocking.
class Client {
 public:
  explicit Client(int fd) : fd_(fd), context_(::SSL_CTX_new(::TLS_client_method())) {
    ::SSL_CTX_set_verify(context_, SSL_VERIFY_NONE, nullptr);
  }
  ~Client() {
    ::SSL_free(ssl_);
    ::SSL_CTX_free(context_);
    if (fd_ >= 0) ::close(fd_);
  }
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;

  SSL_CTX* settings() { return context_; }
  bool shake_hands() {
    ssl_ = ::SSL_new(context_);
    ::SSL_set_fd(ssl_, fd_);
    const bool done = ::SSL_connect(ssl_) == 1;
    ::ERR_clear_error();
    return done;
  }
  void write(std::string_view bytes) {
    ASSERT_EQ(::SSL_write(ssl_, bytes.data(), static_cast<int>(bytes.size())),
              static_cast<int>(bytes.size()));
  }
  // Until so many bytes are there, or the end.
  std::string read(std::size_t size) {
    std::string all;
    std::array<char, 32 * 1024> piece;
    while (all.size() < size) {
      const int n = ::SSL_read(ssl_, piece.data(),
                               static_cast<int>(std::min(piece.size(), size - all.size())));
      if (n <= 0) break;
      all.append(piece.data(), static_cast<std::size_t>(n));
    }
    ::ERR_clear_error();
    return all;
  }
  bool was_told_of_the_end() const { return ::SSL_get_shutdown(ssl_) & SSL_RECEIVED_SHUTDOWN; }
  SSL* ssl() { return ssl_; }
  void leave() { ::close(std::exchange(fd_, -1)); }
  int fd() const { return fd_; }

 private:
  int fd_;
  SSL_CTX* context_;
  SSL* ssl_ = nullptr;
};

class Tls : public testing::Test {
 protected:
  Tls() {
    std::signal(SIGPIPE, SIG_IGN);  // As the daemon does.
    gate_.use(context_of(auth::make_pair()));
  }
  ~Tls() override {
    for (const int fd : plain_) ::close(fd);
  }

  // The client's end; ours is at plain_.back().
  int connect(std::chrono::milliseconds patience = 1min) {
    std::array<int, 2> pair{};
    if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair.data()) != 0) std::abort();
    plain_.push_back(gate_.admit(pair[0], patience));
    return pair[1];
  }
  int plain() const { return plain_.back(); }
  std::string read_plainly(std::size_t size) const {
    std::string all(size, '\0');
    std::size_t got = 0;
    while (got < size) {
      pollfd ready{.fd = plain(), .events = POLLIN, .revents = 0};
      if (::poll(&ready, 1, 60'000) <= 0) break;
      const ssize_t n = ::recv(plain(), all.data() + got, size - got, 0);
      if (n <= 0) break;
      got += static_cast<std::size_t>(n);
    }
    all.resize(got);
    return all;
  }
  void write_plainly(std::string_view bytes) const {
    while (!bytes.empty()) {
      pollfd ready{.fd = plain(), .events = POLLOUT, .revents = 0};
      ASSERT_GT(::poll(&ready, 1, 60'000), 0);
      const ssize_t n = ::send(plain(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (n < 0 && errno == EAGAIN) continue;
      ASSERT_GT(n, 0);
      bytes.remove_prefix(static_cast<std::size_t>(n));
    }
  }

  TlsGate gate_{2};
  std::vector<int> plain_;
};

TEST_F(Tls, CarriesWhatBothSidesSay) {
  Client client(connect());
  ASSERT_TRUE(client.shake_hands());
  client.write("GET /v2/ HTTP/1.1\r\n\r\n");
  EXPECT_EQ(read_plainly(21), "GET /v2/ HTTP/1.1\r\n\r\n");
  write_plainly("HTTP/1.1 200 OK\r\n\r\n");
  EXPECT_EQ(client.read(19), "HTTP/1.1 200 OK\r\n\r\n");
  EXPECT_EQ(gate_.figures().handshakes, 1U);
}

TEST_F(Tls, CarriesALargeAnswerToASlowReader) {
  Client client(connect());
  ASSERT_TRUE(client.shake_hands());
  std::string blob(20'000'000, '\0');
  for (std::size_t i = 0; i < blob.size(); ++i) blob[i] = static_cast<char>(i * 7 + i / 251);
  std::thread writer([&] {
    write_plainly(blob);
    ::shutdown(plain(), SHUT_WR);
  });
  std::string got;
  while (got.size() < blob.size()) {
    const std::string piece = client.read(std::min<std::size_t>(100'001, blob.size() - got.size()));
    if (piece.empty()) break;
    got += piece;
  }
  writer.join();
  EXPECT_EQ(cache::digest_of(cache::Algorithm::sha256, got),
            cache::digest_of(cache::Algorithm::sha256, blob));
  EXPECT_EQ(client.read(1), "");
  EXPECT_TRUE(client.was_told_of_the_end());
}

// Its backlog is the plain end's to see, not memory of ours.
TEST_F(Tls, HoldsBackAnAnswerThatNobodyTakes) {
  Client client(connect());
  ASSERT_TRUE(client.shake_hands());
  const std::string piece(64 * 1024, 'x');
  std::size_t sent = 0;
  for (;;) {
    pollfd ready{.fd = plain(), .events = POLLOUT, .revents = 0};
    if (::poll(&ready, 1, 500) == 0) break;  // nothing has moved for half a second
    const ssize_t n = ::send(plain(), piece.data(), piece.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n > 0) sent += static_cast<std::size_t>(n);
    ASSERT_LT(sent, 16'000'000U);
  }
  EXPECT_EQ(client.read(sent).size(), sent);
}

TEST_F(Tls, SpeaksHttp11AndNoOlderTls) {
  Client plain_http(connect());
  static constexpr unsigned char both[] = "\x02h2\x08http/1.1";
  ::SSL_CTX_set_alpn_protos(plain_http.settings(), both, sizeof both - 1);
  ASSERT_TRUE(plain_http.shake_hands());
  const unsigned char* chosen = nullptr;
  unsigned length = 0;
  ::SSL_get0_alpn_selected(plain_http.ssl(), &chosen, &length);
  EXPECT_EQ(std::string(reinterpret_cast<const char*>(chosen), length), "http/1.1");
  EXPECT_EQ(::SSL_version(plain_http.ssl()), TLS1_3_VERSION);

  Client h2(connect());
  ::SSL_CTX_set_alpn_protos(h2.settings(), both, 3);
  EXPECT_FALSE(h2.shake_hands());

  Client old(connect());
  ::SSL_CTX_set_security_level(old.settings(), 0);
  ::SSL_CTX_set_min_proto_version(old.settings(), TLS1_VERSION);
  ::SSL_CTX_set_max_proto_version(old.settings(), TLS1_1_VERSION);
  EXPECT_FALSE(old.shake_hands());

  Client weak(connect());
  ::SSL_CTX_set_max_proto_version(weak.settings(), TLS1_2_VERSION);
  ::SSL_CTX_set_cipher_list(weak.settings(), "AES128-SHA:AES128-GCM-SHA256:ECDHE-RSA-AES128-SHA");
  EXPECT_FALSE(weak.shake_hands()) << "neither without forward secrecy nor with CBC";
  EXPECT_TRUE(comes_true([&] { return gate_.figures().failed == 3; }));
}

TEST_F(Tls, DoesNotNegotiateAgain) {
  Client client(connect());
  ::SSL_CTX_set_max_proto_version(client.settings(), TLS1_2_VERSION);
  ASSERT_TRUE(client.shake_hands());
  EXPECT_EQ(::SSL_get_secure_renegotiation_support(client.ssl()), 1);
  ::SSL_renegotiate(client.ssl());
  EXPECT_NE(::SSL_do_handshake(client.ssl()), 1);
  ::ERR_clear_error();
}

TEST_F(Tls, GivesNoSessionToComeBackWith) {
  Client client(connect());
  ASSERT_TRUE(client.shake_hands());
  write_plainly("x");
  EXPECT_EQ(client.read(1), "x");
  EXPECT_EQ(::SSL_SESSION_is_resumable(::SSL_get_session(client.ssl())), 0);
}

TEST_F(Tls, EndsWhoDoesNotShakeHandsInTime) {
  Client silent(connect(100ms));
  char none = 0;
  EXPECT_EQ(::recv(silent.fd(), &none, 1, 0), 0);
  EXPECT_TRUE(comes_true([&] { return gate_.figures().open == 0; }));
  EXPECT_EQ(gate_.figures().failed, 1U);
  EXPECT_EQ(read_plainly(1), "");
}

TEST_F(Tls, EndsWhoSpeaksPlainly) {
  Client plain_speaker(connect());
  const std::string_view text = "GET /v2/ HTTP/1.1\r\nHost: localhost\r\n\r\n";
  ASSERT_EQ(::send(plain_speaker.fd(), text.data(), text.size(), 0),
            static_cast<ssize_t>(text.size()));
  EXPECT_EQ(read_plainly(1), "");
  EXPECT_TRUE(comes_true([&] { return gate_.figures().open == 0; }));
}

TEST_F(Tls, EndsWithTheOneWhoLeaves) {
  {
    Client client(connect());
    ASSERT_TRUE(client.shake_hands());
    client.leave();
    EXPECT_EQ(read_plainly(1), "") << "the plain end is told";
  }
  ::shutdown(plain(), SHUT_RDWR);
  EXPECT_TRUE(comes_true([&] { return gate_.figures().open == 0; }));
  Client other(connect());
  ASSERT_TRUE(other.shake_hands());
  ::shutdown(plain(), SHUT_RDWR);
  EXPECT_EQ(other.read(1), "");
  EXPECT_TRUE(other.was_told_of_the_end());
  other.leave();
  EXPECT_TRUE(comes_true([&] { return gate_.figures().open == 0; }));
}

TEST_F(Tls, KeepsNothingOfThoseWhoLeaveEarly) {
  for (int i = 0; i < 300; ++i) {
    Client client(connect());
    if (i % 3 == 0) continue;
    if (i % 3 == 1) {
      ::send(client.fd(), "\x16\x03\x01\x02", 4, MSG_NOSIGNAL);
      continue;
    }
    ASSERT_TRUE(client.shake_hands());
    client.write("GET ");
  }
  for (const int fd : std::exchange(plain_, {})) ::close(fd);
  EXPECT_TRUE(comes_true([&] { return gate_.figures().open == 0; }));
}

TEST_F(Tls, TakesANewCertificateForThoseWhoComeThen) {
  const auto name = [](Client& client) {
    std::array<char, 64> text{};
    X509* certificate = ::SSL_get1_peer_certificate(client.ssl());
    ::X509_NAME_get_text_by_NID(::X509_get_subject_name(certificate), NID_commonName, text.data(),
                                text.size());
    ::X509_free(certificate);
    return std::string(text.data());
  };
  Client before(connect());
  ASSERT_TRUE(before.shake_hands());
  gate_.use(context_of(auth::make_pair({.name = "another"})));
  Client after(connect());
  ASSERT_TRUE(after.shake_hands());
  EXPECT_EQ(name(before), "staithe test");
  EXPECT_EQ(name(after), "another");
}

TEST(TlsContext, RefusesWhatItCannotUseAndQuotesNothing) {
  const auth::Pair pair = auth::make_pair();
  const auth::Pair other = auth::make_pair({.new_key = true});
  for (const std::string& pem :
       {std::string(), std::string("planted"), pair.key, pair.certificate,
        pair.key + "-----BEGIN CERTIFICATE-----\nplanted\n-----END CERTIFICATE-----\n",
        other.key + pair.certificate, pair.key + std::string(300'000, 'p')}) {
    const auto context = TlsContext::from_pem(pem);
    ASSERT_FALSE(context);
    EXPECT_EQ(context.error().code, Errc::config);
    EXPECT_THAT(context.error().detail, testing::HasSubstr("staithe setup --tls"));
    EXPECT_THAT(context.error().detail, testing::Not(testing::HasSubstr("planted")));
  }
  const auto context = TlsContext::from_pem(pair.certificate + pair.key);
  ASSERT_TRUE(context);
  EXPECT_GT((*context)->not_after(), std::chrono::sys_days(std::chrono::year(2035) / 12 / 30));
}

}  // namespace
}  // namespace staithe::proxy
