// What a connection waits for, and for how long: with a client that the test plays byte by byte.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <boost/asio/io_context.hpp>
#include <boost/asio/local/connect_pair.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/write.hpp>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <thread>

#include "cache/event.h"
#include "proxy/connection.h"

namespace staithe::proxy {
namespace {

using namespace std::chrono_literals;

class Deadlines : public testing::Test, protected Handler {
 protected:
  Deadlines() {
    std::signal(SIGPIPE, SIG_IGN);
    asio::local::stream_protocol::socket served(io);
    asio::local::connect_pair(client, served);
    connection.emplace(Socket(io, asio::generic::stream_protocol(AF_UNIX, 0), served.release()),
                       limits, static_cast<Handler&>(*this), disk);
    asio::co_spawn(io, connection->run(), [this](std::exception_ptr) { ended = true; });
    client.non_blocking(true);
    settle();
  }
  ~Deadlines() override {
    connection->shut_down();
    upstream_answered.notify_all();
    while (!ended) io.run_one();
    disk.join();
  }

  // Until nothing moves any more without the client.
  void settle() {
    for (;;) {
      io.restart();
      if (io.poll() > 0) continue;
      // The disk's pool may still be at work: it comes back to the loop with what it has done.
      std::atomic<bool> idle = false;
      asio::post(disk, [&] { idle = true; });
      while (!idle) std::this_thread::yield();
      io.restart();
      if (io.poll() == 0) return;
    }
  }
  void send(std::string_view text) {
    asio::write(client, asio::buffer(text));
    settle();
  }
  void take(std::size_t bytes) {
    std::vector<char> piece(64 * 1024);
    for (std::size_t taken = 0; taken < bytes; settle()) {
      boost::system::error_code error;
      const std::size_t most = std::min(piece.size(), bytes - taken);
      taken += client.read_some(asio::buffer(piece.data(), most), error);
      ASSERT_FALSE(error) << error.message();
    }
  }
  void ask(std::string_view path) {
    send("GET " + std::string(path) + " HTTP/1.1\r\nHost: x\r\n\r\n");
  }
  // As seen by a sweep so much later. Time has gone on since the phase began, never back.
  bool overdue_in(std::chrono::milliseconds later) {
    return connection->overdue(std::chrono::steady_clock::now() + later);
  }

  void take_slowly() {
    take(1 << 20);
    EXPECT_FALSE(overdue_in(151s));
    take(1 << 20);
    EXPECT_FALSE(overdue_in(302s));
    EXPECT_TRUE(overdue_in(453s)) << "it has taken nothing since";
  }

  static constexpr std::size_t large = 32 << 20;

  asio::awaitable<void> handle(Exchange& exchange) override {
    const std::string_view path = exchange.request().target;
    if (path == "/reply") co_await exchange.reply(200, "text/plain", std::string(large, 'x'));
    if (path == "/file") {
      co_await exchange.begin(200, "text/plain", large);
      co_await exchange.send_file(file(), 0, large);
    }
    if (path == "/late") {
      co_await exchange.begin(200, "text/plain", 10);
      co_await exchange.send(std::string(5, 'x'));
      co_await upstream_answered.wait();
      co_await exchange.send(std::string(5, 'x'));
    }
    if (!exchange.answered()) co_await exchange.reply(200, "text/plain", "ok");
  }
  void handled(const Exchange&, std::chrono::microseconds, const Error*) override { ++answers; }

  int file() {
    if (file_ < 0) {
      file_ = ::open(std::filesystem::temp_directory_path().c_str(), O_TMPFILE | O_RDWR, 0600);
      EXPECT_EQ(::ftruncate(file_, large), 0);
    }
    return file_;
  }

  asio::io_context io{1};
  asio::thread_pool disk{1};
  const ConnectionLimits limits{.header_timeout = 10s, .idle_timeout = 150s};
  asio::local::stream_protocol::socket client{io};
  std::optional<Connection> connection;
  Event upstream_answered{io.get_executor()};
  int answers = 0;
  bool ended = false;

 private:
  int file_ = -1;
};

using Phase = Connection::Phase;

TEST_F(Deadlines, OfAHeadStandFromItsFirstByte) {
  send("G");
  const auto begun = std::chrono::steady_clock::now();
  EXPECT_EQ(connection->phase(), Phase::head);
  for (const char c : std::string("ET /x HTTP/1.1\r\nHost: x\r\nX: yyyyyyyyyyyy"))
    send(std::string_view(&c, 1));
  EXPECT_TRUE(connection->overdue(begun + limits.header_timeout)) << "whatever came after it";
  EXPECT_FALSE(connection->overdue(begun));
}

TEST_F(Deadlines, OfAnIdleConnectionAreThoseOfKeepAlive) {
  ask("/ok");
  EXPECT_EQ(answers, 1);
  EXPECT_EQ(connection->phase(), Phase::idle);
  EXPECT_FALSE(overdue_in(100s));
  EXPECT_TRUE(overdue_in(151s));
}

TEST_F(Deadlines, EndAClientThatTakesNothing) {
  ask("/reply");
  EXPECT_EQ(connection->phase(), Phase::send);
  EXPECT_FALSE(overdue_in(100s));
  EXPECT_TRUE(overdue_in(151s));
}

TEST_F(Deadlines, EndAClientThatTakesNothingOfAFile) {
  ask("/file");
  EXPECT_EQ(connection->phase(), Phase::send);
  EXPECT_FALSE(overdue_in(100s));
  EXPECT_TRUE(overdue_in(151s));
}

TEST_F(Deadlines, LeaveAClientThatTakesTheLeast) {
  ask("/reply");
  take_slowly();
}

TEST_F(Deadlines, LeaveAClientThatTakesTheLeastOfAFile) {
  ask("/file");
  take_slowly();
}

TEST_F(Deadlines, DoNotCountUpstreamsTimeAgainstAClient) {
  ask("/late");
  EXPECT_EQ(connection->phase(), Phase::answer);
  EXPECT_FALSE(overdue_in(1000h)) << "it has taken all that there was";
  upstream_answered.notify_all();
  settle();
  EXPECT_EQ(answers, 1);
  EXPECT_EQ(connection->phase(), Phase::idle);
}

TEST_F(Deadlines, OfPipelinedRequestsComeOneByOne) {
  std::string many;
  for (int i = 0; i < 1000; ++i) many += "GET /ok HTTP/1.1\r\nHost: x\r\n\r\n";
  many = "GET /late HTTP/1.1\r\nHost: x\r\n\r\n" + many;
  send(many);
  EXPECT_EQ(answers, 0) << "the first has to be answered before the second is looked at";
  upstream_answered.notify_all();
  settle();
  EXPECT_GT(answers, 1);
}

TEST_F(Deadlines, AreNoMatterForAClientThatLeaves) {
  ask("/reply");
  client.close();
  settle();
  EXPECT_TRUE(ended);
  EXPECT_EQ(answers, 1);
}

}  // namespace
}  // namespace staithe::proxy
