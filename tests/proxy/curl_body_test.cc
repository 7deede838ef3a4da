// Bodies as they come from a real socket on loopback.
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <csignal>
#include <random>
#include <string>
#include <thread>

#include "proxy/curl_loop.h"
#include "tests/fake/listener.h"
#include "tests/proxy/auth/make_certificate.h"

namespace staithe::proxy {
namespace {

using auth::must;

// Answers every request on one connection after the other with the body.
class BodyServer {
 public:
  explicit BodyServer(std::string body) : body_(std::move(body)) {
    std::signal(SIGPIPE, SIG_IGN);
    url_ = "http://127.0.0.1:" + std::to_string(listener_.port()) + "/";
    thread_ = std::thread([this] { serve(); });
  }
  // Clients have closed their connections.
  ~BodyServer() {
    listener_.stop();
    thread_.join();
  }
  BodyServer(const BodyServer&) = delete;
  BodyServer& operator=(const BodyServer&) = delete;

  const std::string& url() const { return url_; }
  int connections() const { return connections_; }

 private:
  void serve() {
    for (;;) {
      const int fd = listener_.accept();
      if (fd < 0) return;
      ++connections_;
      std::string text;
      char piece[4096];
      for (ssize_t n = 0; (n = ::recv(fd, piece, sizeof piece, 0)) > 0;) {
        text.append(piece, static_cast<std::size_t>(n));
        if (!text.ends_with("\r\n\r\n")) continue;
        text.clear();
        const std::string answer =
            "HTTP/1.1 200 OK\r\nContent-Length: " + std::to_string(body_.size()) + "\r\n\r\n" +
            body_;
        for (std::size_t at = 0; at < answer.size();) {
          const ssize_t sent = ::send(fd, answer.data() + at, answer.size() - at, MSG_NOSIGNAL);
          if (sent <= 0) break;
          at += static_cast<std::size_t>(sent);
        }
      }
      ::close(fd);
    }
  }

  std::string body_;
  std::string url_;
  const fake::Listener listener_;
  std::atomic<int> connections_ = 0;
  std::thread thread_;
};

struct Got {
  std::string body;
  std::size_t first = 0;  // bytes of the first piece
  std::size_t most = 0;   // of any
};

// Reads it all, with `turns` of the loop between two pieces.
asio::awaitable<Got> get(CurlLoop& loop, const std::string& url, int turns) {
  HttpRequest request;
  request.url = Url::parse(url).value();
  request.host_named_by = HostNamedBy::configuration;
  const auto response = co_await loop.send(std::move(request));
  Got got;
  std::vector<char> piece;
  while (co_await response->read(piece)) {
    if (got.body.empty()) got.first = piece.size();
    got.most = std::max(got.most, piece.size());
    got.body.append(piece.data(), piece.size());
    for (int i = 0; i < turns; ++i) co_await asio::post(asio::use_awaitable);
  }
  co_return got;
}

TEST(CurlBody, ComesWholeInBoundedPiecesWhoeverReadsSlowly) {
  std::mt19937_64 random(1);
  for (const std::size_t size : {1, 1000, 64 * 1024, 256 * 1024, 1024 * 1024, 5'000'000}) {
    std::string body(size, '\0');
    for (char& c : body) c = static_cast<char>(random());
    BodyServer server(body);
    asio::io_context io;
    CurlLoop loop(io.get_executor());
    for (const int turns : {0, 1, 100}) {
      SCOPED_TRACE(std::to_string(size) + " bytes, " + std::to_string(turns) + " turns");
      std::optional<Got> got;
      asio::co_spawn(io, get(loop, server.url(), turns), [&](std::exception_ptr error, Got all) {
        EXPECT_FALSE(error);
        got = std::move(all);
      });
      io.restart();
      while (!got && io.run_one() > 0) {
      }
      ASSERT_TRUE(got);
      EXPECT_TRUE(got->body == body);
      EXPECT_LE(got->most, 1024u * 1024) << "what is held in memory";
      EXPECT_LE(got->first, 512u * 1024) << "the first bytes do not wait for a megabyte";
    }
    EXPECT_EQ(server.connections(), 1) << "read to its end, the connection is used again";
  }
}

}  // namespace
}  // namespace staithe::proxy
