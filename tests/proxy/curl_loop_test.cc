// Whose certificate is believed, with a real TLS server on loopback.
#include "proxy/curl_loop.h"

#include <gtest/gtest.h>
#include <openssl/ssl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <boost/asio/io_context.hpp>
#include <csignal>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "cache/error.h"
#include "tests/fake/listener.h"
#include "tests/proxy/auth/make_certificate.h"
#include "tests/proxy/curl_exchange.h"

namespace staithe::proxy {
namespace {

using auth::make_pair;
using auth::must;
using auth::Pair;

// Answers every request with "ok", on connections that it keeps open.
class TlsServer {
 public:
  struct Seen {
    std::string head, server_name;
  };

  explicit TlsServer(const Pair& pair) : context_(SSL_CTX_new(TLS_server_method()), &SSL_CTX_free) {
    std::signal(SIGPIPE, SIG_IGN);
    must(SSL_CTX_use_certificate(context_.get(), pair.x509.get()) == 1, "certificate");
    must(SSL_CTX_use_PrivateKey(context_.get(), pair.rsa.get()) == 1, "key");
    acceptor_ = std::thread([this] { accept_all(); });
  }
  ~TlsServer() {
    listener_.stop();
    acceptor_.join();
    {
      const std::lock_guard lock(mutex_);
      for (const int fd : connections_) ::shutdown(fd, SHUT_RDWR);
    }
    for (std::thread& thread : threads_) thread.join();
    for (const int fd : connections_) ::close(fd);
  }
  TlsServer(const TlsServer&) = delete;
  TlsServer& operator=(const TlsServer&) = delete;

  std::string port() const { return std::to_string(listener_.port()); }
  std::vector<Seen> seen() {
    const std::lock_guard lock(mutex_);
    return seen_;
  }

 private:
  void accept_all() {
    for (;;) {
      const int fd = listener_.accept();
      if (fd < 0) return;
      const std::lock_guard lock(mutex_);
      connections_.push_back(fd);
      threads_.emplace_back([this, fd] { serve(fd); });
    }
  }
  void serve(int fd) {
    const std::unique_ptr<SSL, decltype(&SSL_free)> tls(SSL_new(context_.get()), &SSL_free);
    SSL_set_fd(tls.get(), fd);
    if (SSL_accept(tls.get()) == 1) {
      std::string text;
      char piece[4096];
      for (int n = 0; (n = SSL_read(tls.get(), piece, sizeof piece)) > 0;) {
        text.append(piece, static_cast<std::size_t>(n));
        if (!text.ends_with("\r\n\r\n")) continue;
        const char* name = SSL_get_servername(tls.get(), TLSEXT_NAMETYPE_host_name);
        {
          const std::lock_guard lock(mutex_);
          seen_.push_back({.head = text, .server_name = name ? name : ""});
        }
        text.clear();
        constexpr std::string_view answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
        SSL_write(tls.get(), answer.data(), static_cast<int>(answer.size()));
      }
    }
    ERR_clear_error();
    ::shutdown(fd, SHUT_RDWR);
  }

  std::unique_ptr<SSL_CTX, decltype(&SSL_CTX_free)> context_;
  const fake::Listener listener_;
  std::thread acceptor_;
  std::mutex mutex_;
  std::vector<int> connections_;
  std::vector<std::thread> threads_;
  std::vector<Seen> seen_;
};

std::string sha1_of(const Pair& pair) {
  std::array<unsigned char, EVP_MAX_MD_SIZE> hash{};
  unsigned size = 0;
  must(X509_digest(pair.x509.get(), EVP_sha1(), hash.data(), &size) == 1, "digest");
  std::string hex;
  for (unsigned i = 0; i < size; ++i) {
    hex += "0123456789ABCDEF"[hash[i] >> 4];
    hex += "0123456789ABCDEF"[hash[i] & 15];
  }
  return hex;
}

class TlsTrust : public testing::Test {
 protected:
  // "200 ok", or the class of the error.
  std::string send(HttpRequest request) {
    return outcome_of(io, loop, std::move(request),
                      [](const Error& error) { return std::string(to_string(error.code)); });
  }
  HttpRequest to(const std::string& host) const {
    HttpRequest request;
    request.url = Url::parse("https://" + host + ":" + server.port() + "/t").value();
    request.connect_to = "127.0.0.1:" + server.port();
    request.host_named_by = HostNamedBy::configuration;
    return request;
  }

  inline static const Pair pair = make_pair({.name = "binding.test"});
  inline static const Pair other = make_pair({.new_key = true, .name = "binding.test"});
  TlsServer server{pair};
  asio::io_context io;
  CurlLoop loop{io.get_executor()};
};

TEST_F(TlsTrust, IsInNobodyThatTheSystemDoesNotKnow) {
  EXPECT_EQ(send(to("binding.test")), "unreachable");
  EXPECT_TRUE(server.seen().empty());
}

TEST_F(TlsTrust, OfAThumbprintIsInThatCertificateWhateverItsName) {
  HttpRequest request = to("localhost");
  request.certificate_thumbprint = sha1_of(pair);
  EXPECT_EQ(send(request), "200 ok");
  for (char& c : request.certificate_thumbprint) c = static_cast<char>(std::tolower(c));
  EXPECT_EQ(send(request), "200 ok");
  EXPECT_EQ(server.seen().size(), 2U);
  for (const std::string& wrong : {sha1_of(other), sha1_of(pair).substr(0, 39), sha1_of(pair) + "0",
                                   std::string(40, '0'), std::string("x")}) {
    request.certificate_thumbprint = wrong;
    EXPECT_EQ(send(request), "unreachable") << wrong;
  }
  EXPECT_EQ(server.seen().size(), 2U);
}

TEST_F(TlsTrust, OfAPemIsInItsIssuersForTheUrlsName) {
  HttpRequest request = to("binding.test");
  request.ca_pem = pair.certificate;
  request.headers.add("Host", "10.0.0.1");
  EXPECT_EQ(send(request), "200 ok");
  ASSERT_EQ(server.seen().size(), 1U);
  EXPECT_EQ(server.seen()[0].server_name, "binding.test");
  const std::string head = server.seen()[0].head;
  EXPECT_TRUE(head.starts_with("GET /t HTTP/1.1\r\nHost: 10.0.0.1\r\n")) << head;
  EXPECT_EQ(head.find("Host:"), head.rfind("Host:")) << head;
  HttpRequest stranger = to("stranger.test");
  stranger.ca_pem = pair.certificate;
  EXPECT_EQ(send(stranger), "unreachable");
  for (const std::string& pem : {other.certificate, std::string("garbage")}) {
    request.ca_pem = pem;
    EXPECT_EQ(send(request), "unreachable");
  }
  EXPECT_EQ(server.seen().size(), 1U);
}

// Neither a kept connection nor a resumed session carries trust over to a request without it.
TEST_F(TlsTrust, IsNotInheritedFromAnotherRequest) {
  HttpRequest by_pem = to("binding.test");
  by_pem.ca_pem = pair.certificate;
  HttpRequest by_thumbprint = to("binding.test");
  by_thumbprint.certificate_thumbprint = sha1_of(pair);
  HttpRequest wrong_thumbprint = by_thumbprint;
  wrong_thumbprint.certificate_thumbprint = sha1_of(other);
  HttpRequest wrong_pem = by_pem;
  wrong_pem.ca_pem = other.certificate;
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(send(by_pem), "200 ok");
    EXPECT_EQ(send(to("binding.test")), "unreachable");
    EXPECT_EQ(send(wrong_thumbprint), "unreachable");
    EXPECT_EQ(send(by_thumbprint), "200 ok");
    EXPECT_EQ(send(wrong_pem), "unreachable");
    EXPECT_EQ(send(wrong_thumbprint), "unreachable");
    EXPECT_EQ(send(to("binding.test")), "unreachable");
  }
  EXPECT_EQ(server.seen().size(), 6U);
}

}  // namespace
}  // namespace staithe::proxy
